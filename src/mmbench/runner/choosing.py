"""Which back end runs the trials: the options of ``mmbench run``, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import UsageError
from mmbench.options import positive

if TYPE_CHECKING:
    from mmbench.runner.backend import Backend

OWN = {
    "ray": ("--address",),
    "slurm": (
        "--partition",
        "--time",
        "--array",
        "--gpus-per-task",
        "--cpus-per-task",
        "--slurm",
        "--cluster",
        "--no-wait",
    ),
}
"""Back end -> the options that only it has."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """The back end, and what each is told."""
    group = sub.add_argument_group("back ends")
    text = "local: this machine (default); ray: a Ray cluster; slurm: an array of runners"
    group.add_argument("--backend", choices=["local", "ray", "slurm"], default="local", help=text)
    text = "ray: a cluster's head, or auto for the one that this machine is part of (default: one is started here, for this run)"
    group.add_argument("--address", metavar="HOST:PORT|auto", help=text)
    group.add_argument("--partition", metavar="P", help="slurm: where to submit to (default: the cluster's)")
    group.add_argument("--time", metavar="[D-]H:M:S", help="slurm: the time limit of a runner, which is then requeued")
    group.add_argument("--array", type=positive, metavar="N", help="slurm: how many runners")
    group.add_argument("--gpus-per-task", type=positive, metavar="G", help="slurm: GPUs of a runner")
    group.add_argument("--cpus-per-task", type=positive, metavar="C", help="slurm: CPU cores of a runner")
    text = "slurm: more options of sbatch, such as account=me mem=32G export=ALL,MMBENCH_DATA=/scratch/data"
    group.add_argument("--slurm", metavar="KEY=VALUE", nargs="+", action="extend", help=text)
    text = "slurm: where runners run; local is this machine, to try it out (default: slurm)"
    group.add_argument("--cluster", choices=["slurm", "local"], help=text)
    group.add_argument(
        "--no-wait", action="store_true", default=None, help="slurm: return when the runners are submitted"
    )


def check_options(arguments: argparse.Namespace) -> None:
    """See that options are of the back end that was chosen.

    Raises:
        UsageError: one is not.
    """
    for backend, options in OWN.items():
        for option in options:
            given = getattr(arguments, option.lstrip("-").replace("-", "_")) is not None
            if given and backend != arguments.backend:
                raise UsageError(
                    f"{option} is an option of --backend {backend}, and not of --backend {arguments.backend}"
                )


def backend_of(arguments: argparse.Namespace, root: Path, modules: Callable[[], Mapping[str, str]]) -> Backend:
    """What runs the trials of ``mmbench run`` or of a runner.

    Args:
        arguments: of the command.
        root: the store's folder.
        modules: gives the code of all trials, module -> hash.

    Raises:
        UsageError: a device or a cluster is not there, or something is not installed.
    """
    if arguments.backend == "ray" and not arguments.dry_run:
        from mmbench.runner.ray import RayBackend

        return RayBackend(arguments.address, arguments.devices, arguments.jobs, arguments.threads, root, modules())
    from mmbench.runner.local import local_backend

    return local_backend(arguments.devices, arguments.jobs, arguments.threads)
