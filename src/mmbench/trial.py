"""A trial: one method, on one data set, with one seed; as a description, and run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from mmbench.missing import Missing, training_name
from mmbench.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytorch_lightning.loggers import Logger
    from torch import nn

    from mmbench.data.base import MultimodalDataModule
    from mmbench.store import Predictions
    from mmbench.task import MultimodalTask

SCHEMA = 2
"""Raised when the meaning of a trial changes without its description changing: older results are then not re-used."""
LATER, LATER_IN_RECIPE = ("views", "weights", "cached", "spec_augment"), ("precision", "compile")
"""Settings that were added without raising it."""


class Trial(BaseModel):
    """Everything that a result depends on, and nothing else: no paths, devices or worker counts.

    Defaults are resolved: ``params`` and ``encoders`` hold every argument, so that changing a default in the code is a new trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    data: str = Field(description="hash of the data set's manifest")
    protocol: str
    missing: Missing | None = Field(None, description="what is taken away in training; None: nothing")
    method: str
    seed: int = Field(ge=0)
    encoders: dict[str, dict[str, Any]] = Field(description="modality -> {name: encoder, and its arguments}")
    params: dict[str, Any] = Field(description="the method's own arguments")
    recipe: Recipe
    views: dict[str, str] = Field(
        {}, description="modality -> the prepared field it is read from; none where data are not prepared"
    )
    weights: dict[str, str] = Field({}, description="modality -> hash of the files that its encoder reads")
    spec_augment: dict[str, dict[str, int]] = Field(
        {}, description="modality -> limits of SpecAugment's spans in training"
    )
    cached: bool = Field(False, description="frozen encoders ran once, before training, on data that are not augmented")

    @property
    def key(self) -> str:
        """The trial's name in the store: a hash of its canonical JSON and the schema version.

        Settings that came later than the schema count only where they are not at their defaults, so older results keep their names.
        """
        content = {"schema": SCHEMA, **self.model_dump(mode="json")}
        for place, model, later in ((content, Trial, LATER), (content["recipe"], Recipe, LATER_IN_RECIPE)):
            for name in later:
                if place[name] == model.model_fields[name].default:
                    del place[name]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    @property
    def training(self) -> str:
        """What the training split lacks, in words: ``complete``, ``anchor 0.3``."""
        return training_name(self.missing)

    @property
    def label(self) -> str:
        """The trial in a line of a log."""
        missing = f" {self.training}" if self.missing else ""
        track = " cached" if self.cached else ""
        return f"{self.dataset} {self.protocol}{track}{missing} {self.method} seed {self.seed}"


@dataclass
class Outcome:
    """What running a trial yields.

    Attributes:
        predictions: on the test split, under every presence pattern.
        curves: one dictionary an epoch: training loss, accuracies on the selection split.
        best_epoch: the epoch that the predictions come from, counted from 0.
        stages: how many epochs each stage of training was planned to take: ``{"training": 30}``, before it ``"pretraining"`` where a
            method has that.
        realised: split -> what its mask came to (``missing.realised``), for the splits that were masked.
        parameters: trainable parameters.
        seconds: wall time of building, fitting and testing.
    """

    predictions: Predictions
    curves: list[dict[str, float]]
    best_epoch: int
    stages: dict[str, int]
    realised: dict[str, dict[str, float]]
    parameters: int
    seconds: dict[str, float]


def build_encoder(choice: dict[str, Any]) -> nn.Module:
    """Build the encoder that a trial names: ``{name: encoder, and its arguments}``."""
    from mmbench.encoders import ENCODERS

    return ENCODERS[choice["name"]](**{k: v for k, v in choice.items() if k != "name"})


def weights_of(encoders: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Modality -> the hash of the files that its encoder reads, for those that read any; each file is hashed once."""
    from mmbench.encoders import ENCODERS
    from mmbench.encoders.pretrained import Pretrained, fingerprint

    known: dict[tuple[Path, ...], str] = {}
    found = {}
    for modality, choice in encoders.items():
        encoder = ENCODERS[choice["name"]]
        if issubclass(encoder, Pretrained) and (files := tuple(encoder.weight_files(choice))):
            found[modality] = known[files] if files in known else known.setdefault(files, fingerprint(files))
    return found


def build(trial: Trial, device: str = "auto") -> tuple[MultimodalTask, MultimodalDataModule]:
    """Build the method and the data module of a trial; the same seed gives the same initial encoders for every method.

    Args:
        trial: what to build.
        device: where frozen encoders run whose features are cached: "cpu", "gpu" or "auto".
    """
    import pytorch_lightning as pl

    from mmbench.data import DATASETS
    from mmbench.data.cache import Given
    from mmbench.data.prepared import PreparedDataModule
    from mmbench.registry import methods

    pl.seed_everything(trial.seed, workers=True, verbose=False)
    encoders = {modality: build_encoder(choice) for modality, choice in trial.encoders.items()}
    data_class, extra = DATASETS[trial.dataset], dict[str, Any]()
    if issubclass(data_class, PreparedDataModule):
        sizes = {
            m: encoder.image_size
            if getattr(encoder, "fixed_size", True)
            else data_class.sides.get(m, encoder.image_size)
            for m, encoder in encoders.items()
            if hasattr(encoder, "image_size")
        }
        extra = {"views": trial.views, "image_sizes": sizes, "spec_augment": trial.spec_augment}
    data = data_class(
        protocol=trial.protocol,
        batch_size=trial.recipe.batch_size,
        seed=trial.seed,
        tokenizers={m: encoders[m].tokenize for m in data_class.text_modalities},
        missing=trial.missing,
        **extra,
    )
    if data.manifest() != trial.data:
        raise RuntimeError(
            f"data set '{trial.dataset}' has changed: the trial was planned with {trial.data}, it now is {data.manifest()}"
        )
    if (weights := weights_of(trial.encoders)) != trial.weights:
        changed = [m for m in trial.encoders if weights.get(m) != trial.weights.get(m)]
        raise RuntimeError(
            f"the weights of {', '.join(changed)} have changed since the trial was planned; run the experiment again"
        )
    if trial.cached:
        for modality, encoder in encoders.items():
            if getattr(encoder, "freeze", False):
                view, choice = trial.views.get(modality), trial.encoders[modality]
                size = extra.get("image_sizes", {}).get(modality)
                source = [trial.data, trial.protocol, view, choice, trial.weights.get(modality), size]
                data.encode_once(modality, encoder, json.dumps(source, sort_keys=True), device)
                encoders[modality] = Given(int(encoder.out_dim))  # type: ignore[arg-type]
    task = methods()[trial.method](data.spec, encoders, trial.recipe, **trial.params)
    return task, data


def run(trial: Trial, scratch: str, loggers: Sequence[Logger] = (), device: str = "auto") -> Outcome:
    """Train, choose the epoch by the trial's protocol, and predict the test split under every pattern.

    Args:
        trial: what to run.
        scratch: a folder for checkpoints that the caller removes.
        loggers: of metrics per epoch, beside the trial's own record.
        device: "cpu", "gpu" or "auto", Lightning's accelerator.
    """
    import logging
    import time
    import warnings

    import numpy as np
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.plugins.environments import LightningEnvironment

    from mmbench.missing import pattern_name, patterns
    from mmbench.store import Predictions
    from mmbench.task import SELECTION_METRIC, DivergedError
    from mmbench.tracking import CurveLogger

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # rows are in memory or on a map
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # encoders that are frozen
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.14
    # Deterministic mode fills new memory with NaN: that finds bugs, which is for tests, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    started = time.perf_counter()
    task, data = build(trial, device)
    data.setup()
    if trial.recipe.compile:
        for encoder in task.encoders.values():
            encoder.compile()
    pl.seed_everything(
        trial.seed, workers=True, verbose=False
    )  # what a head drew to initialise must not shift what follows
    curves = CurveLogger()
    for split, shares in data.realised.items():
        print(f"{split} split:", *(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)

    class BestEpoch(ModelCheckpoint):
        """The checkpoint of the best epoch after pretraining."""

        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if not task.is_pretraining:
                super().on_validation_end(trainer, pl_module)

    best = BestEpoch(
        scratch, monitor=SELECTION_METRIC, mode="max", save_weights_only=True, save_on_train_epoch_end=False
    )
    trainer = pl.Trainer(
        accelerator=device,
        devices=1,
        max_epochs=trial.recipe.epochs,
        deterministic=True,
        logger=[curves, *loggers],
        callbacks=[best],
        num_sanity_val_steps=0,
        log_every_n_steps=0,  # by epoch only
        plugins=[LightningEnvironment()],  # a trial is one process, also inside a cluster's allocation
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    built = time.perf_counter()
    trainer.fit(task, datamodule=data)
    fitted = time.perf_counter()
    outputs = trainer.predict(task, datamodule=data, ckpt_path="best")
    log_probs = torch.cat(outputs, dim=1).float().cpu().numpy()  # type: ignore[arg-type]  # (P, N, C)
    if np.isnan(log_probs).any():
        names = [
            pattern_name(p)
            for p, values in zip(patterns(data.modalities), log_probs, strict=True)
            if np.isnan(values).any()
        ]
        raise DivergedError(f"predictions are nan under the patterns {', '.join(names)}")
    tested = time.perf_counter()
    test = data.splits.test
    rows, first = curves.rows, task.pretraining_epochs
    stages = {"pretraining": first} if first else {}
    return Outcome(
        predictions=Predictions(
            modalities=np.array(data.modalities),
            label=test.label.numpy(),
            group=test.group.numpy(),
            present=test.present.numpy(),
            predicted=log_probs.argmax(axis=-1).astype(np.int16),
            log_probs=log_probs.astype(np.float16),
            log_prior=task.log_prior.cpu().numpy(),
            attack=np.empty(0, np.int16) if test.attack is None else test.attack.numpy().astype(np.int16),
        ),
        curves=rows,
        best_epoch=max(range(first, len(rows)), key=lambda epoch: rows[epoch][SELECTION_METRIC]),
        stages={**stages, "training": trial.recipe.epochs - first},
        realised=data.realised,
        parameters=sum(p.numel() for p in task.parameters() if p.requires_grad),
        seconds={"build": built - started, "fit": fitted - built, "test": tested - fitted},
    )
