"""A method built again from its checkpoint."""

import io
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbench.checkpoint import KEY, encoder_choice, is_plain
from mmbench.encoders.hashed_text import HashedText
from mmbench.encoders.mlp import Mlp
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.errors import UsageError
from mmbench.recipe import Recipe
from planted import METHODS, RECIPE, VectorEncoder, fit, same, trainer, weights

Mla, Concat = METHODS["mla"], METHODS["concat"]
ENCODERS = {
    "sensor": lambda: Mlp(in_dim=6, width=8),
    "picture": lambda: SmallCNN(1, width=2),
    "words": lambda: HashedText(64, embedding_dim=5, out_dim=8),
}


@pytest.fixture
def saved(world3, tmp_path):
    """A fitted method, of registered encoders alone, and the path of its checkpoint."""
    torch.manual_seed(0)
    encoders = {m: ENCODERS[m]() for m in world3.data.modalities}
    task = Mla(world3.data.spec, encoders, RECIPE, alpha=0.3, dynamic_fusion=False)
    path = tmp_path / "model.ckpt"
    fit(task, world3.complete).save_checkpoint(path)
    return task, path


def change(path: Path, **settings) -> Path:
    """The checkpoint with other settings; None takes one away."""
    checkpoint = torch.load(path, weights_only=True)
    held = checkpoint[KEY] | settings
    checkpoint[KEY] = {name: value for name, value in held.items() if value is not None}
    torch.save(checkpoint, path)
    return path


def test_nothing_has_to_be_given(saved):
    task, path = saved
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        anew = Mla.load_from_checkpoint(source)
        assert (anew.alpha, anew.dynamic_fusion, anew.decay) == (0.3, False, True)
        assert anew.recipe == RECIPE
        assert anew.spec == task.spec
        assert same(weights(task), weights(anew))


def test_a_checkpoint_from_before_a_setting_was_there_has_its_default(saved):
    _, path = saved
    old = {
        name: value for name, value in RECIPE.model_dump(mode="json").items() if name in ("epochs", "batch_size", "lr")
    }
    assert Mla.load_from_checkpoint(change(path, recipe=old)).recipe == RECIPE


def test_a_recipe_comes_back_with_all_its_settings(world2, tmp_path):
    recipe = Recipe(
        epochs=2, batch_size=8, schedule="cosine", warmup=1, clip_norm=1, patience=1, class_weights="balanced"
    )
    task = Mla(world2.data.spec, {m: ENCODERS[m]() for m in world2.data.modalities}, recipe)
    trainer(limit_train_batches=1, limit_val_batches=1).fit(task, datamodule=world2.data)
    task.trainer.save_checkpoint(tmp_path / "model.ckpt")
    anew = Mla.load_from_checkpoint(tmp_path / "model.ckpt")
    assert anew.recipe == recipe
    assert torch.equal(anew.class_weights, task.class_weights)


def test_what_is_given_replaces_what_was_saved(saved):
    task, path = saved
    own = ENCODERS["sensor"]()
    anew = Mla.load_from_checkpoint(path, alpha=0.02, recipe=Recipe(lr=0.5), encoders={"sensor": own})
    assert (anew.alpha, anew.dynamic_fusion, anew.recipe.lr) == (0.02, False, 0.5)
    assert anew.encoders["sensor"] is own
    assert same(weights(task), weights(anew))


def test_encoders_that_no_registry_knows_must_be_given(world2, tmp_path):
    path = tmp_path / "model.ckpt"
    fit(world2.task("concat"), world2.complete).save_checkpoint(path)
    with pytest.raises(UsageError, match=re.escape("Concat.load_from_checkpoint(path, encoders={'sensor': …})")):
        Concat.load_from_checkpoint(path)
    assert Concat.load_from_checkpoint(path, encoders={"sensor": VectorEncoder()}).recipe == RECIPE


def test_a_checkpoint_that_says_nothing_of_the_method(saved):
    task, path = saved
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[KEY]
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match=re.escape("(path, spec=…, recipe=…, encoders={…})")):
        Mla.load_from_checkpoint(path)
    with pytest.raises(UsageError, match=r"\(path, encoders=\{'sensor': …, 'picture': …, 'words': …\}\)"):
        Mla.load_from_checkpoint(path, spec=task.spec, recipe=RECIPE)
    encoders = {m: ENCODERS[m]() for m in task.modalities}
    assert same(
        weights(task), weights(Mla.load_from_checkpoint(path, spec=task.spec, recipe=RECIPE, encoders=encoders))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "Concat"}, "was written by Concat, not by Mla: use Concat.load_from_checkpoint"),
        ({"arguments": {"alpha": -1}}, "alpha: input should be greater than 0, got -1"),
        ({"arguments": {"alfa": 1}}, "alfa: unknown key; did you mean 'alpha'"),
        ({"recipe": {"epochs": "many"}}, "recipe.epochs: input should be a valid integer"),
        ({"spec": {"modalities": 3}}, "spec.modalities"),
        ({"spec": 3}, "spec"),
        ({"encoders": 3}, "encoders: expected a mapping"),
        ({"encoders": {"sensor": {"name": "os.system"}}}, "unknown encoder 'os.system'"),
        ({"encoders": {"sensor": {}}}, "unknown encoder 'None'"),
        ({"left_out": ["callback"]}, r"pass what is lacking: Mla.load_from_checkpoint\(path, callback=…\)"),
    ],
)
def test_settings_that_fit_no_method(saved, settings, message):
    _, path = saved
    every = {m: {"name": name} for m, name in (("picture", "small_cnn"), ("words", "hashed_text"))}
    if isinstance(settings.get("encoders"), dict):
        settings = {"encoders": every | settings["encoders"]}
    with pytest.raises(UsageError, match=message):
        Mla.load_from_checkpoint(change(path, **settings))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"cos\nsystem\n(S'true'\ntR."])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="expected a checkpoint that Lightning wrote"):
        Concat.load_from_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match="with a state_dict"):
        Concat.load_from_checkpoint(path)
    with pytest.raises(UsageError, match="there is no such file"):
        Concat.load_from_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("name", ["", "model.json", "model.safetensors"])
def test_a_kept_model_is_named_as_what_it_is(tmp_path, name):
    for file in ("model.json", "model.safetensors"):
        (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(UsageError, match=rf'kept: mmbench\.load_model\("{tmp_path}"\)\.task is its method'):
        Concat.load_from_checkpoint(tmp_path / name)


def test_no_code_of_the_file_runs(saved):
    _, path = saved

    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"state_dict": {}, KEY: {"arguments": {"alpha": Trap()}}}, path)
    with pytest.raises(UsageError, match="expected a checkpoint that Lightning wrote"):
        Mla.load_from_checkpoint(path)


def test_what_an_encoder_was_built_with():
    assert encoder_choice(SmallCNN(1, width=4)) == {"name": "small_cnn", "in_channels": 1, "width": 4}
    assert encoder_choice(Mlp()) == {"name": "mlp"}
    assert encoder_choice(nn.Linear(2, 2)) is None
    assert encoder_choice(VectorEncoder()) is None
    with pytest.raises(TypeError, match="heigth"):
        SmallCNN(heigth=4)


def test_plain_values():
    assert is_plain({"a": [1, 2.0, "b", None, (True,)]})
    assert not is_plain({1: 2})
    assert not is_plain([torch.zeros(1)])
