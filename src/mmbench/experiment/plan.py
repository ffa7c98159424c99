"""From an experiment's file to the trials that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from mmbench.arguments import describe, in_words
from mmbench.errors import UsageError
from mmbench.experiment.grid import Grid, known_keys
from mmbench.experiment.names import check_missing, check_names, check_reference, check_tune, mapping
from mmbench.experiment.settings import apply_setting, plain, read_yaml, set_value
from mmbench.pages import NO_WEIGHTS, NOT_HERE, explained
from mmbench.recipe import Recipe
from mmbench.trial import Trial

if TYPE_CHECKING:
    from mmbench.experiment.resolve import DatasetPlan, Known
    from mmbench.experiment.searches import Search

MOST_TRIALS = 20_000
"""Trials of an experiment; each takes a few kilobytes while it is planned."""
MOST_SHOWN = 50
"""Mistakes that a message lists."""
WITHOUT_EFFECT: Any = {"keep": True, "datasets": {"__all__": {"devices"}}}
"""Keys of a file on which no result depends."""


@dataclass
class Experiment:
    """A named grid and its trials, in the order in which they run.

    Attributes:
        name: the folder of its reports: the file's name, and a hash of the settings where they were changed.
        grid: the validated file.
        trials: one a data set, protocol, way of missing, fold, seed and method.
        unprepared: data set -> what is missing of it on this machine; it has no trials.
        searches: for the settings of methods, where they are tuned.
        changes: that were made to the file: ``--quick``, and each ``--set`` as it was given.
        content: what the file says, with those changes.
        labels: key of a trial -> what the file calls its data set and its method; without an entry they have their own names.
    """

    name: str
    grid: Grid
    trials: list[Trial]
    unprepared: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Labels] = field(default_factory=dict)
    searches: list[Search] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    content: Any = None

    def labels_of(self, trial: Trial) -> Labels:
        """What the file calls the trial's data set and method."""
        return self.labels.get(trial.key) or Labels(trial.dataset, trial.method)

    def devices_of(self, trial: Trial) -> int:
        """How many devices train the trial, as the file says of its data set."""
        entry = self.grid.datasets.get(self.labels_of(trial).dataset)
        return entry.devices if entry else 1

    def describe(self, trial: Trial) -> str:
        """The trial in a line of a log, by the file's labels."""
        return trial.describe(*self.labels_of(trial))


class Labels(NamedTuple):
    """What an experiment calls a data set and a method."""

    dataset: str
    method: str


def left_out(why: str) -> str:
    """Why a data set is left out, in a report: its weights are missing, or it is not prepared."""
    return why if why.startswith("weights ") else f"not prepared: {why}"


def page_of_lack(unprepared: Mapping[str, str]) -> str:
    """The page on how to get what data sets lack."""
    return NO_WEIGHTS if unprepared and all(why.startswith("weights ") for why in unprepared.values()) else NOT_HERE


def load(
    path: Path | str,
    settings: Sequence[str] = (),
    quick: bool = False,
    datasets: Sequence[str] = (),
    known: Mapping[str, Known] | None = None,
) -> Experiment:
    """Read an experiment.

    Args:
        path: a YAML file.
        settings: changes, each ``dotted.key=value`` with a YAML value: ``datasets.openclipart.recipe.epochs=2``.
        quick: make the changes of the file's own ``quick`` first.
        datasets: put these in the place of the file's, with the settings of its first one (``substitute.put_on``); after ``quick``.
        known: label of a data set -> what stands for the data of this machine, for reports of what ran elsewhere.

    Raises:
        UsageError: one message with all mistakes.
    """
    path = Path(path)
    raw = read_yaml(path)
    changed, mistakes = plain(raw, str(path)), []
    changes = [partial(apply_setting, setting=setting) for setting in settings]
    if datasets:
        from mmbench.experiment.substitute import put_on

        changes.insert(0, partial(put_on, names=datasets, where=str(path)))
    if quick:
        own = mapping(raw, "quick")
        if not own:
            raise UsageError(f"{path} has no quick version (no key 'quick')")
        changes = [partial(set_value, key=str(k), value=v, where="quick") for k, v in own.items()] + changes
    for change in changes:
        try:
            change(changed)
        except UsageError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UsageError("\n".join(mistakes))
    experiment = expand(plain(changed, str(path)), str(path), known)
    experiment.name = "-".join([path.stem, *datasets])
    experiment.changes = [f"--dataset {' '.join(datasets)}"] * bool(datasets) + ["--quick"] * quick
    experiment.changes += [f"--set {setting}" for setting in settings]
    if (quick or datasets) and not settings:
        experiment.name += "-quick" * quick
    elif changed != raw:  # a changed experiment must not overwrite the reports of the one in the file
        content = experiment.grid.model_dump_json(exclude=WITHOUT_EFFECT)
        experiment.name += "-" + sha256(content.encode()).hexdigest()[:8]
    if not experiment.trials:
        reasons = "".join(f"\n  {dataset}: {left_out(reason)}" for dataset, reason in experiment.unprepared.items())
        nothing = UsageError(f"{path}: none of its data sets can be run here{reasons}")
        raise explained(nothing, page_of_lack(experiment.unprepared))
    return experiment


def check_file(raw: Any, where: str, mistakes: list[str]) -> Grid | None:
    """The file, as far as its keys, names and values are what a file may say; nothing heavy is imported for that.

    Returns:
        The grid; where there are mistakes, which are added, what is left of it without them; None if that is no grid.

    Raises:
        UsageError: it is no mapping.
    """
    if not isinstance(raw, dict):
        what = "it is empty" if raw is None else f"it is {in_words(raw)}"
        refuse([f"expected a mapping with the keys title, datasets, methods and seeds; {what}"], where)
    grid: Grid | None = None
    rest = raw
    try:
        grid = Grid.model_validate(raw)
    except ValidationError as error:
        mistakes += describe(error, known_keys)
        rest = without(raw, error)
        with suppress(ValidationError):
            grid = Grid.model_validate(rest)
    wrong = check_names(raw, mistakes)
    check_reference(rest, mistakes)
    check_tune(rest, mistakes)
    if grid is None:
        return None
    check_missing(grid.missing, mistakes)
    if not mistakes:
        check_size(grid.size, mistakes)
    kept = {
        place: {label: entry for label, entry in getattr(grid, place).items() if (place, label) not in wrong}
        for place in ("datasets", "methods")
    }
    return grid.model_copy(update=kept)


def without(raw: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """A file without the values that are mistakes: each is taken out of the innermost mapping that holds it."""
    rest = deepcopy(raw)
    for mistake in error.errors():
        at, found = rest, None
        for key in mistake["loc"]:
            if not isinstance(at, dict) or key not in at:
                break
            found, at = (at, key), at[key]
        if found:
            found[0].pop(found[1])
    return {"title": "", "seeds": [0], **rest}


def check_size(trials: int, mistakes: list[str]) -> None:
    """Add that these are too many trials, if they are."""
    if trials > MOST_TRIALS:
        mistakes.append(f"{trials:,} trials; an experiment may have {MOST_TRIALS:,}, so make several of it")


def refuse(mistakes: Sequence[str], where: str) -> None:
    """Raise a UsageError that lists the mistakes, if there are any."""
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        more = f"\n  … and {len(mistakes) - MOST_SHOWN} more" if len(mistakes) > MOST_SHOWN else ""
        raise UsageError(f"{where}: {count}\n" + "\n".join(f"  {m}" for m in mistakes[:MOST_SHOWN]) + more)


def expand(raw: Any, where: str = "experiment", known: Mapping[str, Known] | None = None) -> Experiment:
    """Validate a grid and write out its trials; the experiment is still without a name.

    Args:
        raw: what the file says.
        where: what the file is called in messages.
        known: label of a data set -> what stands for the data of this machine.

    Raises:
        UsageError: all mistakes in one message, each with its key and the nearest valid name: those in the file's keys, names and
            values, and in the arguments of methods and encoders; where there are none, what these refuse.
    """
    mistakes: list[str] = []
    grid = check_file(raw, where, mistakes)
    if grid is None:
        refuse(mistakes, where)
    assert grid is not None
    from mmbench.experiment.resolve import resolve_dataset, resolve_methods, resolve_recipes
    from mmbench.experiment.searches import resolve_draws, search_of
    from mmbench.experiment.twins import check_twins

    methods, recipes = resolve_methods(grid, mistakes), resolve_recipes(grid, mistakes)
    planned = {label: resolve_dataset(label, settings, mistakes) for label, settings in grid.datasets.items()}
    if len(recipes) <= MOST_TRIALS:
        check_twins(grid, methods, recipes, planned, mistakes)
    drawn = resolve_draws(grid, methods, recipes, mistakes)
    if not mistakes:
        check_size(count_trials(grid, planned), mistakes)
    if not mistakes:
        from mmbench.experiment.tryout import try_out

        try_out(grid, methods, recipes, planned, drawn, mistakes)
    refuse(mistakes, where)
    for label in planned.keys() & (known or {}).keys():
        planned[label].stand_in(known[label], grid.datasets[label].protocols)  # type: ignore[index]
    trials: list[Trial] = []
    labels: dict[str, Labels] = {}
    searches: list[Search] = []
    for dataset, plan in planned.items():
        if plan.unprepared is not None:
            continue
        for trial, method in trials_of(grid, dataset, plan, methods, recipes):
            labels[trial.key] = Labels(dataset, method)
            trials.append(trial)
            if (
                trial.protocol in grid.tuned_protocols.get(dataset, ())
                and trial.seed == grid.seeds_of(dataset, trial.protocol)[0]
            ):
                searches.append(search_of(grid, dataset, method, trial, drawn[dataset, method]))
    unprepared = {name: plan.unprepared for name, plan in planned.items() if plan.unprepared is not None}
    for name, settings in grid.datasets.items():
        absent = {p: planned[name].lacking[p] for p in settings.protocols if p in planned[name].lacking}
        unprepared |= {f"{name} {protocol}": why for protocol, why in absent.items()}
    for search in searches:
        for number, draw in enumerate(search.draws):
            labels.setdefault(draw.trial.key, Labels(search.dataset, f"{search.method} draw {number}"))
    return Experiment("", grid, trials, unprepared, labels, searches, content=raw)


def count_trials(grid: Grid, plans: Mapping[str, DatasetPlan]) -> int:
    """How many trials there are, with those that tune and those of chosen settings."""
    count, each = 0, len(grid.trainings) * len(grid.methods)
    for label, settings in grid.datasets.items():
        for protocol in settings.protocols:
            here, seeds = len(plans[label].folds) * each, len(grid.seeds_of(label, protocol))
            count += here * seeds
            if grid.tune is not None and protocol in grid.tuned_protocols[label]:
                count += here * (grid.tune.draws + seeds)
    return count


def trials_of(
    grid: Grid,
    dataset: str,
    plan: DatasetPlan,
    methods: Mapping[str, dict[str, Any]],
    recipes: Mapping[tuple[str, str], Recipe],
) -> Iterator[tuple[Trial, str]]:
    """The trials of a data set, by its label, each with its method's label."""
    from mmbench.experiment.resolve import trial_of

    each = {m: trial_of(grid, dataset, plan, m, params, recipes[dataset, m]) for m, params in methods.items()}
    for protocol in grid.datasets[dataset].protocols:
        if protocol in plan.lacking:
            continue
        for missing, fold, seed in product(grid.trainings, plan.folds, grid.seeds_of(dataset, protocol)):
            cell = {"protocol": protocol, "missing": missing, "fold": fold, "seed": seed}
            for method, trial in each.items():
                yield trial.model_copy(update=cell), method
