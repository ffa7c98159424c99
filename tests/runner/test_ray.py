"""The back end on Ray: what needs no cluster, and a local cluster of two nodes, one of which goes away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from test_local import MakeTrial, Watcher

from mmbench.cli import main
from mmbench.errors import RunnerError, UsageError
from mmbench.provenance import Codes
from mmbench.runner.backend import Capacity, Ended, Request
from mmbench.runner.child import Job
from mmbench.runner.cluster import Needs, capacity, find, has_token, import_ray
from mmbench.runner.loop import run_trials
from mmbench.runner.memory import Memory
from mmbench.runner.ray import RayBackend
from mmbench.runner.worker import Arrival, Worker, other_code
from mmbench.store import Store
from mmbench.trial import Trial

# Without a cluster


def test_ray_and_submitit_are_imported_by_their_back_ends_alone() -> None:
    program = (
        "import sys; from mmbench import machine; machine.plan_only(); import mmbench.cli, mmbench.running, mmbench.submitted, "
        "mmbench.runner.loop; print(sorted({'ray', 'submitit'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray is not installed; pip install 'mmbench\[ray\]'"):
        import_ray()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address", "auto"], "--address is an option of --backend ray, and not of --backend local"),
        (
            ["--backend", "slurm", "--address", "auto"],
            "--address is an option of --backend ray, and not of --backend slurm",
        ),
        (["--backend", "ray", "--no-wait"], "--no-wait is an option of --backend slurm, and not of --backend ray"),
        (["--slurm", "mem=1G"], "--slurm is an option of --backend slurm, and not of --backend local"),
    ],
)
def test_options_of_another_back_end_are_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "table1", *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    "address", ["nonsense", "ray://localhost:10001", "localhost:", ":6379", "127.0.0.1:99999", "a b:1", "h:0"]
)
def test_addresses_that_are_none_are_refused_before_anything_else(
    address: str, dry: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", "table1", "--backend", "ray", "--address", address, "--devices", "0", *dry]) == 2
    address_, devices, page = capsys.readouterr().err.splitlines()
    assert "how_to/many_gpus" in page
    assert f"--address {address}: expected HOST:PORT of the cluster's head, or auto" in address_
    assert "--devices 0: on a cluster Ray picks the GPUs" in devices


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n"])
def test_an_address_where_no_cluster_answers_is_told_at_once(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself tries for minutes, at a port where something else is at home."""
    monkeypatch.setattr("mmbench.runner.cluster.CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answer is not None:
            monkeypatch.setattr(socket, "create_connection", lambda *_, **__: Answering(answer))
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}: no Ray cluster answers there .*ray start --head"):
            find(f"127.0.0.1:{port}")


class Answering:
    """A connection to a server that says the same, whatever it is asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        pass

    def recv(self, count: int) -> bytes:
        return self.answer[:count]


def test_the_users_token_is_found_where_ray_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that was started with one turns away who does not show it."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert not has_token()
    (tmp_path / "token").write_text("t")
    assert has_token()
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("t")
    assert has_token()


def node(number: int, cpus: float, gpus: float = 0) -> dict[str, Any]:
    resources = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
    return {
        "NodeID": f"{number + 1:056x}",
        "NodeManagerHostname": f"node{number}",
        "Alive": True,
        "Resources": resources,
    }


@pytest.mark.parametrize(
    ("nodes", "on_cpu", "jobs", "threads", "expected"),
    [
        ([(2, 0)], False, None, None, Capacity(2, 1)),
        ([(8, 0), (8, 0)], False, 3, None, Capacity(3, 4)),
        ([(8, 0), (8, 0)], False, 4, None, Capacity(4, 4)),
        ([(8, 0), (4, 0)], False, None, 4, Capacity(3, 4)),
        ([(16, 2), (64, 8)], False, None, None, Capacity(10, 8, 10)),
        ([(16, 2), (64, 8)], True, None, None, Capacity(80, 1)),
        ([(16, 2), (2, 0)], False, 4, None, Capacity(4, 4, 2)),
        ([(1, 1)], False, 4, None, Capacity(4, 1, 1)),
        ([(16, 4)], False, 2, None, Capacity(2, 8, 4)),
    ],
)
def test_what_a_cluster_has_is_shared_out(
    nodes: list[tuple[int, int]], on_cpu: bool, jobs: int | None, threads: int | None, expected: Capacity
) -> None:
    described = [node(number, *size) for number, size in enumerate(nodes)]
    assert capacity(described, on_cpu, jobs, threads) == expected


@pytest.mark.parametrize(
    ("gpus", "request_", "expected"),
    [
        (4, Request(share=0.25, cores=2), Needs(2, 0.25)),
        (4, Request(share=1 / 3), Needs(1, 0.3333)),
        (4, Request(share=1 / 6), Needs(1, 0.1666)),
        (4, Request(share=0.6), Needs(1, 1)),
        (4, Request(share=0.25, alone=True), Needs(1, 1)),
        (4, Request(devices=4, cores=8), Needs(8, 4)),
        (0, Request(cores=2), Needs(2, 0)),
        (0, Request(devices=4, cores=2), Needs(8, 0)),
        (0, Request(devices=4, cores=9), Needs(16, 0)),
        (0, Request(alone=True), Needs(16, 0)),
    ],
)
def test_what_a_trial_takes_of_a_node(gpus: int, request_: Request, expected: Needs) -> None:
    backend = RayBackend.__new__(RayBackend)
    backend._capacity = Capacity(4, 1, gpus)
    backend._nodes = lambda: [node(0, 16, 4), node(1, 8, 4)]  # type: ignore[method-assign]
    assert backend._needs(request_) == expected
    assert int(1 / expected.gpu + 1e-3) * round(expected.gpu, 4) <= 1 if 0 < expected.gpu < 1 else True


def test_more_than_any_node_has_is_refused_in_words() -> None:
    backend = RayBackend.__new__(RayBackend)
    backend._capacity, backend.over, backend.workers, backend.fitted = Capacity(4, 1, 4), [], [], None
    backend._nodes = lambda: [node(0, 16, 2), node(1, 8, 2)]  # type: ignore[method-assign]
    with pytest.raises(
        UsageError, match=r"asks for 4 GPUs and 1 core, and no node .* node0 2 GPUs and 16 cores, node1 2 GPUs"
    ):
        backend.has_room(Request(devices=4))
    backend.fitted = time.monotonic()
    assert not backend.has_room(Request(devices=4)), "a node that went away may come back"
    backend.fitted -= 1000
    with pytest.raises(RunnerError, match="no node of the cluster has as much any more"):
        backend.has_room(Request(devices=4))


def test_a_refusal_names_some_modules() -> None:
    assert "(a, b):" in other_code(["a", "b"])
    assert "(m0, m1, m2, m3, m4 and 3 more):" in other_code([f"m{n}" for n in range(8)])


class Handle:
    """The handle of a worker that answers what a test puts into ``answers``."""

    def __init__(self, *folders: object) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*_: object) -> tuple[Handle, str, int]:
            self.asked.append(name)
            return self, name, len(self.asked)

        return SimpleNamespace(remote=remote)


class Ray:
    """As much of Ray as the back end uses: nodes, and workers that answer when a test says what."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.there, self.hired, self.killed = list(nodes), [], []  # type: ignore[var-annotated]
        self.answers: dict[Any, Any] = {}

    def nodes(self) -> list[dict[str, Any]]:
        return self.there

    def remote(self, kind: type) -> Any:
        def hire(*arguments: object) -> Handle:
            self.hired.append(Handle(*arguments))
            return self.hired[-1]

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=hire))

    def wait(self, answers: list[Any], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        ready = [answer for answer in answers if (answer[0], answer[1]) in self.answers]
        return ready[:num_returns], [answer for answer in answers if answer not in ready[:num_returns]]

    def get(self, answer: Any) -> Any:
        told = self.answers.pop((answer[0], answer[1]))
        if isinstance(told, Exception):
            raise told
        return told

    def kill(self, actor: Handle) -> None:
        self.killed.append(actor)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[RayBackend, Ray]]:
    """Makes a back end on made-up nodes; no other user is on them."""

    def make(jobs: int, *nodes: dict[str, Any]) -> tuple[RayBackend, Ray]:
        ray = Ray(*nodes)
        available = {one["NodeID"]: one["Resources"] for one in nodes}
        monkeypatch.setattr("ray._private.state.available_resources_per_node", lambda: available)
        backend = RayBackend(None, "cpu", jobs, 1, tmp_path, {})
        backend.ray = ray
        return backend, ray

    return make


def job_of(trial: Trial, folder: Path) -> Job:
    return Job(trial, str(folder))


def test_jobs_of_workers_that_do_not_come_up_go_to_those_that_are_free(
    made_up: Callable[..., tuple[RayBackend, Ray]], tiny: MakeTrial, tmp_path: Path
) -> None:
    """As where somebody else has the node: the trial would wait for as long as they do."""
    backend, ray = made_up(2, node(0, 1), node(1, 1))
    first, second = (job_of(tiny(seed=seed), tmp_path) for seed in range(2))
    for job in (first, second):
        assert backend.has_room(Request())
        backend.submit(job, Request())
    assert not backend.has_room(Request())
    up, late = ray.hired
    ray.answers[up, "arrive"] = Arrival("node0")
    assert backend.wait(0) == []
    ray.answers[up, "run"] = Ended(first, "ended"), False
    (over,) = backend.wait(0)
    assert (over.job, over.how, over.shared) == (first, "ended", True)
    assert up.asked == ["arrive", "run"]
    assert backend.wait(0) == []
    assert up.asked == ["arrive", "run", "run"]
    assert ray.killed == [late]
    ray.answers[up, "run"] = Ended(second, "ended"), False
    assert [over.job for over in backend.wait(0)] == [second]


@pytest.mark.parametrize(
    ("message", "gone", "how", "cause"),
    [
        ("killed by SIGKILL", False, "lost", "its worker on node0 died"),
        ("", True, "lost", "node node0 went away"),
        ("the node was running low on memory", False, "killed", "since memory ran out there"),
    ],
)
def test_a_worker_that_dies_is_told_and_another_one_is_started(
    made_up: Callable[..., tuple[RayBackend, Ray]],
    tiny: MakeTrial,
    tmp_path: Path,
    message: str,
    gone: bool,
    how: str,
    cause: str,
) -> None:
    from ray.exceptions import RayActorError

    backend, ray = made_up(1, node(0, 1), node(1, 1))
    job = job_of(tiny(), tmp_path)
    backend.submit(job, Request())
    ray.answers[ray.hired[0], "arrive"] = Arrival("node0")
    backend.wait(0)
    ray.there = ray.there[1:] if gone else ray.there
    ray.answers[ray.hired[0], "run"] = RayActorError(error_msg=message)
    (over,) = backend.wait(0)
    assert (over.job, over.how) == (job, how)
    assert cause in over.cause
    assert backend.has_room(Request())
    backend.submit(job, Request())
    assert len(ray.hired) == 2


def test_a_worker_that_cannot_begin_ends_the_run(
    made_up: Callable[..., tuple[RayBackend, Ray]], tiny: MakeTrial, tmp_path: Path
) -> None:
    from ray.exceptions import RayActorError

    backend, ray = made_up(1, node(0, 1))
    backend.submit(job_of(tiny(), tmp_path), Request())
    error = RayActorError(error_msg="Traceback\nModuleNotFoundError: No module named 'mmbench'", actor_init_failed=True)
    ray.answers[ray.hired[0], "arrive"] = error
    with pytest.raises(
        RunnerError, match="no worker can be started on node0: ModuleNotFoundError: No module named 'mmbench'"
    ):
        backend.wait(0)


def test_workers_of_another_size_make_way(
    made_up: Callable[..., tuple[RayBackend, Ray]], tiny: MakeTrial, tmp_path: Path
) -> None:
    backend, ray = made_up(4, node(0, 4))
    job = job_of(tiny(), tmp_path)
    backend.submit(job, Request(cores=2))
    ray.answers[ray.hired[0], "arrive"] = Arrival("node0")
    backend.wait(0)
    assert not backend.has_room(Request(cores=3))
    ray.answers[ray.hired[0], "run"] = Ended(job, "ended"), False
    backend.wait(0)
    assert backend.has_room(Request(cores=3))
    assert ray.killed == ray.hired


def test_who_is_asked_to_stop_stops(
    made_up: Callable[..., tuple[RayBackend, Ray]], tiny: MakeTrial, tmp_path: Path
) -> None:
    """A trial that runs is told; one whose worker is not up yet is over."""
    backend, ray = made_up(2, node(0, 2))
    jobs = [job_of(tiny(seed=seed), tmp_path) for seed in range(2)]
    for job in jobs:
        backend.submit(job, Request())
    up, late = ray.hired
    ray.answers[up, "arrive"] = Arrival("node0")
    backend.wait(0)
    backend.stop()
    assert up.asked == ["arrive", "run", "stop"]
    assert ray.killed == [late]
    assert [(over.job, over.how) for over in backend.wait(0)] == [(jobs[1], "stopped")]
    ray.answers[up, "run"] = Ended(jobs[0], "stopped"), False
    assert [(over.job, over.how) for over in backend.wait(0)] == [(jobs[0], "stopped")]


# A worker


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """One in this process, which Ray gave two GPUs."""
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": ["3", "5"]})
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    monkeypatch.setenv("MMBENCH_DATA", "/of/the/node")
    monkeypatch.setenv("MMBENCH_WEIGHTS", "")
    monkeypatch.delenv("MMBENCH_WEIGHTS")
    return Worker({"MMBENCH_DATA": "/of/the/run", "MMBENCH_WEIGHTS": "/of/the/run"})


def test_what_a_node_says_of_data_and_weights_counts_more_than_what_the_run_says(worker: Worker) -> None:
    assert os.environ["MMBENCH_DATA"] == "/of/the/node"
    assert os.environ["MMBENCH_WEIGHTS"] == "/of/the/run"


def test_a_worker_has_the_gpus_that_ray_gave_it(worker: Worker) -> None:
    assert worker._local.devices == ["3", "5"]


@pytest.mark.parametrize("text", [None, "of another run"])
def test_a_worker_that_does_not_see_the_store_says_so(worker: Worker, text: str | None, tmp_path: Path) -> None:
    worker._local.start = lambda: None  # type: ignore[method-assign]
    if text:
        (tmp_path / "proof").write_text(text)
    mistake = worker.arrive({}, str(tmp_path / "proof"), "of this run").mistake
    assert mistake == f"does not see this run's {tmp_path}: --results has to be on a file system that all nodes share"


# On a cluster

NICE = """
import os
from mmbench.runner.cluster import import_ray, start_local
from mmbench.runner.local import local_backend

class Asked:
    def niceness(self):
        return os.nice(0)

ray = import_ray()
start_local(ray, local_backend("cpu", 1, 1))
print(ray.get(ray.remote(Asked).remote().niceness.remote(), timeout=300) - os.nice(0))
ray.shutdown()
"""


@pytest.mark.slow
def test_trials_on_a_cluster_of_the_runs_own_have_the_same_part_of_a_busy_machine_as_without() -> None:
    answer = subprocess.run([sys.executable, "-c", NICE], capture_output=True, text=True, check=True)
    assert answer.stdout == "0\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node with two cores and a made-up GPU."""
    import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False},
    )
    yield made
    made.shutdown()


def backend_on(cluster: Any, store: Store, devices: str, jobs: int | None = None) -> RayBackend:
    return RayBackend(cluster.address, devices, jobs, 1, store.root, Codes().core_modules)


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused_by_name(cluster: Any, tiny: MakeTrial, tmp_path: Path) -> None:
    backend = RayBackend(cluster.address, "cpu", 1, 1, tmp_path, {"mmbench.training": "0", "mmbench.gone": "1"})
    try:
        with pytest.raises(RunnerError, match=r"the worker on \S+ has other code .*\(mmbench.gone, mmbench.training\)"):
            run_trials([tiny()], Store(tmp_path), backend, Watcher())
    finally:
        backend.close()
    assert Store(tmp_path).record(tiny().key) is None, "no record of a failure"


class Known(Memory):
    """It is known what trials take of a GPU; else the first of a kind would have it alone."""

    def of_gpu(self, trial: Trial, devices: int = 1) -> float:
        return 100.0


@pytest.mark.slow
def test_two_trials_share_a_gpu(cluster: Any, tiny: MakeTrial, tmp_path: Path) -> None:
    """A made-up one, so that the trials fail; their records say which one they were given."""
    trials, store, view = [tiny(seed=seed) for seed in range(4)], Store(tmp_path), Watcher()
    backend = backend_on(cluster, store, "auto", jobs=2)
    try:
        assert backend.capacity().share == 0.5
        records = run_trials(trials, store, backend, view, memory=Known())
        assert [record.environment["device"] for record in records] == ["0"] * 4
        assert view.most == 2
    finally:
        backend.close()


@pytest.mark.slow
@pytest.mark.skipif(
    "MMBENCH_TEST_NODES" not in os.environ, reason="its time depends on the machine: set MMBENCH_TEST_NODES to run it"
)
def test_when_a_node_goes_away_the_grid_ends_complete(
    cluster: Any, tiny: MakeTrial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trial that ran there runs again elsewhere, and no other one does."""
    other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    trials, store = [tiny("tiny_sleeps", seed, epochs=28) for seed in range(5)], Store(tmp_path)
    backend = backend_on(cluster, store, "cpu")
    removed: list[str] = []

    class Removing(Watcher):
        began: dict[str, float] = {}

        def started(self, trial: Trial) -> None:
            super().started(trial)
            self.began[trial.label] = time.monotonic()

        def tick(self) -> None:
            """Remove the node while a trial there has most of its time before it."""
            there = [worker for worker in backend.workers if worker.node == other.node_id]
            if removed or not there or not there[0].arrived or there[0].task is None:
                return
            label = there[0].task[0].trial.label
            if time.monotonic() - self.began.get(label, 0.0) < 2:
                removed.append(label)
                cluster.remove_node(other, allow_graceful=False)

    view = Removing()
    try:
        assert backend.capacity().jobs == 3
        records = run_trials(trials, store, backend, view)
    finally:
        backend.close()
    assert {record.status for record in records} == {"done"}
    assert sorted(record.key for record in records) == sorted(trial.key for trial in trials)
    assert [label for kind, label in view.events if kind == "retried"] == removed
    assert len(removed) == 1
    assert "went away" in view.reasons[0] or "died" in view.reasons[0]
    assert [kind for kind, _ in view.events].count("started") == len(trials) + 1
    assert not list(store.root.glob(".shared-*"))
    assert capsys.readouterr().out == ""
