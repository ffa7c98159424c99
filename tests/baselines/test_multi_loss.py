import torch
from torch.nn import functional as F

from planted import batch_of, every_pattern, random_features


def test_what_is_shown_is_answered_by_the_joint_head_and_a_modality_alone_by_its_own(world3):
    task = world3.task("multi_loss").double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        shown = [m for m, here in zip(task.modalities, row, strict=True) if here]
        if len(shown) == 1:
            expected = task.heads[shown[0]](features[shown[0]][i])
        else:
            joint = [features[m][i] if m in shown else torch.zeros_like(features[m][i]) for m in task.modalities]
            expected = task.head.weight @ torch.cat(joint) + task.head.bias * len(shown) / 3
        torch.testing.assert_close(logits[i], expected)


def test_the_loss_is_the_fused_one_and_each_modalitys_over_the_samples_that_have_it(world3):
    task = world3.task("multi_loss", unimodal_weight=0.7).double().eval()
    batch = batch_of(world3.data.splits.train, 16)
    assert not batch.present.all()
    assert (batch.present.sum(dim=1) == 1).any(), "the joint head learns from those too"
    features = random_features(task, 16)
    task.encode = lambda _: features
    fused, own = [], {m: [] for m in task.modalities}
    for i, row in enumerate(batch.present):
        z = torch.zeros(3, dtype=torch.double)
        for m, here, w in zip(task.modalities, row, task.head.weight.split(list(task.dims.values()), 1), strict=True):
            if here:
                z = z + w @ features[m][i] + task.head.bias / 3
                own[m].append(F.cross_entropy(task.heads[m](features[m][i]), batch.label[i]))
        fused.append(F.cross_entropy(z, batch.label[i]))
    means = [sum(losses) / len(losses) for losses in own.values()]
    torch.testing.assert_close(task.training_step(batch, 0), sum(fused) / 16 + 0.7 * sum(means))
    got, unimodal = task.losses(features, batch)
    torch.testing.assert_close(got, sum(fused) / 16)
    torch.testing.assert_close(unimodal, torch.stack(means))


def test_a_modality_that_nobody_has_has_no_loss(world3):
    task = world3.task("multi_loss")
    batch = batch_of(world3.complete, 6)
    batch.present = batch.present.clone()
    batch.present[:, 1] = False
    assert task.losses(task.encode(batch), batch)[1].gt(0).tolist() == [True, False, True]
