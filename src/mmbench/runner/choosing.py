"""Which back end runs the trials: the options of ``mmbench run``, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import UsageError
from mmbench.options import positive
from mmbench.runner.values import OWN, head_of, pairs, seconds_of

if TYPE_CHECKING:
    from mmbench.runner.backend import Backend


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
    """See that options are of the back end that was chosen, and say what they may; nothing is asked for that takes a cluster.

    Raises:
        UsageError: all that is wrong.
    """
    backend = arguments.backend
    wrong = [
        f"{option} is an option of --backend {other}, and not of --backend {backend}"
        for other, options in OWN.items()
        for option in options
        if other != backend and getattr(arguments, option.lstrip("-").replace("-", "_")) is not None
    ]

    def check(look: Callable[[], object]) -> None:
        try:
            look()
        except UsageError as error:
            wrong.append(str(error))

    if backend == "slurm":
        missing = [f"--{option}" for option in ("time", "array") if getattr(arguments, option) is None]
        if missing:
            wrong.append(f"--backend slurm: {' and '.join(missing)} missing, as in --time 12:00:00 --array 8")
        if arguments.time is not None:
            check(lambda: seconds_of(arguments.time))
        for pair in arguments.slurm or []:
            check(partial(pairs, [pair]))
    elif backend == "ray" and arguments.address is not None:
        check(lambda: head_of(arguments.address))
        if arguments.devices not in ("auto", "cpu"):
            wrong.append(f"--devices {arguments.devices}: on a cluster Ray picks the GPUs; expected auto or cpu")
    if wrong:
        raise UsageError("\n".join(wrong))


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
