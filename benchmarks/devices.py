"""How far two devices are from one: every method, 2 × 32 rows a step against 1 × 64, with gaps, on processes of the CPU.

Prints, after the first and after all eight steps, the relative difference of all weights together, and the largest of any one tensor.
Dropout is off; noise of methods (OGM-GE's) is on. Methods of two stages have four steps of each, so that there is no first step of the
second.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed

from mmbench.baselines import METHODS
from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split
from mmbench.encoders.mlp import Mlp
from mmbench.encoders.small_cnn import SmallCNN
from mmbench.recipe import Recipe

RANKS = 2
NAMES = [name for name in METHODS if METHODS[name].data_parallel]
Weights = dict[str, Tensor]


class Made(MultimodalDataModule):
    """Pictures, vectors and feature vectors of three classes; a third of the cells is missing."""

    name = "made"
    modalities = ("picture", "sound", "vector")
    classes = ("a", "b", "c")
    conditioning = "sound"
    feature_dims = {"vector": 6}
    input_shapes = {"picture": ((3, 16, 16), "uint8"), "sound": ((9,), "float32")}

    @classmethod
    def manifest(cls) -> str:
        """Nothing is stored."""
        return "made"

    def load(self) -> Loaded:
        """Four batches of training, and some of the others."""
        assert self.protocol.name == "clean"
        generator = torch.Generator().manual_seed(5)

        def cut(size: int, start: int) -> Split:
            label, present = torch.arange(size) % 3, torch.rand(size, 3, generator=generator) > 0.35
            present[torch.arange(size), torch.randint(3, (size,), generator=generator)] = True
            pictures = torch.rand(size, 3, 16, 16, generator=generator) * 150 + 40 * label.view(-1, 1, 1, 1)
            sound, vector = (torch.randn(size, width, generator=generator) + label[:, None] for width in (9, 6))
            inputs: dict[str, Any] = {"picture": pictures.to(torch.uint8), "sound": sound, "vector": vector}
            return Split(inputs, present, label, torch.arange(start, start + size))

        return Loaded(cut(256, 0), cut(61, 1000), cut(45, 2000))


class Snapshot(pl.Callback):
    """Keeps the weights after the first step and after the last."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep them after the first step."""
        if not self.weights:
            self.keep(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep them after the last."""
        self.keep(pl_module)

    def keep(self, task: pl.LightningModule) -> None:
        """A copy of weights and buffers."""
        self.weights.append({name: value.clone() for name, value in task.state_dict().items()})


def trained(name: str, ranks: int) -> list[Weights]:
    """The weights of a method after its first and its last step."""
    pl.seed_everything(1, verbose=False)
    data = Made(batch_size=64, seed=3)
    data.setup()
    encoders = {
        "picture": SmallCNN(width=4),
        "sound": Mlp(in_dim=9, width=16),
        "vector": Mlp(in_dim=6, width=16),
    }
    task, watch = METHODS[name](data.spec, encoders, Recipe(epochs=2, batch_size=64, lr=0.01)), Snapshot()
    pl.seed_everything(1, verbose=False)
    pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False) if ranks > 1 else "auto",
        max_epochs=2,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],
    ).fit(task, datamodule=data)
    return watch.weights


def fork(folder: Path, place: int) -> int:
    """A process that trains all methods, by itself (0) or as a rank, and leaves what came of it in a file; its number."""
    if process := os.fork():
        return process
    code = 1
    try:
        if place:
            os.environ["LOCAL_RANK"] = str(place - 1)
            meeting = f"file://{folder}/meeting"
            distributed.init_process_group("gloo", init_method=meeting, rank=place - 1, world_size=RANKS)
        torch.save({name: trained(name, RANKS if place else 1) for name in NAMES}, folder / str(place))
        code = 0
    finally:
        os._exit(code)


def difference(one: Weights, other: Weights) -> tuple[float, float]:
    """Relative: of all weights together, and the largest of a tensor."""
    pairs = [(one[name].double(), other[name].double()) for name in one]
    size = sum(float(a.square().sum()) for a, _ in pairs) ** 0.5
    together = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5 / size
    return together, max(float((a - b).norm() / a.norm().clamp(min=1e-12)) for a, b in pairs)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        processes = [fork(Path(name), place) for place in range(RANKS + 1)]
        if any(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes):
            raise SystemExit("a process failed; what it said is above")
        alone, *ranks = (torch.load(Path(name) / str(place), weights_only=True) for place in range(RANKS + 1))
    print(
        "| method | first step: all | one tensor | eight steps: all | one tensor | ranks equal |\n|---|---|---|---|---|---|"
    )
    for method in NAMES:
        equal = all(torch.equal(v, r[method][-1][n]) for r in ranks for n, v in ranks[0][method][-1].items())
        cells = [f"{x:.0e}" for a, b in zip(alone[method], ranks[0][method], strict=True) for x in difference(a, b)]
        print(f"| {method} | {' | '.join(cells)} | {'yes' if equal else 'NO'} |", flush=True)


if __name__ == "__main__":
    main()
