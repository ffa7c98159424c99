"""What ``mmbench run`` does, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any

from mmbench.cli import parser
from mmbench.commands import load_experiment, open_store
from mmbench.errors import RunnerError
from mmbench.experiment.plan import Experiment, expand
from mmbench.files import user_path
from mmbench.places import published
from mmbench.provenance import Codes
from mmbench.report.collect import Results, collect
from mmbench.runner.choosing import backend_of
from mmbench.running import Running

NAME = "python"
"""Of an experiment that is no file."""


def run(
    experiment: str | PathLike[str] | Mapping[str, Any],
    results: str | PathLike[str] | None = None,
    keep_models: bool = False,
    jobs: int | None = None,
) -> Results:
    """Run what is missing of an experiment; ``mmbench.run`` is this.

    Raises:
        UsageError: a mistake in the experiment, or in the folder.
        RunnerError: a trial failed; what it was is on standard error.
    """
    options = [*(["--keep-models"] if keep_models else []), *([f"--jobs={jobs}"] if jobs else [])]
    name = NAME if isinstance(experiment, Mapping) else str(user_path(experiment))
    arguments = parser().parse_args(["run", *options, "--", name])
    arguments.results = arguments.results if results is None else user_path(results)
    planned = of_mapping(experiment) if isinstance(experiment, Mapping) else load_experiment(arguments)
    store, codes = open_store(arguments, write=True), Codes()
    backend = backend_of(arguments, store.root, lambda: codes.modules(planned.trials))
    with closing(backend):
        failed = Running(planned, store, arguments, backend, codes).run()
    if failed:
        raise RunnerError(f"not every trial of {planned.name} could be run; what failed is told above")
    return collect(planned, store, published(Path(arguments.results), "reported"), codes)


def of_mapping(content: Mapping[str, Any]) -> Experiment:
    """The experiment that a mapping describes, with the keys of a file."""
    experiment = expand(dict(content))
    experiment.name = NAME
    return experiment
