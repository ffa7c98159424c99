"""On a GPU, convolutions work on pictures whose channels lie last in memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmbench.baselines import METHODS
from mmbench.encoders.timm_image import ResNet18
from mmbench.testing.planted import Planted2, VectorEncoder, batch_of, planted_world
from mmbench.training import put_channels_last


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    encoders = {"sensor": VectorEncoder(512), "picture": ResNet18(in_channels=1)}
    return METHODS["mmin"](planted_world(Planted2).data.spec, encoders)


def test_every_convolution_is_laid_out_and_its_outputs_are(plain):
    task = copy.deepcopy(plain)
    put_channels_last(task)
    convolutions = [module for module in task.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 2 * 20  # of the encoder, and of its copy that teaches
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions)
    seen = []
    for convolution in task.encoders["picture"].modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.register_forward_hook(lambda module, inputs, output: seen.append(output))
    task.encode(batch_of(planted_world(Planted2).complete, 4))
    wide = [output for output in seen if output[0, 0].numel() > 1]
    assert len(seen) == 20
    assert len(wide) == 10
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in wide)


def test_it_computes_the_same(plain):
    task, batch = copy.deepcopy(plain), batch_of(planted_world(Planted2).complete, 4)
    put_channels_last(task)
    torch.testing.assert_close(task.eval()(batch), copy.deepcopy(plain).eval()(batch), rtol=1e-4, atol=1e-5)
    assert task.state_dict().keys() == plain.state_dict().keys()
