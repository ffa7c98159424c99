"""What commands begin with: the experiment and the store that their arguments name. Imports that take time stay inside."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mmbench.files import check_folder
from mmbench.pages import more
from mmbench.places import experiment_path

if TYPE_CHECKING:
    from mmbench.experiment.plan import Experiment
    from mmbench.store import Store

OK, FAILED, USAGE = 0, 1, 2


def load_experiment(arguments: argparse.Namespace, imported: bool = False) -> Experiment:
    """The experiment that the arguments name, with their settings.

    Args:
        arguments: of a command.
        imported: nothing will be run, so what a bundle told of an imported experiment's data sets stands for them.
    """
    from mmbench.bundles.importing import known_of
    from mmbench.experiment.plan import load, page_of_lack

    path = experiment_path(arguments.experiment)
    settings, quick = getattr(arguments, "settings", []), getattr(arguments, "quick", False)
    known = known_of(path) if imported else None
    experiment = load(path, settings, quick, getattr(arguments, "datasets", []), known)
    if datasets := getattr(arguments, "datasets", []):
        from mmbench.experiment.substitute import few_steps

        for line in few_steps(experiment.grid, datasets):
            print(line, file=sys.stderr)
    if experiment.unprepared:
        for line in lacks(experiment.unprepared):
            print(line, file=sys.stderr)
        print(more(page_of_lack(experiment.unprepared)), file=sys.stderr)
    return experiment


def lacks(unprepared: Mapping[str, str]) -> Iterator[str]:
    """What is left out, and why: a line for all that are only not prepared, and one for each that has another reason."""
    from mmbench.experiment.plan import left_out

    plain = [name for name, why in unprepared.items() if why == f"mmbench data info {name}"]
    if plain:
        yield f"left out, not prepared: {', '.join(plain)}; `mmbench data info {'NAME' if plain[1:] else plain[0]}` tells how"
    for name, why in unprepared.items():
        if name not in plain:
            yield f"left out: {name}, {left_out(why)}"


def open_store(arguments: argparse.Namespace, write: bool = False) -> Store:
    """The store of the results folder.

    Raises:
        UsageError: there cannot be one, or it cannot be written to although it will be.
    """
    from mmbench.store import Store

    check_folder(arguments.results / "runs", "results folder", write)
    return Store(arguments.results / "runs")
