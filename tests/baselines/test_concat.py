import torch

from planted import every_pattern, random_features


def test_complete_samples_pass_one_linear_layer(world3):
    task = world3.task("concat").double()
    features = random_features(task, 5)
    expected = task.head(torch.cat([features[m] for m in task.modalities], dim=1))
    torch.testing.assert_close(task.fuse(features, torch.ones(5, 3, dtype=torch.bool)), expected)


def test_a_patterns_logits_are_the_sum_of_its_parts(world3):
    task = world3.task("concat").double()
    present = every_pattern(3)
    features = random_features(task, len(present))
    logits = task.fuse(features, present)
    for i, row in enumerate(present):
        expected, start = torch.zeros(3, dtype=torch.double), 0
        for m, here in zip(task.modalities, row, strict=True):
            columns = task.head.weight[:, start : start + task.dims[m]]
            start += task.dims[m]
            if here:
                expected = expected + columns @ features[m][i] + task.head.bias / 3
        torch.testing.assert_close(logits[i], expected)
