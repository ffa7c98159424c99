"""What the models of trials take on disk, told before any of them is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import UsageError
from mmbench.trial import Trial

if TYPE_CHECKING:
    from torch import nn

CARD_BYTES = 10_000


def in_words(trials: Sequence[Trial], later: int, root: Path) -> str:
    """What keeping models takes, for the line that tells of a plan.

    Args:
        trials: those whose models will be kept.
        later: how many trials of settings that are still to be chosen there will be; each counts like the largest of the others.
        root: where models will lie.

    Raises:
        UsageError: there is less room.
    """
    sizes = model_sizes(trials)
    needed = sum(sizes) + later * max(sizes, default=0)
    free = shutil.disk_usage(next(path for path in (root, *root.absolute().parents) if path.exists())).free
    if needed > free:
        raise UsageError(
            f"keeping {len(sizes) + later} models takes {shown(needed)}, but only {shown(free)} are free in {root}; name another "
            "folder by --results, or run fewer trials at a time with --filter"
        )
    return f"; {len(sizes) + later} models to keep, about {shown(needed)} ({shown(free)} free)"


def shown(size: int) -> str:
    """A number of bytes in words.

    >>> shown(2_345_678), shown(12_300_000_000)
    ('2.3 MB', '12.3 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def model_sizes(trials: Sequence[Trial]) -> list[int]:
    """The bytes that each trial's model will take; of those that differ in seeds and folds alone, one is built."""
    sizes: dict[str, int] = {}
    found = []
    for trial in trials:
        like = json.dumps(
            [trial.dataset, trial.protocol, trial.method, trial.params, trial.encoders, trial.cached], sort_keys=True
        )
        if like not in sizes:
            sizes[like] = model_size(trial)
        found.append(sizes[like])
    return found


def model_size(trial: Trial) -> int:
    """The bytes of one trial's model."""
    import torch

    from mmbench.baselines import METHODS
    from mmbench.data import DATASETS
    from mmbench.data.cache import Given
    from mmbench.data.prepared import PreparedDataModule
    from mmbench.data.split import DataSpec
    from mmbench.encoders.building import build_encoder
    from mmbench.experiment.tryout import WithoutValues
    from mmbench.models.keeping import plain_files

    data = DATASETS[trial.dataset]
    with torch.device("meta"), WithoutValues():
        encoders = {modality: build_encoder(choice) for modality, choice in trial.encoders.items()}
    frozen = [modality for modality, encoder in encoders.items() if trial.cached and getattr(encoder, "freeze", False)]
    size = sum(state_bytes(encoders[modality]) for modality in frozen)
    encoders |= {modality: Given(int(encoders[modality].out_dim)) for modality in frozen}  # type: ignore[arg-type]
    classes = len(data.class_names() if issubclass(data, PreparedDataModule) else data.classes)
    count = training_samples(trial)
    counts = tuple(count // classes + (number < count % classes) for number in range(classes))
    widths = {m: width for m, width in data.feature_dims.items() if m in encoders}
    widths |= {modality: int(encoders[modality].out_dim) for modality in frozen}  # type: ignore[arg-type]
    conditioning = data.conditioning if data.conditioning in encoders else next(iter(encoders))
    spec = DataSpec(tuple(encoders), counts, conditioning, widths)
    task = METHODS[trial.method](spec, encoders, trial.recipe, **trial.params)
    vocabularies = sum(path.stat().st_size for path in plain_files(trial).values())
    return size + state_bytes(task) + vocabularies + CARD_BYTES


def training_samples(trial: Trial) -> int:
    """How many samples a trial is trained on, of which some methods keep something each; 0 where the data set does not tell."""
    from mmbench.data import DATASETS

    try:
        return len(DATASETS[trial.dataset].split_ids(trial.protocol, trial.fold)["train"])
    except UsageError:
        return 0


def state_bytes(module: nn.Module) -> int:
    """The bytes of the tensors in a module's state."""
    return sum(value.nbytes for value in module.state_dict().values() if hasattr(value, "nbytes"))
