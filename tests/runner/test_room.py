"""Which trials run beside each other: on simulated GPUs and machines, whose memory is made up, and whose processes are none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_local import MakeTrial, Watcher
from test_loop import Played, record

from mmbench import gpus, machine
from mmbench.record import Record
from mmbench.runner import local, loop
from mmbench.runner.backend import Ended, Request
from mmbench.runner.child import Job
from mmbench.runner.local import ASSUMED_MB, LocalBackend
from mmbench.runner.loop import run_trials
from mmbench.runner.memory import CONTEXT_MB, Memory
from mmbench.store import Store
from mmbench.trial import Trial


class Process:
    """A process that ends when it is told to, and then leaves a record of what it took."""

    pid = None
    exitcode = 0
    begun: list[Process] = []

    def __init__(self, target: object, args: tuple[Job]) -> None:
        (self.job,) = args
        self.sentinel, self._end = os.pipe()
        Process.begun.append(self)

    def start(self) -> None:
        pass

    def end(self, memory_mb: float, **more: Any) -> None:
        one = record(self.job.trial, **{"memory_mb": 500.0, "gpu_memory_mb": memory_mb, **more})
        Store(self.job.root).write(one)
        os.close(self._end)
        Process.begun.remove(self)

    def join(self, timeout: float | None = None) -> None:
        os.close(self.sentinel)

    def kill(self) -> None:
        Process.begun.remove(self)


class Context:
    """A fork server that starts such processes."""

    Process = Process


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """GPUs, or "host" -> MB that are free; processes take nothing of it."""
    free: dict[str, float | None] = {"0": 10_000, "1": 10_000, "host": 100_000}
    monkeypatch.setattr(local, "start_server", Context)
    monkeypatch.setattr(local, "server_pid", lambda: None)
    monkeypatch.setattr(local, "free_mb", lambda name: free[name])
    monkeypatch.setattr(local, "available_mb", lambda: free["host"])
    monkeypatch.setattr(loop, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(Process, "begun", [])
    return free


@pytest.fixture
def trials(tiny: MakeTrial) -> Callable[..., list[Trial]]:
    def make(count: int, method: str = "tiny_good") -> list[Trial]:
        return [tiny(method, seed).model_copy(update={"tuning": True}) for seed in range(count)]

    return make


class Story(Watcher):
    """Ends processes, the longest running first, whenever the loop waits; notes who runs beside whom, by seeds and devices."""

    def __init__(self, memory_mb: dict[str, float], **first: Any) -> None:
        super().__init__()
        self.memory_mb, self.first = memory_mb, first  # of a method; what the first process's record says besides
        self.beside: list[list[tuple[int, str]]] = []
        self.ended = 0

    def tick(self) -> None:
        seen, self.ended = self.ended, sum(kind in ("done", "failed", "retried") for kind, _ in self.events)
        if Process.begun and seen == self.ended:  # else there may be room for others first
            self.beside.append([(p.job.trial.seed, p.job.device) for p in Process.begun])
            one = Process.begun[0]
            one.end(self.memory_mb[one.job.trial.method], **self.first)
            self.first = {}


def run(trials: list[Trial], folder: Path, backend: LocalBackend, view: Story) -> list[Record]:
    records = run_trials(trials, Store(folder / "runs"), backend, view)
    assert sorted(r.key for r in records) == sorted(t.key for t in trials)
    return records


# GPUs


def test_the_first_of_a_kind_has_a_gpu_alone_and_the_next_fill_it_by_what_it_took(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    """3,000 MB, a tenth more and CUDA's context are 3,900 MB: two in 10,000, although three are allowed."""
    view = Story({"tiny_good": 3000})
    run(trials(5), tmp_path, LocalBackend(3, 1, ["0"]), view)
    assert [[seed for seed, _ in now] for now in view.beside] == [[0], [1, 2], [2, 3], [3, 4], [4]]


def test_two_gpus_have_a_first_one_each_and_are_filled_evenly(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    view = Story({"tiny_good": 1000})
    run(trials(7), tmp_path, LocalBackend(4, 1, ["0", "1"]), view)
    assert view.beside[0] == [(0, "0"), (1, "1")]
    assert max(len(now) for now in view.beside) == 4
    for now in view.beside[1:]:
        assert all(sum(device == one for _, device in now) <= 2 for one in "01"), "as many as were asked for"


def test_another_kind_waits_until_a_gpu_is_empty(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    both = trials(3) + [t.model_copy(update={"seed": t.seed + 10}) for t in trials(2, "concat")]
    view = Story({"tiny_good": 1000, "concat": 2000})
    run(both, tmp_path, LocalBackend(4, 1, ["0"]), view)
    assert [[seed for seed, _ in now] for now in view.beside] == [[0], [1, 2], [2], [10], [11]]


def test_records_that_are_there_count_as_measurements(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    memory = Memory()
    *todo, done = trials(4)
    memory.learn(record(done, gpu_memory_mb=1000.0))
    view = Story({"tiny_good": 1000})
    run_trials(todo, Store(tmp_path), LocalBackend(3, 1, ["0"]), view, memory=memory)
    assert len(view.beside[0]) == 3


def test_a_gpu_whose_memory_nobody_tells_is_shared_by_number_alone(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    simulated["0"] = None
    view = Story({"tiny_good": 9000})
    run(trials(3), tmp_path, LocalBackend(3, 1, ["0"]), view)
    assert len(view.beside[0]) == 3


def test_a_trial_on_two_gpus_takes_a_place_on_both_and_three_are_refused_in_words(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    view, todo = Story({"tiny_good": 1000}), trials(3)
    devices = {todo[1].key: 2}
    store = Store(tmp_path / "runs")
    run_trials(todo, store, LocalBackend(2, 1, ["0", "1"]), view, devices_of=lambda trial: devices.get(trial.key, 1))
    assert view.beside == [[(0, "0")], [(1, "0,1")], [(2, "0")]]
    with pytest.raises(ValueError, match="a trial asks for 3 devices; --devices has 2"):
        run_trials(todo, Store(tmp_path / "3"), LocalBackend(2, 1, ["0", "1"]), view, devices_of=lambda trial: 3)


def test_out_of_memory_beside_others_runs_once_again_alone(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    memory, store, (*todo, done) = Memory(), Store(tmp_path / "runs"), trials(4)
    memory.learn(record(done, gpu_memory_mb=1000.0))
    failed = {"status": "failed", "failure": {"kind": "out_of_memory", "message": "CUDA out of memory"}}
    view = Story({"tiny_good": 1000}, **failed)
    records = run_trials(todo, store, LocalBackend(3, 1, ["0"]), view, memory=memory)
    assert [[seed for seed, _ in now] for now in view.beside] == [[0, 1, 2], [1, 2], [2], [0]]
    assert view.reasons == ["out of memory beside others: now without them"]
    assert {r.status for r in records} == {"done"}
    # Alone, it has failed for good.
    view = Story({"tiny_good": 1000}, **failed)
    (record_,) = run_trials(todo[:1], Store(tmp_path / "alone"), LocalBackend(3, 1, ["0"]), view)
    assert (record_.status, view.reasons) == ("failed", [])


# The machine


def test_a_machine_with_little_memory_runs_fewer_at_a_time(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    """Of a kind that is not known, as many as have 2 GB; then by the 500 MB, and a tenth, that one has taken."""
    simulated["host"] = 2.5 * ASSUMED_MB
    view = Story({"tiny_good": 0})
    run(trials(16), tmp_path, LocalBackend(16), view)
    assert len(view.beside[0]) == 2
    assert max(len(now) for now in view.beside) == int((2.5 * ASSUMED_MB) // 550)


@pytest.mark.parametrize("free", [100_000, None])
def test_with_plenty_of_memory_or_where_the_system_does_not_tell_all_start_at_once(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path, free: float | None
) -> None:
    simulated["host"] = free
    view = Story({"tiny_good": 0})
    run(trials(16), tmp_path, LocalBackend(16), view)
    assert len(view.beside[0]) == 16


def test_one_trial_runs_however_little_memory_there_is(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    simulated["host"] = 1
    view = Story({"tiny_good": 0})
    run(trials(3), tmp_path, LocalBackend(16), view)
    assert [len(now) for now in view.beside] == [1, 1, 1]


def test_what_running_processes_have_is_not_set_aside_twice(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's number is what is left after them: only what they are still to take is kept for them."""
    simulated["host"] = 1000
    backend, request = LocalBackend(4), Request(memory_mb=900)
    backend.start()
    backend.submit(Job(trials(1)[0], "nowhere"), request)
    assert not backend.has_room(request)
    monkeypatch.setattr(local, "resident_mb", lambda pid, kind="RssAnon": 850.0 if kind == "RssAnon" else 0.0)
    assert backend.has_room(request)
    backend.running.clear()


def test_what_every_process_of_a_running_trial_has_is_counted(
    simulated: dict[str, float | None], trials: Callable[..., list[Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 and the three that it has forked have taken all that they will, so all that is left is for others."""
    has = {10: 850.0, 11: 850.0, 12: 850.0, 13: 850.0}
    monkeypatch.setattr(local, "resident_mb", lambda pid, kind="RssAnon": has.get(pid, 0) if kind == "RssAnon" else 0)
    monkeypatch.setattr(local, "children", lambda pid: {10: [11, 12, 13]}[pid])
    monkeypatch.setattr(Process, "pid", 10)
    backend = LocalBackend(8)
    backend.start()
    backend.submit(Job(trials(1)[0], "nowhere"), Request(devices=4, memory_mb=900.0))
    simulated["host"] = 900 + 4 * 50
    assert backend.has_room(Request(memory_mb=900.0))
    has[13] = 0.0
    assert not backend.has_room(Request(memory_mb=900.0))
    backend.running.clear()


@pytest.mark.parametrize(("memory_mb", "room"), [(None, 2 * ASSUMED_MB), (450.0, 700.0)])
def test_a_trial_of_two_processes_takes_what_both_take(
    simulated: dict[str, float | None],
    trials: Callable[..., list[Trial]],
    monkeypatch: pytest.MonkeyPatch,
    memory_mb: float | None,
    room: float,
) -> None:
    """Either has the 100 MB of libraries that all share."""
    monkeypatch.setattr(local, "resident_mb", lambda pid, kind="RssAnon": 100.0 if kind == "RssFile" else 0.0)
    backend, request = LocalBackend(4), Request(devices=2, memory_mb=memory_mb)
    backend.start()
    simulated["host"] = None
    backend.submit(Job(trials(1)[0], "nowhere"), Request(memory_mb=0.0))
    for free, expected in ((room, True), (room - 1, False)):
        simulated["host"] = free
        assert backend.has_room(request) == expected
    backend.running.clear()


def test_a_killed_trial_has_no_neighbours_the_last_time(trials: Callable[..., list[Trial]], tmp_path: Path) -> None:
    backend = Played(lambda job: Ended(job, "killed", "killed by SIGKILL", shared=True))
    run_trials(trials(1), Store(tmp_path), backend, Watcher())
    assert [request.alone for _, request in backend.submitted] == [False, False, True]


def test_memory_is_that_of_the_hungriest_of_a_kind_and_a_tenth(trials: Callable[..., list[Trial]]) -> None:
    memory, (one, other, third) = Memory(), trials(3)
    assert (memory.of_host(one), memory.of_gpu(one)) == (None, None)
    memory.learn(record(one, memory_mb=1000.0, gpu_memory_mb=100.0))
    memory.learn(record(other, memory_mb=900.0))
    memory.learn(record(other, "failed", memory_mb=9000.0, gpu_memory_mb=9000.0))
    assert memory.of_host(third) == pytest.approx(1100)
    assert memory.of_gpu(third) == pytest.approx(110 + CONTEXT_MB)
    batch = one.recipe.model_copy(update={"batch_size": 32})
    assert memory.of_host(one.model_copy(update={"recipe": batch})) is None


def test_what_a_trial_on_four_devices_took_says_what_a_process_takes_and_nothing_of_a_gpu_alone(
    trials: Callable[..., list[Trial]],
) -> None:
    """A record has the sum of the processes' memory, and of the GPUs the first one's, on which a quarter of the batch was."""
    memory, (one, other, third) = Memory(), trials(3)
    memory.learn(record(one, memory_mb=4000.0, gpu_memory_mb=300.0, environment={"devices": 4}))
    assert memory.of_host(third) == pytest.approx(1100)
    assert [memory.of_gpu(third, devices) for devices in (1, 2)] == [None, None]
    memory.learn(record(other, memory_mb=900.0, gpu_memory_mb=1000.0, environment={"devices": "two"}))
    assert memory.of_host(third) == pytest.approx(1100)
    expected = [1100 + CONTEXT_MB, 330 + CONTEXT_MB]
    assert [memory.of_gpu(third, devices) for devices in (1, 4)] == pytest.approx(expected)


def test_the_loop_asks_for_what_one_process_took_where_records_are_of_several(
    trials: Callable[..., list[Trial]], tmp_path: Path
) -> None:
    memory, (done, todo) = Memory(), trials(2)
    memory.learn(record(done, memory_mb=2000.0, environment={"devices": 2}))
    backend = Played()
    run_trials([todo], Store(tmp_path), backend, Watcher(), memory=memory, devices_of=lambda trial: 2)
    ((_, request),) = backend.submitted
    assert (request.devices, request.memory_mb) == (2, pytest.approx(1100))


# What there is


def test_a_containers_limit_counts_if_it_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine.available_mb()
    assert whole is not None
    for version, names in (
        (1, ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
        (2, ("memory.max", "memory.current", "inactive_file")),
    ):
        group = tmp_path / str(version)
        group.mkdir()
        (group / names[0]).write_text(f"{5 * 2**20}\n")
        (group / names[1]).write_text(f"{4 * 2**20}\n")
        (group / "memory.stat").write_text(f"anon 7\n{names[2]} {2 * 2**20}\n")
        monkeypatch.setattr(machine, "_control_groups", lambda group=group: [tmp_path, group])
        assert machine.available_mb() == 3
        (group / names[0]).write_text("max\n")
        assert machine.available_mb() == pytest.approx(whole, rel=0.5)


def test_what_a_process_has_is_read_from_the_system() -> None:
    assert machine.resident_mb(os.getpid()) > 10
    assert machine.resident_mb(os.getpid(), "RssFile") > 1
    assert machine.resident_mb(None) == 0


def test_the_processes_that_one_has_started_are_read_from_the_system() -> None:
    assert machine.children(None) == []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process.pid in machine.children(os.getpid())
        process.communicate(b"\n")
    assert process.pid not in machine.children(os.getpid())


class Nvml:
    """NVIDIA's library, of two GPUs that have 7 and 9 MB left."""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = index + 1
        return 0 if index < 2 else 2

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        handle._obj.value = 2
        return 0 if name == b"GPU-b" else 2

    def nvmlDeviceGetMemoryInfo(self, handle: Any, found: Any) -> int:
        found._obj.free = {1: 7, 2: 9}.get(handle.value, 0) * 2**20
        return 0


def test_what_a_gpu_has_left_is_nvmls_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda name: Nvml())
    assert [gpus.free_mb(name) for name in ("0", "1", "2", "GPU-b", "GPU-c")] == [7, 9, None, 9, None]

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(gpus.ctypes, "CDLL", missing)
    assert gpus.free_mb("0") is None
