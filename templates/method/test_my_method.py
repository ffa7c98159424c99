"""What mmbench asks of every method, and the equations of this one."""

import torch

from mmbench.baselines import METHODS
from mmbench.testing import check_method
from mmbench.testing.planted import Planted3, batch_of, planted_world


def test_it_holds_mmbenchs_contract() -> None:
    check_method(METHODS["my_method"])


def test_the_fused_logits_are_the_trusted_mean() -> None:
    world = planted_world(Planted3)
    task = world.build(METHODS["my_method"]).eval()
    with torch.no_grad():
        task.trust.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    batch = batch_of(world.test, 8)
    features = task.encode(batch)
    fused, logits = task.fuse(features, batch.present), task.modality_logits(features)
    for row, here in enumerate(batch.present):  # the equation, by a plain loop
        total, weights = torch.zeros(3), 0.0
        for column in range(3):
            if here[column]:
                weight = torch.log1p(task.trust[column].exp())
                total, weights = total + weight * logits[row, column], weights + weight
        torch.testing.assert_close(fused[row], total / weights)
