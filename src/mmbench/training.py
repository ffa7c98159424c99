"""Build and run one trial."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from mmbench.baselines import METHODS
from mmbench.best_epoch import BestEpoch
from mmbench.curves import CurveLogger
from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.data.cache import Given
from mmbench.data.prepared import PreparedDataModule, picture_sizes
from mmbench.encoders.building import build_encoder, weights_of
from mmbench.lean import LeanEpoch, log_epoch
from mmbench.missing import pattern_name, patterns
from mmbench.models.keeping import Kept, check_keepable, keep
from mmbench.patience import Patience
from mmbench.precision import computing
from mmbench.protocol import PROTOCOLS, SELECTION_METRIC
from mmbench.ranks import of_all_ranks
from mmbench.recipe import Recipe
from mmbench.record import Code, Features, Predictions
from mmbench.resuming import Checkpoint, ResumableFit, Unusable
from mmbench.task import DivergedError, MultimodalTask
from mmbench.training_state import most_bytes
from mmbench.trial import Trial
from mmbench.watch import Gap, Training


@dataclass
class Outcome:
    """What running a trial yields.

    Attributes:
        predictions: on the test split, under every presence pattern; None for a trial that tunes.
        curves: one dictionary an epoch: training loss, learning rate, sizes of gradients (``watch.Training``), and on the selection
            split loss and accuracy with all that is there. The best epoch's has the accuracy under every pattern too, unless the trial
            tunes; with other loggers, every epoch's.
        best_epoch: the epoch that the predictions come from, counted from 0.
        stages: how many epochs each stage of training was planned to take: ``{"training": 30}``, before it ``"pretraining"`` where a
            method has that.
        stopped_epoch: the epoch after which the recipe's ``patience`` ended training, counted from 0; None if it did not.
        gap: distances of modalities' mean test features (``watch.Gap``).
        features: where some of them lie.
        realised: split -> what its mask came to (``missing.realised``), for the splits that were masked.
        parameters: trainable parameters.
        model: what a model that is kept takes; None if none is, and for a trial that tunes.
        seconds: wall time of building, fitting and testing.
    """

    predictions: Predictions | None
    curves: list[dict[str, float]]
    best_epoch: int
    stages: dict[str, int]
    stopped_epoch: int | None
    realised: dict[str, dict[str, float]]
    gap: dict[str, float]
    features: Features | None
    parameters: int
    seconds: dict[str, float]
    model: Kept | None = None


def build(trial: Trial, device: str = "auto", code: Code | None = None) -> tuple[MultimodalTask, MultimodalDataModule]:
    """Build the method and the data module of a trial; the same seed gives the same initial encoders for every method.

    Args:
        trial: what to build.
        device: where frozen encoders run whose features are cached: "cpu", "gpu" or "auto".
        code: what the trial runs; cached features are taken from the same code only.

    Raises:
        RuntimeError: the data or the weights have changed since the trial was planned.
    """
    pl.seed_everything(trial.seed, workers=True, verbose=False)
    encoders = {modality: build_encoder(choice) for modality, choice in trial.encoders.items()}
    data_class = DATASETS[trial.dataset]
    prepared = issubclass(data_class, PreparedDataModule)
    sizes = picture_sizes(data_class, encoders) if prepared else {}
    extra = {"views": trial.views, "image_sizes": sizes, "spec_augment": trial.spec_augment} if prepared else {}
    data = data_class(
        protocol=trial.protocol,
        batch_size=trial.recipe.batch_size,
        seed=trial.seed,
        tokenizers={m: encoders[m].tokenize for m in data_class.text_modalities if m in encoders},
        missing=trial.missing,
        fold=trial.fold,
        modalities=tuple(trial.encoders),
        tuning=trial.tuning,
        **extra,
    )
    check_unchanged(trial, data)
    if trial.cached:
        split = PROTOCOLS[trial.protocol].split  # peek takes the features that clean has made
        for modality, encoder in encoders.items():
            if getattr(encoder, "freeze", False):
                view, choice = trial.views.get(modality), trial.encoders[modality]
                source = [trial.data, split, view, choice, trial.weights.get(modality), sizes.get(modality)]
                source += [] if trial.fold is None else [f"fold {trial.fold}"]
                source += [code.data, code.encoders[choice["name"]]] if code else []
                data.encode_once(modality, encoder, json.dumps(source, sort_keys=True), device)
                encoders[modality] = Given(int(encoder.out_dim))  # type: ignore[arg-type]
    task = METHODS[trial.method](data.spec, encoders, trial.recipe, **trial.params)
    return task, data


def check_unchanged(trial: Trial, data: MultimodalDataModule) -> None:
    """Refuse data or weights that are not those that the trial was planned with."""
    if data.manifest() != trial.data:
        raise RuntimeError(
            f"data set '{trial.dataset}' has changed: the trial was planned with {trial.data}, it now is {data.manifest()}"
        )
    if (weights := weights_of(trial.encoders)) != trial.weights:
        changed = [m for m in trial.encoders if weights.get(m) != trial.weights.get(m)]
        raise RuntimeError(
            f"the weights of {', '.join(changed)} have changed since the trial was planned; run the experiment again"
        )


def run(
    trial: Trial,
    loggers: Sequence[Logger] = (),
    device: str = "auto",
    code: Code | None = None,
    keep_model: bool = False,
    checkpoint: Checkpoint | None = None,
    devices: int = 1,
) -> Outcome:
    """Train, choose the epoch by the trial's protocol, and predict the test split under every pattern, unless the trial tunes.

    All of it, and whatever else the process does meanwhile, is in the precision of the recipe.

    Args:
        trial: what to run.
        loggers: of metrics per epoch, beside the trial's own record.
        device: "cpu", "gpu" or "auto", Lightning's accelerator.
        code: what the trial runs, where that is known.
        keep_model: give the trained model too, of the epoch that was chosen; a trial that tunes keeps none.
        checkpoint: the file from which the trial goes on, if it is there and of this trial, and to which it writes its state; None: it
            begins anew, and writes none.
        devices: how many train the trial together. For more than one, this process is one of as many that call this, and
            ``torch.distributed`` has its process group (``runner.team``). Each gets the whole outcome.

    Raises:
        DivergedError: the loss or a prediction is not a finite number.
        UsageError: the model is to be kept and cannot be.
        OutOfTime: the checkpoint's limit has passed.
        Stopped: the trial was asked to end.
        StoreError: the checkpoint cannot be written.
    """
    quieten()
    with computing(trial.recipe.precision):
        try:
            return _run(trial, loggers, device, code, keep_model, checkpoint, devices)
        except Unusable as error:
            assert checkpoint is not None
            checkpoint.forget(str(error))
        # From the beginning, since what was built is half restored.
        return _run(trial, loggers, device, code, keep_model, checkpoint, devices)


def _run(
    trial: Trial,
    loggers: Sequence[Logger],
    device: str,
    code: Code | None,
    keep_model: bool,
    checkpoint: Checkpoint | None,
    devices: int,
) -> Outcome:
    started = time.perf_counter()
    task, data = build(trial, device, code)
    data.setup()
    if keep_model := keep_model and not trial.tuning:
        check_keepable(data)
    if trial.recipe.compile:
        for encoders in task.sets_of_encoders():
            for encoder in encoders.values():
                encoder.compile()
    # What a head drew to initialise must not shift what follows.
    pl.seed_everything(trial.seed, workers=True, verbose=False)
    for split, shares in data.realised.items():
        print(f"{split} split:", *(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
    curves = CurveLogger()
    task.validates_patterns = any(of_all_ranks(bool(loggers)))  # of several devices one alone has loggers
    chosen = BestEpoch()
    trainer = lean_trainer(
        trial.recipe, device, [curves, *loggers], [Training()] if trial.tuning else [Training(), chosen], devices
    )
    task.log_epoch = partial(log_epoch, trainer)  # type: ignore[method-assign]
    if trainer.strategy.root_device.type == "cuda":
        put_channels_last(task)
    spent = train(trainer, task, data, curves, checkpoint, started)
    fitted = time.perf_counter()
    stopped = next((c.stopped_epoch for c in trainer.callbacks if isinstance(c, Patience)), None)  # type: ignore[attr-defined]
    rows, first = curves.rows, task.pretraining_epochs
    best = max(range(first, len(rows)), key=lambda epoch: rows[epoch][SELECTION_METRIC])
    predictions, gap = None, None
    if not trial.tuning:
        chosen.restore(task)
        if not task.validates_patterns:
            rows[best].update(validate(trainer, task, data))
        gap = Gap(len(data.splits.test or ()))
        task.watch_features = gap.add  # type: ignore[method-assign]
        predictions = predict(trainer, task, data)
    model = keep(trial, data, chosen.checkpoint) if keep_model else None
    stages = {"pretraining": first} if first else {}
    return Outcome(
        predictions=predictions,
        curves=rows,
        best_epoch=best,
        stages={**stages, "training": trial.recipe.epochs - first},
        stopped_epoch=stopped,
        realised=data.realised,
        gap=gap.values() if gap else {},
        features=gap.features() if gap else None,
        parameters=sum(p.numel() for p in task.parameters() if p.requires_grad),
        seconds={**spent, "test": time.perf_counter() - fitted},
        model=model,
    )


def train(
    trainer: pl.Trainer,
    task: MultimodalTask,
    data: MultimodalDataModule,
    curves: CurveLogger,
    checkpoint: Checkpoint | None,
    started: float,
) -> dict[str, float]:
    """Train, from where the checkpoint is, if there is one.

    Args:
        trainer: that trains.
        task: what is trained.
        data: on what.
        curves: the rows of metrics.
        checkpoint: as ``run`` takes it.
        started: when building began.

    Returns:
        Seconds of building and of fitting, in all processes that had a part in it.
    """
    state = checkpoint.read(most_bytes(task)) if checkpoint else None
    earlier = dict(checkpoint.seconds) if checkpoint else {}
    built = time.perf_counter()
    spent = {"build": earlier.get("build", 0.0) + built - started}
    if checkpoint is not None:
        trainer.fit_loop = ResumableFit(trainer, checkpoint, curves, spent, state)
    trainer.fit(task, datamodule=data)
    return {**spent, "fit": earlier.get("fit", 0.0) + time.perf_counter() - built}


def lean_trainer(
    recipe: Recipe,
    device: str,
    loggers: Sequence[Logger],
    callbacks: Sequence[pl.Callback],
    devices: int = 1,
    **more: Any,
) -> pl.Trainer:
    """A trainer that does what a trial needs and nothing else."""
    if devices > 1:
        # A rank may have no row of a modality, and so no gradient of its encoder. Buffers are the same on all ranks by themselves.
        more["strategy"] = DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False)
    trainer = pl.Trainer(
        accelerator=device,
        devices=devices,
        max_epochs=recipe.epochs,
        deterministic=True,
        logger=loggers,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=0,  # by epoch only
        plugins=[LightningEnvironment()],  # also inside a cluster's allocation, a trial has those processes that it has
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    trainer.fit_loop.epoch_loop = LeanEpoch(trainer)
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # the trial's process sees to them
    return trainer


def put_channels_last(task: MultimodalTask) -> None:
    """Have convolutions work on pictures whose channels are their last dimension in memory, as a GPU's are made to.

    A convolution whose weights lie so takes its input in that order and passes it on in it. Results differ in their last digits, so
    those of a CPU are left as they are.
    """
    for module in task.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def quieten() -> None:
    """Silence what libraries say of every trial, and leave out a check that costs time."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # rows are in memory or on a map
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # encoders that are frozen
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.14
    # Deterministic mode fills new memory with NaN: that finds bugs, which is for tests, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def validate(trainer: pl.Trainer, task: MultimodalTask, data: MultimodalDataModule) -> dict[str, float]:
    """The accuracies under every pattern, on the split on which the epoch was chosen."""
    values: dict[str, float] = {}
    task.validates_patterns, task.log_epoch = True, values.update  # type: ignore[assignment, method-assign]
    trainer.validate(task, datamodule=data, verbose=False)
    return values


def predict(trainer: pl.Trainer, task: MultimodalTask, data: MultimodalDataModule) -> Predictions:
    """The predictions of the test split under every pattern."""
    outputs = trainer.predict(task, datamodule=data)
    log_probs = torch.cat(outputs, dim=1).float().cpu().numpy()  # type: ignore[arg-type]  # (P, N, C)
    named = zip(map(pattern_name, patterns(data.modalities)), log_probs, strict=True)
    if wrong := [name for name, values in named if np.isnan(values).any()]:
        raise DivergedError(f"predictions are nan under the patterns {', '.join(wrong)}")
    test = data.splits.test
    assert test is not None
    return Predictions(
        modalities=np.array(data.modalities),
        label=test.label.numpy(),
        group=test.group.numpy(),
        present=test.present.numpy(),
        predicted=log_probs.argmax(axis=-1).astype(np.int16),
        log_probs=log_probs.astype(np.float16),
        log_prior=task.log_prior.cpu().numpy(),
        attack=np.empty(0, np.int16) if test.attack is None else test.attack.numpy().astype(np.int16),
    )
