"""The papers' numbers, and beside which trials they may stand.

A number stands beside a trial that was made in the setting in which the number was measured, as far as the suite can set it: the
method's arguments, the encoders' arguments, views and weights, the recipe, the protocol, and how modalities were missing. What a trial
does otherwise is said in words, so that a reader learns why there is no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd

from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS
from mmbench.evidence.accuracy import MEAN
from mmbench.experiment.resolve import METHOD_RESERVED
from mmbench.recipe import Recipe
from mmbench.trial import Trial

CLIP_WEIGHTS = "clip-vit-base-patch32"
SWITCHES = {"mla": ("head_gradient_modification", "dynamic_fusion")}
"""Method -> the arguments that a table of its own paper turns on and off."""
ARGUMENTS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("casia_surf", "dmrnet"): {"hard_weight": 0.7},  # the released script's
    ("iemocap", "ogm_ge"): {"three": "mla", "alpha": 0.3},  # what MLA's release does with three modalities
}
"""Where a paper's arguments are not a method's defaults: (data set, method) -> those that are not."""
RECIPES = {"casia_surf": Recipe(weight_decay=0.0005, step_size=50)}
"""Where a paper's recipe is not the default one: data set -> recipe."""
NOT_TOLD = ("compile", "head_init")
"""Settings of a recipe that a paper's number does not depend on, or that its text does not have."""


@dataclass
class Printed:
    """What the papers print, in percent.

    Attributes:
        complete: of models trained on complete data: (data set, setting, method, pattern, metric) -> value. The setting is
            ``setting``'s. A pattern is one modality, "multi" for all of them, or "mean" for the mean over all patterns.
        rates: where training and test lack modalities at the same rate: (data set, method, rate) -> accuracy. They are measured on
            pre-extracted features, so what is printed for IEMOCAP stands beside ``iemocap_features``.
    """

    complete: dict[tuple[str, str, str, str, str], float] = field(default_factory=dict)
    rates: dict[tuple[str, str, float], float] = field(default_factory=dict)

    def has(self, trial: Trial) -> bool:
        """Whether there is any number of this data set and method, trained in this way."""
        if trial.missing is None:
            return any((key[0], key[2]) == (trial.dataset, trial.method) for key in self.complete)
        return not trial.missing.train_only and any(key[:2] == (trial.dataset, trial.method) for key in self.rates)


def read_printed(folder: Path | None) -> Printed:
    """Read the files in a folder of the papers' numbers; those that are not there have none."""
    printed = Printed()
    rows = cast("dict[str, list[Any]]", {})
    for name in ("mla_table3", "mla_table5", "mla_table6", "mla_table7", "dmrnet_summary"):
        path = folder / f"{name}.csv" if folder else None
        rows[name] = list(pd.read_csv(path).itertuples()) if path is not None and path.is_file() else []
    for r in rows["mla_table3"]:
        setting = _switched({name: getattr(r, name) == "on" for name in SWITCHES[r.method]})
        printed.complete[r.dataset, setting, r.method, r.modalities, "accuracy"] = float(r.accuracy)
    for name, setting in (("mla_table5", ""), ("mla_table7", "clip")):
        for r in rows[name]:
            printed.complete[r.dataset, setting, r.method, r.modalities, "accuracy"] = float(r.accuracy)
    for r in rows["dmrnet_summary"]:
        printed.complete[r.dataset, "", r.method, MEAN, r.metric] = float(r.value)
    for r in rows["mla_table6"]:
        printed.rates[f"{r.dataset}_features", r.method, float(r.missing_rate)] = float(r.accuracy)
    return printed


def setting(trial: Trial) -> str:
    """Which of the papers' settings a trial is one of, or nearest to.

    Returns:
        "clip" with CLIP's encoders; where arguments that a table of the method's paper turns on and off are not all on, their names and
        what they are; else "", the method as it is on the data set's own encoders.
    """
    if all(choice["name"].startswith("clip_") for choice in trial.encoders.values()):
        return "clip"
    return _switched({name: trial.params.get(name, True) for name in SWITCHES.get(trial.method, ())})


def _switched(switches: Mapping[str, Any]) -> str:
    if all(value is True for value in switches.values()):
        return ""
    return ", ".join(f"{name} {'on' if value is True else 'off'}" for name, value in switches.items())


def differences(trial: Trial, classes: int | None = None) -> tuple[str, ...]:
    """What a trial does otherwise than the paper whose number could stand beside it; nothing, if the number may.

    Args:
        trial: to compare.
        classes: how many it told apart, if it ran; a variant of the data set may have others.
    """
    if trial.dataset not in DATASETS:
        return ("the data set is no paper's",)
    data, found = DATASETS[trial.dataset], []
    if classes not in (None, len(data.classes)):
        found.append(f"{classes} classes (theirs: {len(data.classes)})")
    if trial.fold is not None:
        found.append("folds (theirs: the published split)")
    if left_out := [m for m in data.modalities if m not in trial.encoders]:
        found.append(f"without {', '.join(left_out)}")
    if trial.protocol != "legacy" and not _same_split(data):
        found.append(f"protocol {trial.protocol} (theirs: the published split, as in legacy)")
    found += _method_differences(trial)
    theirs = RECIPES.get(trial.dataset, Recipe())
    untold = set(NOT_TOLD)
    if trial.recipe.precision == "tf32":  # which released code runs in where a GPU has it, by torch's defaults
        untold.add("precision")
    found += _unlike("recipe.", trial.recipe.model_dump(exclude=untold), theirs.model_dump())
    found += _encoder_differences(trial, data)
    found += _unlike("views.", trial.views, data.default_views())
    if trial.spec_augment:
        found.append("SpecAugment (theirs: none)")
    if trial.missing is not None and trial.missing.kind != "bernoulli":
        found.append(f"{trial.missing.kind} masks (theirs: bernoulli)")
    return tuple(found)


def papers_setting(trial: Trial, classes: int | None = None) -> str | None:
    """The setting whose numbers may stand beside a trial, as ``setting`` names it; None if there is any difference."""
    return None if differences(trial, classes) else setting(trial)


def _same_split(data: Any) -> bool:
    """Whether clean has the published split too, so that the epoch alone is chosen in another way than for the paper's number."""
    published = getattr(data, "published", {})
    return "clean" in published and published["clean"] == published.get("legacy")


def _method_differences(trial: Trial) -> list[str]:
    """Arguments that are neither the paper's nor those that one of its tables is of."""
    defaults = resolve_arguments(METHODS[trial.method], {}, METHOD_RESERVED)[0]
    theirs = {**defaults, **ARGUMENTS.get((trial.dataset, trial.method), {})}
    ours = {**defaults, **trial.params}
    if setting(trial) != "clip":
        for name in SWITCHES.get(trial.method, ()):
            if isinstance(ours[name], bool):
                theirs[name] = ours[name]
    return _unlike("", ours, theirs)


def _encoder_differences(trial: Trial, data: Any) -> list[str]:
    """Encoders and their arguments; weights may have been converted, and the memory that checkpointing saves changes no number."""
    clip = setting(trial) == "clip"
    found = [] if trial.cached == clip else ["cached features" if trial.cached else "features not cached"]
    for modality, ours in trial.encoders.items():
        own = data.encoders[modality]
        given = {"name": own} if isinstance(own, str) else dict(own)
        if clip:
            given = {"name": ours["name"], "weights": CLIP_WEIGHTS, "freeze": True}
        name = given.pop("name")
        theirs: dict[str, Any] = {"name": name}
        if ours["name"] == name:  # another encoder has other arguments
            theirs |= resolve_arguments(ENCODERS[name], given)[0]
            ours = _plain({**theirs, **ours})
        found += _unlike(f"encoders.{modality}.", {key: ours[key] for key in _plain(theirs)}, _plain(theirs))
    return found


def _plain(encoder: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in encoder.items() if key != "gradient_checkpointing"}
    if kept.get("weights"):
        kept["weights"] = Path(kept["weights"]).stem  # converting changes the ending
    return kept


def _unlike(place: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        f"{place}{key} {value} (theirs: {theirs.get(key, 'none')})"
        for key, value in ours.items()
        if key not in theirs or value != theirs[key]
    ]
