"""What a training step of each method costs in passes of the encoders, as its docstring says."""

import pytest
import pytorch_lightning as pl

from planted import METHODS, fit

# Method -> how often every encoder, a teacher's copy counted with it, runs forward and backward in a step; of stages, in the last one.
PASSES = {
    "sum": (1, 1),
    "concat": (1, 1),
    "late_fusion": (1, 1),
    "unimodal": (1, 1),
    "film": (1, 1),
    "bigated": (1, 1),
    "ogm_ge": (1, 1),
    "qmf": (1, 1),
    "mla": (1, 1),
    "ae": (1, 1),
    "cra": (1, 1),
    "mmin": (2, 1),  # the teacher's too
    "if_mmin": (2, 1),
    "tate": (2, 1),
    "umt": (2, 1),
    "reconboost": (1, 1),  # of the modality whose turn it is
    "dmrnet": (1, 1),
    "shaspec": (1, 1),
    "imder": (1, 0),  # its encoders are frozen after the first stage
    "masked_transformer": (1, 1),
    "pattern_prompts": (1, 1),
    "dcca": (1, 1),
    "dccae": (1, 1),
    "multi_loss": (1, 1),
    "agm": (1, 1),
    "arl": (1, 1),
    "g_blending": (1, 1),  # two of each in the first stage
    "dgl": (1, 1),
    "lmf": (1, 1),
    "mmpareto": (1, 2),
    "pmr": (1, 1),
    "tfn": (1, 1),
    "simmlm": (1, 1),
}
FIXED = ("cca", "cpm_net")  # learn from the features of the whole split, without training an encoder


@pytest.mark.merged
def test_every_method_is_counted():
    assert {*PASSES, *FIXED} == set(METHODS)


@pytest.mark.parametrize("method", list(PASSES))
def test_a_step_has_the_passes_that_its_equations_need(make_world, method):
    """Counted on one encoder, and the copies that a method makes of it."""
    world, passes, bounds = make_world("planted2"), [], []

    def count(encoder, inputs, output):
        passes.append("forward")
        if output.requires_grad:
            output.register_hook(lambda _: passes.append("backward"))

    task = world.task(method)
    for name, module in task.named_modules():
        if name.endswith(".picture") and hasattr(module, "out_dim"):
            module.register_forward_hook(count)
    note = pl.Callback()
    note.on_train_batch_start = note.on_train_batch_end = lambda *_: bounds.append(len(passes))
    fit(task, world.complete, batches=2, callbacks=[note])
    last = passes[bounds[-2] : bounds[-1]]
    assert (last.count("forward"), last.count("backward")) == PASSES[method]
