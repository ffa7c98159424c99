"""``mmbench run``: what is missing of an experiment, in one stage, or in two where settings are tuned."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.baselines import METHODS
from mmbench.done import Done, split_done
from mmbench.errors import UsageError, counted
from mmbench.experiment.filters import Filters
from mmbench.experiment.plan import Experiment, Labels
from mmbench.experiment.sizes import in_words
from mmbench.experiment.space import TUNED
from mmbench.index import Index
from mmbench.machine import cores
from mmbench.provenance import Codes, source_state, why_stale
from mmbench.record import Record
from mmbench.runner.backend import Backend
from mmbench.runner.memory import Memory
from mmbench.store import Store
from mmbench.tracking import WandbMode, WandbSettings, usable_mode
from mmbench.trial import Trial
from mmbench.tuning import Choice, Outcome, choose, distinct, has_diverged, tuning_trials

if TYPE_CHECKING:
    from mmbench.experiment.searches import Search
    from mmbench.runner.turns import Times
    from mmbench.runner.view import GridView

SCREEN = 30
"""Lines that one sees at once."""
MOST_KEPT = 3
"""Models whose folders are named when a run has ended."""


class Running:
    """An experiment that is run.

    Args:
        experiment: which.
        store: where its results are.
        arguments: of the command: the filters, ``keep_stale``, ``keep_models``, where results are, tracking, how long things may take
            and when the command ``began``, on the monotonic clock.
        backend: where trials run.
        codes: the code that is here.

    Raises:
        UsageError: a filter that no trial matches.
    """

    def __init__(
        self, experiment: Experiment, store: Store, arguments: argparse.Namespace, backend: Backend, codes: Codes
    ) -> None:
        self.experiment, self.store, self.arguments, self.backend, self.codes = (
            experiment,
            store,
            arguments,
            backend,
            codes,
        )
        self.index = Index(store)
        self.filters = Filters(experiment, arguments.filters)
        self.searches: list[Search] = self.filters.searches
        self.tuning = tuning_trials(self.searches)
        self.first = distinct([*self.filters.trials, *self.tuning])
        self.replaceable = {trial.key for trial in self.tuning}  # trials whose divergence is an answer
        self.keeps = bool(arguments.keep_models or experiment.grid.keep)  # models
        self.view, self.memory = view_of(experiment, store, backend), Memory()
        self.check_devices()

    def devices_of(self, trial: Trial) -> int:
        """How many devices train a trial: as the command says, or the file; one, where its method cannot be shared out."""
        devices = self.arguments.devices_per_trial or self.experiment.devices_of(trial)
        return devices if devices == 1 or METHODS[trial.method].data_parallel else 1

    def check_devices(self) -> None:
        """Say which methods take one device where others take several.

        Raises:
            UsageError: there are not as many GPUs.
        """
        wanted = [self.arguments.devices_per_trial or self.experiment.devices_of(trial) for trial in self.first]
        most, gpus = max(wanted, default=1), self.backend.capacity().gpus
        if gpus and most > gpus:
            raise UsageError(f"a trial is to have {most} devices, but there {'is' if gpus == 1 else 'are'} {gpus}")
        if not gpus and most > max(1, cores()):
            print(
                f"without GPUs, a trial on {most} devices is {most} processes, more than the {cores()} cores here",
                file=sys.stderr,
            )
        if alone := sorted({self.experiment.labels_of(t).method for t in self.first if self.devices_of(t) < most}):
            print(
                f"on one device: {', '.join(alone)}; what learns from the whole training split at once cannot be shared out",
                file=sys.stderr,
            )

    def split(self, trials: Sequence[Trial]) -> tuple[list[Done], list[Trial]]:
        """What the store has of trials, and what is to be run."""
        with self.index as index:
            done, todo = split_done(trials, index, self.codes, self.arguments.keep_stale, self.replaceable, self.keeps)
        for trial, found in done:
            self.memory.learn_of(trial, found)
        return done, todo

    def run(self) -> bool:
        """Run what is missing: the default settings and the trials that tune; then what is chosen by these. Whether anything failed."""
        done, todo = self.split(self.first)
        print(
            f"{self.experiment.name}: {counts(self.first, done, todo)}{self.budget()}{self.room(todo)}", file=sys.stderr
        )
        self.view.plan(todo, seconds_of(done), [trial for search in self.searches for trial in search.finals(0)])
        records = self.run_all(todo)
        choices: list[Choice] = []
        known = {trial.key for trial in self.first}
        while self.searches:
            choices = [choose(search, self.index, self.still_holds) for search in self.searches]
            trials = distinct((trial for choice in choices for trial in self.finals(choice)), known)
            if not trials:
                break
            known |= {trial.key for trial in trials}
            self.replaceable |= {trial.key for trial in trials}
            done, todo = self.split(trials)
            print(f"{self.experiment.name}, chosen settings: {counts(trials, done, todo)}", file=sys.stderr)
            self.view.plan(todo, seconds_of(done))
            records += self.run_all(todo)
        tell_of_choices(choices)
        failed = tell_of_failures([r for r in records if not self.is_answer(r)], self.experiment)
        return failed or any(choice.gap.endswith("diverged") for choice in choices)

    def finals(self, choice: Choice) -> list[Trial]:
        """The trials that test what was chosen, as far as they are to be run; they get their labels."""
        labels = Labels(choice.search.dataset, choice.search.method)
        trials = [trial for trial in choice.finals if self.filters.matches(trial, labels)]
        for trial in trials:
            self.experiment.labels.setdefault(trial.key, Labels(labels.dataset, labels.method + TUNED))
        return trials

    def still_holds(self, record: Outcome) -> bool:
        """Whether a trial that diverged would do so with the code that is here."""
        return self.arguments.keep_stale or why_stale(record, self.codes) is None

    def is_answer(self, record: Record) -> bool:
        """Whether it is a trial that failed as a setting may: it diverged, and another one takes its place."""
        return has_diverged(record) and record.key in self.replaceable

    def budget(self) -> str:
        """How many trials tuning takes, in words; nothing where nothing is tuned."""
        if not self.searches:
            return ""
        draws = max(len(search.draws) for search in self.searches)
        finals = sum(len(search.seeds) for search in self.searches)
        choices = f"{len(self.searches)} setting{'s' * (len(self.searches) != 1)} to choose"
        return (
            f"; {len(self.tuning)} of them tune, {draws} draws for each of {choices}; then at most "
            f"{finals} trial{'s' * (finals != 1)} of what is chosen, more where one diverges"
        )

    def room(self, todo: Sequence[Trial]) -> str:
        """The disk that models take, in words; nothing where none are kept.

        Raises:
            UsageError: there is not as much.
        """
        kept = [trial for trial in todo if not trial.tuning] if self.keeps else []
        later = sum(len(search.seeds) for search in self.searches) if self.keeps else 0
        return in_words(kept, later, self.store.root) if kept or later else ""

    def kept(self) -> list[str]:
        """Lines that say where models are that were kept, and how to ask one; nothing where none are kept."""
        if not self.keeps:
            return []
        chosen = [trial for search in self.searches for trial in self.finals(choose(search, self.index))]
        trials = distinct([*self.filters.trials, *chosen])
        found = [trial for trial in trials if (self.store.folder(trial.key) / "model.json").is_file()]
        lines = [
            f"kept, {self.experiment.describe(trial)}: mmbench predict {self.store.folder(trial.key)} INPUT"
            for trial in found[:MOST_KEPT]
        ]
        more = len(found) - len(lines)
        return [*lines, f"kept: {more} more {'model' if more == 1 else 'models'}"] if more else lines

    def unselected(self) -> set[str]:
        """Lines of a report for what the filters leave out."""
        chosen, kept = {trial.key for trial in self.first}, {id(search) for search in self.searches}
        trials = (trial for trial in self.experiment.trials if trial.key not in chosen)
        lines = {f"{self.experiment.describe(trial)}: not run" for trial in trials}
        return lines | {
            search.line(choose(search, self.index).gap) for search in self.experiment.searches if id(search) not in kept
        }

    def run_all(self, trials: Sequence[Trial]) -> list[Record]:
        """Run trials as the arguments say, showing their progress."""
        if not trials:
            return []
        return run_all(
            trials,
            self.store,
            self.experiment,
            self.backend,
            self.codes,
            self.view,
            self.wandb,
            self.keeps,
            self.devices_of,
            self.memory,
            self.times,
        )

    @cached_property
    def times(self) -> Times:
        """How long trials and the run may take."""
        from mmbench.runner.turns import Times

        arguments = self.arguments
        until = None if arguments.stop_after is None else arguments.began + arguments.stop_after
        return Times(arguments.checkpoint_every, arguments.time_limit, until)

    @cached_property
    def wandb(self) -> WandbSettings:
        """Where runs are tracked."""
        return tracking_of(self.experiment, self.arguments.wandb, self.arguments.results)


def counts(trials: Sequence[Trial], done: Sequence[Done], todo: Sequence[Trial]) -> str:
    """How far a stage is, in words."""
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}, {len(done)} done, {len(todo)} to do"


def seconds_of(done: Sequence[Done]) -> list[tuple[Trial, float]]:
    """How long trials took that are done."""
    return [(trial, found.seconds if found.status == "done" else 0.0) for trial, found in done]


def dry_run(running: Running) -> None:
    """Print the trials, how many are done, and what tuning takes."""
    done, todo = running.split(running.first)
    finished = {trial.key for trial, _ in done}
    for trial in running.first:
        state = "done" if trial.key in finished else "to do"
        print(f"{trial.key}  {state}  {running.experiment.describe(trial)}")
    for line in overview(running.experiment, running.filters.trials):
        print(line)
    print(f"{counts(running.first, done, todo)}{running.budget()}{running.room(todo)}")


def overview(experiment: Experiment, trials: Sequence[Trial]) -> Iterator[str]:
    """Of more trials than a screen has lines: how many there are of each data set and protocol, and of what."""
    if len(trials) <= SCREEN:
        return
    parts: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        parts.setdefault((experiment.labels_of(trial).dataset, trial.protocol), []).append(trial)
    for (dataset, protocol), own in parts.items():
        numbers = [
            counted(len({experiment.labels_of(trial).method for trial in own}), "method"),
            counted(len({trial.fold for trial in own}), "fold"),
            counted(len({trial.seed for trial in own}), "seed"),
        ]
        ways = len({trial.training for trial in own})
        trained = f", trained in {ways} ways" if ways > 1 else ""
        yield f"{dataset}, {protocol}: {counted(len(own), 'trial')}, of {', '.join(numbers)}{trained}"


def tell_of_choices(choices: Sequence[Choice]) -> None:
    """Say which settings made way for the next best one, and which could not be chosen."""
    if diverged := sum(has_diverged(record) for choice in choices for record in choice.records):
        print(f"{diverged} draws diverged while they were tuned, and are no choice", file=sys.stderr)
    for choice in choices:
        if choice.passed_over:
            numbers = ", ".join(map(str, choice.passed_over))
            print(choice.search.line(f"draw {numbers} diverged when tested, and made way"), file=sys.stderr)
        if choice.gap:
            print(choice.search.line(choice.gap), file=sys.stderr)


def run_all(
    trials: Sequence[Trial],
    store: Store,
    experiment: Experiment,
    backend: Backend,
    codes: Codes,
    view: GridView,
    wandb: WandbSettings | None = None,
    keep_models: bool = False,
    devices_of: Callable[[Trial], int] = lambda trial: 1,
    memory: Memory | None = None,
    times: Times | None = None,
) -> list[Record]:
    """Run trials, showing their progress in a view in which they are planned."""
    from mmbench.runner.loop import run_trials

    backend.start()  # it imports what trials need while this process goes on
    import mmbench.report.figures.gallery  # noqa: F401  imported now, while trials run, and not when they have ended

    with view:
        return run_trials(
            trials,
            store,
            backend,
            view,
            wandb,
            source_state(),
            codes,
            experiment.labels_of,
            keep_models,
            devices_of,
            memory,
            times,
        )


def tracking_of(experiment: Experiment, mode: WandbMode, results: Path) -> WandbSettings:
    """Where an experiment's runs go in Weights & Biases; says so if that is not where they were to go."""
    usable, message = usable_mode(mode)
    if message:
        print(message, file=sys.stderr)
    return WandbSettings(mode=usable, group=experiment.name, folder=str((results / "wandb").resolve()))


def view_of(experiment: Experiment, store: Store, backend: Backend) -> GridView:
    """What shows how a run gets on."""
    from mmbench.runner.view import GridView

    return GridView(backend.capacity().jobs, store.log, describe=experiment.describe)


def tell_of_failures(records: Sequence[Record], experiment: Experiment) -> bool:
    """Name the trials that failed; whether there are any."""
    failed = [record for record in records if record.status == "failed"]
    for record in failed:
        reason = " ".join(record.failure.message.split()) if record.failure else "unknown"
        print(f"failed: {experiment.describe(record.trial)}: {reason} (`mmbench show {record.key}`)", file=sys.stderr)
    return bool(failed)
