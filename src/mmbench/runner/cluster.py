"""A Ray cluster as the back end needs it: started or found, quiet, and what its nodes have room for."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from mmbench import machine
from mmbench.errors import UsageError
from mmbench.runner.backend import Capacity
from mmbench.runner.local import LocalBackend
from mmbench.runner.values import head_of

OBJECT_STORE = 80 * 2**20
"""Bytes of Ray's own shared memory: nothing large goes through it."""
CONNECT_SECONDS = 5.0
"""For an address to answer."""
HOW = "`ray start --head` starts one and says its address, `ray start --address HOST:PORT` adds this machine to it"


@dataclass(frozen=True)
class Needs:
    """What a worker takes of a node, as Ray counts it."""

    cpu: float
    gpu: float


def import_ray() -> Any:
    """Ray, which is quiet and tells nobody of being used.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # as it will be by default; it warns where this is not set
    if has_token():
        os.environ.setdefault(
            "RAY_AUTH_MODE", "token"
        )  # as Ray does by itself at some addresses; a cluster without takes it too
    try:
        import ray
    except ImportError as error:
        raise UsageError("--backend ray: Ray is not installed; pip install 'mmbench[ray]'") from error
    return ray


def has_token() -> bool:
    """Whether there is a token that clusters of this user's ask for."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or file.expanduser().is_file()


def start_local(ray: Any, local: LocalBackend) -> None:
    """Start a cluster on this machine, with the devices of the local back end."""
    there, shown = local.capacity(), "CUDA_VISIBLE_DEVICES"
    cpus = max(machine.cores(), there.jobs * there.cores)
    if not has_token():
        os.environ["RAY_AUTH_TOKEN"] = uuid4().hex  # of this cluster alone; Ray would leave one in the home folder
    before = os.environ.get(shown)
    if not local.on_cpu:
        os.environ[shown] = ",".join(local.devices)
    try:
        init(
            ray,
            address="local",
            num_cpus=cpus,
            num_gpus=there.gpus,
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            _system_config={"worker_niceness": 0},  # Ray's own is 15, which leaves trials little of a busy machine
        )
    finally:
        os.environ.pop(shown, None)
        if before is not None:
            os.environ[shown] = before


def find(address: str) -> None:
    """See whether a cluster's head is where an address says, without Ray, which takes its time.

    Raises:
        UsageError: it is no address, or no cluster answers there.
    """
    if (head := head_of(address)) is None:
        return
    try:
        check_answers(*head)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error}); {HOW}") from error


def connect(ray: Any, address: str) -> None:
    """Connect to a cluster.

    Raises:
        UsageError: none is there, or it is not to be used from here.
    """
    try:
        init(ray, address=address)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UsageError(f"--address {address}: no cluster that can be used ({last_line(error)}); {HOW}") from error


def check_answers(host: str, port: int) -> None:
    """See whether a server answers in HTTP/2, as a cluster's head does; Ray itself would try for minutes.

    Raises:
        OSError: none does.
    """
    if os.environ.get("RAY_USE_TLS") == "1":
        return  # then it answers in TLS
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        if connection.recv(9)[3:4] != b"\x04":  # the type of the frame with which a server begins
            raise OSError("what answers is not the head of a Ray cluster")


def init(ray: Any, **options: Any) -> None:
    """Call ``ray.init`` quietly; signals are handled as before."""
    from ray._private import worker

    # Of a node that goes away Ray prints a page, among what a command prints; the run says it in its own words.
    worker.print_to_stdstream = lambda *_, **__: None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def capacity(nodes: Sequence[Mapping[str, Any]], on_cpu: bool, jobs: int | None, threads: int | None) -> Capacity:
    """What a cluster has for trials on one device each.

    Args:
        nodes: as Ray describes them.
        on_cpu: leave GPUs alone.
        jobs: trials at a time; None: one a GPU, or as many as the cores are enough for.
        threads: CPU threads of a trial; None: as many as the cores are enough for.
    """
    sizes = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))) for node in nodes]
    gpus = 0 if on_cpu else sum(size[1] for size in sizes)
    most = max((size[0] for size in sizes), default=1)

    def at_a_time(cores: int) -> int:
        """How many trials with so many threads run at a time."""
        places = -(-(jobs or gpus) // gpus) if gpus else 0  # on each GPU
        return sum(min(cpu // cores, gpu * places) if gpus else cpu // cores for cpu, gpu in sizes)

    jobs = jobs or gpus or at_a_time(threads or 1)
    cores = threads or max((n for n in range(1, most + 1) if at_a_time(n) >= jobs), default=1)
    return Capacity(max(1, jobs), cores, gpus)


def fits(needs: Needs, there: Mapping[str, float]) -> bool:
    """Whether a node's resources are enough."""
    return there.get("CPU", 0) >= needs.cpu - 1e-3 and there.get("GPU", 0) >= needs.gpu - 1e-3


def in_words(resources: Mapping[str, float]) -> str:
    """Resources in a message: ``2 GPUs and 1 core``."""
    gpus, cores = resources.get("GPU", 0), resources.get("CPU", 0)
    return f"{gpus:g} GPU{'' if gpus == 1 else 's'} and {cores:g} core{'' if cores == 1 else 's'}"


def last_line(error: BaseException) -> str:
    """The last line of an error's message, which of a traceback is what matters."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
