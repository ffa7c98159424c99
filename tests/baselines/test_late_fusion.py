import pytest
import torch
from torch.nn import functional as F

from planted import batch_of, every_pattern, random_features


def test_logits_are_the_average_of_the_present_modalities(world3):
    task = world3.task("late_fusion").double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        parts = [task.heads[m](features[m][i]) for m, here in zip(task.modalities, row, strict=True) if here]
        expected = sum(parts) / len(parts) if parts else torch.zeros(3, dtype=torch.double)
        torch.testing.assert_close(logits[i], expected)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_each_modality_is_trained_as_if_alone(world3, column):
    batch = batch_of(world3.data.splits.train, 16)
    task = world3.task("late_fusion")
    modality = task.modalities[column]
    encoder, head = task.encoders[modality], task.heads[modality]
    task.eval()  # no dropout
    task.training_step(batch, 0).backward()
    together = [p.grad.clone() for p in (*encoder.parameters(), *head.parameters())]
    task.zero_grad()
    rows = batch.present[:, column]
    assert 0 < rows.sum() < 16
    value = batch.inputs[modality]
    own = value[rows] if isinstance(value, torch.Tensor) else {name: v[rows] for name, v in value.items()}
    F.cross_entropy(head(encoder(own)), batch.label[rows]).backward()
    alone = [p.grad for p in (*encoder.parameters(), *head.parameters())]
    torch.testing.assert_close(together, alone)
