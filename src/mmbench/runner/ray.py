"""The back end on a Ray cluster: workers on its nodes, each with its share of GPUs and cores, that run one trial after another."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from mmbench.errors import RunnerError, UsageError, counted
from mmbench.files import user_path
from mmbench.runner.backend import Capacity, Ended, Request
from mmbench.runner.child import Job
from mmbench.runner.cluster import Needs, capacity, connect, find, fits, import_ray, in_words, last_line, start_local
from mmbench.runner.local import LocalBackend, local_backend
from mmbench.runner.worker import Arrival, Worker

PATIENCE_SECONDS = 300.0
"""How long a cluster may have no node that fits a trial, before the run ends."""
STORE_SECONDS = 60.0
"""How long a record that a worker has written may take to be seen here: network file systems remember what was not there."""
END_SECONDS = 10.0
"""For workers to end their trials."""

FOLDERS = {"MMBENCH_DATA": "data", "MMBENCH_WEIGHTS": "weights"}
"""Variable -> the folder where it is not set."""


@dataclass(eq=False)
class _Worker:
    """A worker and what it is at.

    Attributes:
        actor: Ray's handle.
        needs: what it takes.
        node: Ray's number of its node.
        host: the node's name or address.
        arrived: it is up.
        answer: what it will answer: that it is up, or what became of its job; None while it has nothing to do.
        task: its job, and what that asks for.
    """

    actor: Any
    needs: Needs
    node: str
    host: str
    arrived: bool = False
    answer: Any = None
    task: tuple[Job, Request] | None = None


class RayBackend:
    """Workers on the nodes of a cluster, started as trials need them and kept for the next ones.

    Args:
        address: of a cluster, as Ray has it, or "auto"; None: one is started on this machine, and ended by ``close``.
        devices: "auto", "cpu" or, where there is no address, numbers of GPUs.
        jobs: trials at a time; None: as many as there are GPUs, or cores.
        threads: CPU threads of a trial; None: the cores of a node are shared out.
        root: the store's folder, which all nodes see under this path.
        modules: module -> hash, of what trials run; workers with others are refused.

    Raises:
        UsageError: Ray is not installed, or no cluster answers there, or a device is not there.
    """

    def __init__(
        self,
        address: str | None,
        devices: str,
        jobs: int | None,
        threads: int | None,
        root: Path,
        modules: Mapping[str, str],
    ) -> None:
        if address is not None:
            find(address)
        self.ray = import_ray()
        self.modules, self.proof = modules, root.absolute() / f".shared-{uuid4().hex[:12]}"
        self.workers: list[_Worker] = []
        self.over: list[Ended] = []
        self.fitted: float | None = None  # when some node was last large enough for a trial
        self.local: LocalBackend | None = None
        if address is None:
            self.local = local_backend(devices, jobs, threads)
            self._capacity = self.local.capacity()
        else:
            connect(self.ray, address)
            self._capacity = capacity(self._nodes(), devices == "cpu", jobs, threads)

    def capacity(self) -> Capacity:
        """What the cluster has when the run begins."""
        return self._capacity

    def start(self) -> None:
        """Start the cluster, if there is none yet, and say what it has."""
        if self.proof.exists():
            return
        if self.local is not None:
            start_local(self.ray, self.local)
        self.proof.parent.mkdir(parents=True, exist_ok=True)
        self.proof.write_text(self.proof.name)
        nodes = self._nodes()
        cores, gpus = (sum(int(node["Resources"].get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
        print(
            f"Ray: {counted(len(nodes), 'node')}, {counted(cores, 'core')}, {counted(gpus, 'GPU')}; "
            f"{counted(self._capacity.jobs, 'trial')} at a time",
            file=sys.stderr,
        )

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        with suppress(OSError):
            self.proof.unlink(missing_ok=True)
        self.workers.clear()
        self.ray.shutdown()

    def has_room(self, request: Request) -> bool:
        """Whether a worker has nothing to do, or there is room for another one.

        Raises:
            UsageError: no node can ever run such a trial.
            RunnerError: none can any more.
        """
        if self.over or sum(worker.task is not None for worker in self.workers) >= self._capacity.jobs:
            return False
        needs = self._needs(request)
        return self._idle(needs) is not None or self._place(needs) is not None

    def submit(self, job: Job, request: Request) -> None:
        """Give a job to a worker that has nothing to do, or to a new one."""
        needs = self._needs(request)
        if (worker := self._idle(needs)) is None:
            worker = self._hire(needs)
        worker.task = job, request
        if worker.arrived:
            self._run(worker)

    def wait(self, timeout: float) -> Sequence[Ended]:
        """The jobs that have ended, and those whose workers are gone.

        Raises:
            RunnerError: a worker cannot run trials.
        """
        self._hand_over()
        over, self.over = self.over, []
        answers = {worker.answer: worker for worker in self.workers if worker.answer is not None}
        if not answers:
            time.sleep(0 if over else timeout)
            return over
        ready, _ = self.ray.wait(list(answers), timeout=0 if over else timeout)
        if ready:
            ready, _ = self.ray.wait(list(answers), num_returns=len(answers), timeout=0)
        for answer in ready:
            over += self._take(answers[answer])
        return over

    def stop(self) -> None:
        """Pass it on to every worker; what has not begun is over."""
        for worker in list(self.workers):
            if worker.task is not None and worker.arrived:
                worker.actor.stop.remote()
            elif worker.task is not None:
                self.over.append(Ended(worker.task[0], "stopped", "it was asked to end"))
                self._dismiss(worker)

    def cancel(self) -> None:
        """End all that runs, with its worker; the others stay."""
        busy = [worker for worker in self.workers if worker.task is not None]
        ends = [worker.actor.cancel.remote() for worker in busy if worker.arrived]
        if ends:
            self.ray.wait(ends, num_returns=len(ends), timeout=END_SECONDS)
        for worker in busy:
            self._dismiss(worker)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _needs(self, request: Request) -> Needs:
        """What a trial takes of a node: of the cores at most all that a node has, of GPUs what it asks for."""
        if self._capacity.gpus:
            whole = request.devices > 1 or request.alone or request.share > 0.5
            part = int(1e4 / int(1 / request.share + 1e-6)) / 1e4  # Ray counts in ten-thousandths
            return Needs(request.cores, request.devices if whole else part)
        most = max((node["Resources"].get("CPU", 0) for node in self._nodes()), default=0)
        return Needs(most if request.alone else min(most, request.cores * request.devices), 0)

    def _idle(self, needs: Needs) -> _Worker | None:
        free = (w for w in self.workers if w.arrived and w.task is None and w.needs == needs)
        return next(free, None)

    def _place(self, needs: Needs) -> dict[str, Any] | None:
        """A node with room for one more worker; those that have nothing to do and are of another size make way."""
        nodes = self._nodes()
        if not any(fits(needs, node["Resources"]) for node in nodes):
            self._no_node(needs, nodes)
            return None
        self.fitted = time.monotonic()
        if (node := self._free(needs, nodes)) is None:
            others = [worker for worker in self.workers if worker.task is None]
            for worker in others:
                self._dismiss(worker)
            node = self._free(needs, nodes) if others else None
        return node

    def _free(self, needs: Needs, nodes: list[dict[str, Any]]) -> dict[str, Any] | None:
        """A node that has room beside the workers that are on it, and beside others of its users."""
        from ray._private.state import available_resources_per_node

        available = available_resources_per_node()  # as of a moment ago
        for node in nodes:
            total, there = node["Resources"], [w.needs for w in self.workers if w.node == node["NodeID"]]
            left = {
                "CPU": total.get("CPU", 0) - sum(other.cpu for other in there),
                "GPU": total.get("GPU", 0) - sum(other.gpu for other in there),
            }
            if fits(needs, left) and fits(needs, available.get(node["NodeID"], {})):
                return node
        return None

    def _no_node(self, needs: Needs, nodes: list[dict[str, Any]]) -> None:
        """Say that no node is large enough, unless one that was may come back."""
        there = ", ".join(f"{n['NodeManagerHostname']} {in_words(n['Resources'])}" for n in nodes) or "no node"
        asks = in_words({"CPU": needs.cpu, "GPU": needs.gpu})
        if self.fitted is None:
            raise UsageError(f"a trial asks for {asks}, and no node of the cluster has as much: {there}")
        if time.monotonic() > self.fitted + PATIENCE_SECONDS:
            raise RunnerError(f"a trial asks for {asks}, and no node of the cluster has as much any more: {there}")

    def _hire(self, needs: Needs) -> _Worker:
        """Start a worker where there is room."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._place(needs)
        if node is None:
            raise RunnerError("a trial was submitted for which the cluster has no room")
        options = {
            "num_cpus": needs.cpu,
            "num_gpus": needs.gpu,
            "max_concurrency": 2,  # to be stopped while it runs a trial
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        }
        folders = {name: str(user_path(os.environ.get(name) or folder).absolute()) for name, folder in FOLDERS.items()}
        actor = self.ray.remote(Worker).options(**options).remote(folders)
        worker = _Worker(actor, needs, node["NodeID"], node["NodeManagerHostname"])
        worker.answer = actor.arrive.remote(dict(self.modules), str(self.proof), self.proof.name)
        self.workers.append(worker)
        return worker

    def _run(self, worker: _Worker) -> None:
        assert worker.task is not None
        worker.answer = worker.actor.run.remote(*worker.task)

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        self.ray.kill(worker.actor)

    def _hand_over(self) -> None:
        """Give jobs of workers that are not up yet, since other users have the node, to those that have nothing to do."""
        for late in [worker for worker in self.workers if not worker.arrived and worker.task is not None]:
            if (idle := self._idle(late.needs)) is not None:
                idle.task = late.task
                self._dismiss(late)
                self._run(idle)

    def _take(self, worker: _Worker) -> list[Ended]:
        """What a worker answers."""
        from ray.exceptions import RayActorError, RayError

        answer, worker.answer = worker.answer, None
        try:
            told = self.ray.get(answer)
        except RayActorError as error:
            return self._lost(worker, error)
        except RayError as error:
            raise RunnerError(f"the worker on {worker.host} failed: {last_line(error)}") from error
        if isinstance(told, Arrival):
            if told.mistake:
                raise RunnerError(f"the worker on {told.host} {told.mistake}")
            worker.arrived, worker.host = True, told.host
            self._run(worker)
            return []
        ended, recorded = told
        worker.task = None
        if recorded:
            wait_for_record(Path(ended.job.root) / ended.job.trial.key)
        return [replace(ended, shared=worker.needs.gpu < 1)]

    def _lost(self, worker: _Worker, error: Any) -> list[Ended]:
        """A worker that died, or whose node did."""
        if error.actor_init_failed:
            raise RunnerError(f"no worker can be started on {worker.host}: {last_line(error)}") from error
        self._dismiss(worker)
        if worker.task is None:
            return []
        if "memory" in str(error):
            return [
                Ended(worker.task[0], "killed", f"its worker on {worker.host} was killed since memory ran out there")
            ]
        there = any(node["NodeID"] == worker.node for node in self._nodes())
        cause = f"its worker on {worker.host} died" if there else f"node {worker.host} went away"
        return [Ended(worker.task[0], "lost", cause)]


def wait_for_record(folder: Path) -> None:
    """Wait until a record that another machine has written is seen here; to list a folder makes the system look anew."""
    deadline = time.monotonic() + STORE_SECONDS
    while "record.json" not in os.listdir(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
