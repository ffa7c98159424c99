"""``mmbench status``: how far an experiment is, or all that is in the store."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from mmbench.errors import UsageError, printable
from mmbench.opening import FAILED, OK, load_experiment, open_store
from mmbench.report_commands import trials_of

if TYPE_CHECKING:
    from mmbench.index import Summary
    from mmbench.provenance import Codes
    from mmbench.store import Store

MOST_HOSTS = 8
"""That are named where trials run."""


def status(arguments: argparse.Namespace) -> int:
    """Count the trials by what became of them; 1 if any is damaged."""
    from mmbench.elsewhere.entries import Elsewhere
    from mmbench.index import Index
    from mmbench.provenance import Codes, grouped
    from mmbench.store import CorruptRecord

    store = open_store(arguments)
    if (arguments.settings or arguments.quick or arguments.datasets) and not arguments.experiment:
        raise UsageError("status --set, --quick, --dataset: name the experiment that they change")
    codes = Codes()
    experiment = load_experiment(arguments, imported=True) if arguments.experiment else None
    counts: Counter[str] = Counter()
    hosts: Counter[str] = Counter()
    stale: list[str] = []
    with Index(store, anew=arguments.verify) as index:
        trials = {trial.key: trial for trial in trials_of(experiment, index)} if experiment else {}
        for key in trials if experiment else store.begun():
            try:
                found = index.look(key)
            except CorruptRecord as error:
                counts["damaged"] += 1
                print(f"damaged: {printable(str(error))}")
                continue
            if found is None:
                state = without_record(store, key, hosts)
                counts[state] += bool(experiment) or state != "not run"  # a lock alone is no trial
                continue
            counts[state_of(found, codes, stale)] += 1
            if found.failure is not None:
                name = experiment.describe(trials[key]) if experiment else found.label
                print(printable(f"failed: {name} ({key}): {found.failure.message}"))
    for line in grouped(stale, "stale"):
        print(printable(line))
    told = [f", {count} {state}{where(hosts, state)}" for state, count in sorted(counts.items()) if count]
    print(printable(f"{counts.total()} trials{''.join(told)}"))
    if made := Elsewhere.beside(store).keys():
        print(f"{len(made)} predictions made elsewhere: mmbench add-predictions --list")
    return FAILED if counts["damaged"] else OK


def state_of(found: Summary, codes: Codes, stale: list[str]) -> str:
    """What became of a trial that has a record; why it is stale, if it is, is noted."""
    from mmbench.provenance import why_stale

    if found.status != "done" or (reason := why_stale(found, codes)) is None:
        return found.status
    stale.append(reason)
    return "stale"


def without_record(store: Store, key: str, hosts: Counter[str]) -> str:
    """How far a trial is that has no record; where it runs, if it does, is noted."""
    if holder := store.holder_now(key):
        hosts[holder.split()[0]] += 1
        return "running"
    return "interrupted" if store.checkpoint(key).exists() else "not run"


def where(hosts: Counter[str], state: str) -> str:
    """On which machines trials run, the busiest first: `` (node7)``, `` (3 on node7, 1 on node8)``; nothing for other states.

    >>> where(Counter(node7=3), "running"), where(Counter(node7=3), "done")
    (' (node7)', '')
    >>> where(Counter(node7=1, node8=3), "running")
    ' (3 on node8, 1 on node7)'
    """
    if state != "running":
        return ""
    if len(hosts) == 1:
        return f" ({next(iter(hosts))})"
    named = [f"{count} on {host}" for host, count in hosts.most_common(MOST_HOSTS)]
    more = [f"{len(hosts) - MOST_HOSTS} more hosts"] if len(hosts) > MOST_HOSTS else []
    return f" ({', '.join(named + more)})"
