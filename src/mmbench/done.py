"""What the store has of the trials that a run is about, and what is to be run."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from mmbench.errors import UsageError
from mmbench.index import Index, Summary
from mmbench.provenance import Codes, grouped, why_stale
from mmbench.store import CorruptRecord, Store
from mmbench.trial import Trial
from mmbench.tuning import has_diverged

Done = tuple[Trial, Summary]
"""A trial of which there is a result."""


def split_done(
    trials: Sequence[Trial],
    index: Index,
    codes: Codes,
    keep_stale: bool,
    replaceable: Collection[str] = (),
    keep_models: bool = False,
) -> tuple[list[Done], list[Trial]]:
    """The results that the store has, and the trials still to be run.

    Results that are damaged, or of other code, are named and run again; with ``keep_stale`` those of other code are kept. That one of
    the ``replaceable`` trials, by their keys, has diverged is a result. With ``keep_models`` a trial that was done without its model is
    run again, too, unless it tunes.
    """
    done: list[Done] = []
    todo: list[Trial] = []
    reasons: list[str] = []
    without = 0
    for trial in trials:
        try:
            found = index.look(trial.key)
        except CorruptRecord as error:
            print(f"damaged, will be run again: {error}", file=sys.stderr)
            found = None
        if found is not None and found.status == "failed":
            if not (trial.key in replaceable and has_diverged(found)):
                found = None
        elif found is not None and keep_models and not trial.tuning and not has_model(found, index.store):
            without, found = without + 1, None
        if found is not None and (reason := why_stale(found, codes)) is not None:
            reasons.append(reason)
            found = found if keep_stale else None
        if found is None:
            todo.append(trial)
        else:
            done.append((trial, found))
    for line in grouped(reasons, "kept, of other code than this" if keep_stale else "run again"):
        print(line, file=sys.stderr)
    if without:
        print(
            f"{without} {'trial' if without == 1 else 'trials'} run again: done, but without the model", file=sys.stderr
        )
    tell_of_code([found for _, found in done], codes)
    return done, todo


def has_model(record: Summary, store: Store) -> bool:
    """Whether the model of a trial was kept and is there; says so if it is there and damaged."""
    from mmbench.models.card import check_files, read_card

    try:
        folder = store.model(record)
        if folder is not None:
            check_files(folder, read_card(folder), hashes=False)
    except (CorruptRecord, UsageError) as error:
        print(f"damaged: {error}", file=sys.stderr)
        return False
    return folder is not None


def tell_of_code(done: Sequence[Summary], codes: Codes) -> None:
    """Say what is no reason to run trials again, but has to be known."""
    if other := sum(record.code is not None and record.code.core != codes.core for record in done):
        print(
            f"{other} of the done trials ran with another core of mmbench than this, which is no reason to run them again; "
            "delete them to run them anew",
            file=sys.stderr,
        )
    if codes.unreadable:
        print(f"edits of {', '.join(codes.unreadable)} cannot be seen: there is no file of its source", file=sys.stderr)
