"""``--filter``: some of an experiment's trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmbench.errors import UsageError, did_you_mean
from mmbench.experiment.plan import Experiment, Labels
from mmbench.trial import Trial

if TYPE_CHECKING:
    from mmbench.experiment.searches import Search

FILTER_KEYS = ("dataset", "protocol", "training", "method", "fold", "seed")


def check_filters(filters: Sequence[str]) -> None:
    """Refuse filters that are not ``key=value`` with a key that trials have; this needs no trials.

    Raises:
        UsageError: one message with all mistakes.
    """
    keys = [(text, text.partition("=")[0]) for text in filters]
    if mistakes := [
        f"--filter {text}: unknown key; {did_you_mean(key, FILTER_KEYS)}"
        for text, key in keys
        if key not in FILTER_KEYS
    ]:
        raise UsageError("\n".join(mistakes))


class Filters:
    """``key=value`` filters of an experiment's trials: any of the values of one key, and all of the keys; names are the file's labels.

    Raises:
        UsageError: a key that trials do not have, or a value that no trial has.
    """

    def __init__(self, experiment: Experiment, filters: Sequence[str]) -> None:
        self.experiment = experiment
        self.wanted: dict[str, set[str]] = {}
        mistakes = []
        for text in filters:
            key, _, value = text.partition("=")
            if key not in FILTER_KEYS:
                mistakes.append(f"--filter {text}: unknown key; {did_you_mean(key, FILTER_KEYS)}")
                continue
            values = {value_of(trial, experiment.labels_of(trial), key) for trial in experiment.trials}
            if value not in values:
                mistakes.append(f"--filter {text}: no trial has this {key}; {did_you_mean(value, values)}")
            self.wanted.setdefault(key, set()).add(value)
        if mistakes:
            raise UsageError("\n".join(mistakes))

    @property
    def trials(self) -> list[Trial]:
        """Those of the default settings that match."""
        return [trial for trial in self.experiment.trials if self.matches(trial, self.experiment.labels_of(trial))]

    @property
    def searches(self) -> list[Search]:
        """Those whose trials match; a setting is chosen for all seeds, so the seed does not count."""
        found = self.experiment.searches
        return [s for s in found if self.matches(s.like, Labels(s.dataset, s.method), but="seed")]

    def matches(self, trial: Trial, labels: Labels, but: str = "") -> bool:
        """Whether a trial of these labels matches; in all keys, or all but one."""
        return all(value_of(trial, labels, key) in values for key, values in self.wanted.items() if key != but)


def value_of(trial: Trial, labels: Labels, key: str) -> str:
    """What a filter's key says of a trial."""
    return str(getattr(labels if key in Labels._fields else trial, key))


def select(experiment: Experiment, filters: Sequence[str]) -> list[Trial]:
    """The trials of the default settings that match filters.

    Raises:
        UsageError: a key that trials do not have, or a value that no trial has.
    """
    return Filters(experiment, filters).trials
