"""mmbench: a benchmark suite for multimodal fusion, with complete and with missing modalities."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmbench.models.model import Model
    from mmbench.report.collect import Results


def run(
    experiment: str | PathLike[str] | Mapping[str, Any],
    results: str | PathLike[str] | None = None,
    keep_models: bool = False,
    jobs: int | None = None,
) -> Results:
    """Run what is missing of an experiment, as ``mmbench run`` does, and give its numbers; no report is written.

    ``run({"title": "…", "datasets": {"openclipart": {}}, "methods": {"concat": {}, "mla": {}}, "seeds": [0]}).table``

    Args:
        experiment: a file, the name of one, or what would be in one. Data, weights and trials are looked for where commands look.
        results: the folder of results; None: as for commands, ``$MMBENCH_RESULTS`` or ``results``.
        keep_models: leave every trained model beside its record, for ``load_model``.
        jobs: trials at a time; None: one a GPU, or one a CPU core.

    Returns:
        Data frames: ``table``, ``comparisons``, ``trials`` and, by missing rate, ``rates``.

    Raises:
        mmbench.errors.UsageError: a mistake in the experiment, or in the folder.
        mmbench.errors.RunnerError: a trial failed; what it was is on standard error.
    """
    from mmbench.from_python import run as run_experiment  # heavy, as below

    return run_experiment(experiment, results, keep_models, jobs)


def load_model(path: str | PathLike[str], device: str = "cpu") -> Model:
    """Read a trained model that ``mmbench run … --keep-models`` kept; nothing in its folder is executed.

    ``load_model("results/runs/<key>").predict({"image": "cat.png", "title": "a cat"})``: what a sample lacks is left out.

    Args:
        path: the folder with its ``model.json``; it may have been moved.
        device: where it computes: "cpu", "cuda".

    Raises:
        mmbench.errors.UsageError: there is no model, or it was tampered with.
    """
    from mmbench.models.model import load  # heavy: only who asks for a model waits for it

    return load(path, device)
