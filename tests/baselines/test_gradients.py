import torch
from torch import nn

from mmbench.baselines.gradients import scale_gradients


def test_all_gradients_of_an_encoder_are_scaled_and_those_of_no_other():
    encoders = nn.ModuleDict({m: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for m in ("a", "b", "c")})
    for encoder in (encoders["a"], encoders["b"]):
        encoder(torch.randn(5, 3)).square().sum().backward()
    encoders["b"][0].weight.grad = None  # as of what is frozen
    before = {name: p.grad.clone() for name, p in encoders.named_parameters() if p.grad is not None}
    scale_gradients(encoders, torch.tensor([0.5, 3.0, 7.0]))
    after = {name: p.grad for name, p in encoders.named_parameters() if p.grad is not None}
    assert before.keys() == after.keys()
    assert len(before) == 7
    for name, gradient in after.items():
        torch.testing.assert_close(gradient, before[name] * (0.5 if name.startswith("a") else 3.0))
