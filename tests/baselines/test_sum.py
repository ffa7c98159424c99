import torch

from mmbench.task import MultimodalTask
from planted import every_pattern, random_features


def naive_parts(task: MultimodalTask, features: dict, sample: int) -> list[torch.Tensor]:
    """W_m h_m + b_m of one sample, modality by modality."""
    return [task.heads[m].weight @ features[m][sample] + task.heads[m].bias for m in task.modalities]


def test_logits_are_the_sum_of_the_present_modalities(world3):
    task = world3.task("sum").double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        expected = torch.zeros(3, dtype=torch.double)
        for part, here in zip(naive_parts(task, features, i), row, strict=True):
            if here:
                expected = expected + part
        torch.testing.assert_close(logits[i], expected)


def test_the_loss_is_the_cross_entropy_of_the_sum(world3):
    task = world3.task("sum").eval()
    batch = world3.data.splits.train.__getitems__(range(10))
    logits = task(batch)
    expected = sum(-logits[i].log_softmax(0)[y] for i, y in enumerate(batch.label)) / 10
    torch.testing.assert_close(task.training_step(batch, 0), expected)
