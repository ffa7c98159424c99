"""The local runner, through real processes: what a trial's process may do, and what the others do not notice of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmbench.errors import Interrupted, UsageError
from mmbench.record import Record
from mmbench.runner.local import LocalBackend, local_backend, other_server, start_server
from mmbench.runner.loop import RETRIES, run_trials
from mmbench.store import Store
from mmbench.trial import Trial

MakeTrial = Callable[..., Trial]


class Watcher:
    """A view that remembers what it was told, and may act on it."""

    def __init__(
        self,
        on_started: Callable[[Trial], None] = lambda trial: None,
        on_busy: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self.events: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.running = 0
        self.most = 0
        self.on_started, self.on_busy = on_started, on_busy

    def started(self, trial: Trial) -> None:
        self.events.append(("started", trial.label))
        self.running += 1
        self.most = max(self.most, self.running)
        self.on_started(trial)

    def retried(self, trial: Trial, reason: str) -> None:
        self.events.append(("retried", trial.label))
        self.reasons.append(reason)
        self.running -= 1

    def finished(self, trial: Trial, record: Record) -> None:
        self.events.append((record.status, trial.label))
        self.running -= 1

    def elsewhere(self, trial: Trial, record: Record | None) -> None:
        self.events.append(("busy" if record is None else f"{record.status} elsewhere", trial.label))
        if record is None:
            self.on_busy(trial)

    def stops(self, reason: str) -> None:
        self.events.append(("stops", reason))

    def tick(self) -> None:
        pass


def cpu(jobs: int) -> LocalBackend:
    return LocalBackend(jobs)


def run(trials: Sequence[Trial], store: Store, jobs: int = 2, view: Watcher | None = None) -> dict[str, Record]:
    """Run trials; their records by method and seed."""
    records = run_trials(trials, store, cpu(jobs), view or Watcher(), source={"commit": "c0ffee"})
    assert sorted(r.key for r in records) == sorted(t.key for t in trials)
    return {f"{r.trial.method} {r.trial.seed}": r for r in records}


# Results


@pytest.fixture(scope="module")
def both(tiny: MakeTrial, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store, list[Trial], list[Watcher]]:
    """The same four trials, one at a time and two at a time."""
    trials = [tiny("tiny_good", 0), tiny("mla", 0, epochs=3), tiny("tiny_good", 1, "legacy"), tiny("qmf", 1)]
    stores = [Store(tmp_path_factory.mktemp(f"jobs{jobs}")) for jobs in (1, 2)]
    views = [Watcher(), Watcher()]
    for jobs, store, view in zip((1, 2), stores, views, strict=True):
        run(trials, store, jobs, view)
    return stores[0], stores[1], trials, views


def test_predictions_do_not_depend_on_the_number_of_jobs(both: tuple[Store, Store, list[Trial], list[Watcher]]) -> None:
    alone, together, trials, _ = both
    files = [[(s.folder(t.key) / "predictions.npz").read_bytes() for t in trials] for s in (alone, together)]
    assert files[0] == files[1], "bit for bit"
    assert len(set(files[0])) == len(trials), "different trials predict differently"


def test_records_agree_but_for_times(both: tuple[Store, Store, list[Trial], list[Watcher]]) -> None:
    alone, together, trials, _ = both
    times = {"started", "finished", "seconds", "memory_mb"}
    for trial in trials:
        first, second = alone.done(trial.key), together.done(trial.key)
        assert first is not None
        assert second is not None
        assert first.model_dump(exclude=times) == second.model_dump(exclude=times)


def test_as_many_trials_run_at_a_time_as_there_are_slots(both: tuple[Store, Store, list[Trial], list[Watcher]]) -> None:
    *_, views = both
    assert [view.most for view in views] == [1, 2]
    assert all(sum(kind == "done" for kind, _ in view.events) == 4 for view in views)


def test_a_record_tells_where_its_numbers_come_from(both: tuple[Store, Store, list[Trial], list[Watcher]]) -> None:
    store, _, trials, _ = both
    record = store.done(trials[1].key)
    assert record is not None
    assert record.trial == trials[1]
    assert {"python", "torch", "pytorch-lightning", "platform", "cpu", "threads"} <= set(record.environment)
    assert (record.environment["threads"], record.environment["device"]) == (1, "cpu")
    assert record.environment["commit"] == "c0ffee"
    assert set(record.seconds) == {"build", "fit", "test"}
    assert record.memory_mb is not None
    assert record.memory_mb < 2048
    assert set(record.metrics) == {"left", "right", "left+right"}
    assert len(record.curves) == 3
    assert all({"train/loss", "validation/accuracy"} <= set(row) for row in record.curves)
    assert record.best_epoch is not None
    assert {"validation/accuracy/left", "validation/accuracy/right"} <= set(record.curves[record.best_epoch])
    accuracies = [row["validation/accuracy"] for row in record.curves]
    assert record.best_epoch is not None
    assert accuracies[record.best_epoch] == max(accuracies)


def test_the_log_is_the_trials_own(
    both: tuple[Store, Store, list[Trial], list[Watcher]], capfd: pytest.CaptureFixture[str]
) -> None:
    store, _, trials, _ = both
    for trial in trials:
        text = store.log(trial.key).read_text()
        assert f"{trial.label} ({trial.key}), 1 threads on cpu" in text
        assert text.rstrip().endswith("done")
        assert sum(other.label in text for other in trials) == 1
    assert "threads on cpu" not in capfd.readouterr().out


def test_nothing_but_the_five_files_is_left(both: tuple[Store, Store, list[Trial], list[Watcher]]) -> None:
    for store in both[:2]:
        for trial in both[2]:
            assert sorted(p.name for p in store.folder(trial.key).iterdir()) == [
                "features.npz",
                "lock",
                "log.txt",
                "predictions.npz",
                "record.json",
            ]


@pytest.mark.slow
def test_predictions_on_the_shipped_data_do_not_depend_on_the_number_of_jobs(tmp_path: Path) -> None:
    from mmbench.experiment.plan import expand

    grid = {
        "title": "t",
        "datasets": {"openclipart": {"recipe": {"epochs": 2, "lr": 0.1}}},
        "methods": {"late_fusion": None, "ogm_ge": None, "mla": None},
        "seeds": [0],
    }
    trials = expand(grid).trials
    found = []
    for jobs in (1, 2):
        store = Store(tmp_path / str(jobs))
        run(trials, store, jobs)
        found.append([(store.folder(t.key) / "predictions.npz").read_bytes() for t in trials])
    assert found[0] == found[1]


# Failures


@pytest.fixture(scope="module")
def failures(tiny: MakeTrial, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Record], Store, Watcher]:
    """A grid in which every kind of failure happens before, beside and after trials that work."""
    methods = ["tiny_raises", "tiny_good", "tiny_nan", "tiny_killed", "tiny_hungry", "tiny_killed_once", "sum"]
    store, view = Store(tmp_path_factory.mktemp("failures")), Watcher()
    records = run([tiny(m) for m in methods], store, view=view)
    return {name.split()[0]: record for name, record in records.items()}, store, view


@pytest.mark.parametrize("method", ["tiny_good", "sum"])
def test_trials_beside_failing_ones_are_done(failures: tuple[dict[str, Record], Store, Watcher], method: str) -> None:
    records, store, _ = failures
    assert store.done(records[method].key) is not None


@pytest.mark.parametrize(
    ("method", "kind", "message"),
    [
        ("tiny_raises", "exception", "ValueError: broken on purpose"),
        ("tiny_nan", "diverged", "the training loss is nan in epoch 1 (lr 0.1); a lower recipe.lr"),
        ("tiny_hungry", "out_of_memory", "1152921504606846976 bytes"),
        ("tiny_killed", "killed", "SIGKILL"),
    ],
)
def test_a_failure_is_a_record_of_its_kind(
    failures: tuple[dict[str, Record], Store, Watcher], method: str, kind: str, message: str
) -> None:
    records, store, _ = failures
    record = store.record(records[method].key)
    assert record == records[method]
    assert record is not None
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.kind == kind
    assert message in record.failure.message
    assert record.environment["commit"] == "c0ffee"
    assert record.metrics == {}
    assert store.done(record.key) is None


@pytest.mark.parametrize("method", ["tiny_raises", "tiny_nan", "tiny_hungry"])
def test_a_failure_has_its_traceback_in_record_and_log(
    failures: tuple[dict[str, Record], Store, Watcher], method: str
) -> None:
    records, store, _ = failures
    failure = records[method].failure
    assert failure is not None
    assert failure.traceback.startswith("Traceback")
    assert failure.message.splitlines()[0] in failure.traceback
    assert failure.traceback.splitlines()[-1] in store.log(records[method].key).read_text()


def test_a_trial_that_fails_by_itself_is_not_started_again(failures: tuple[dict[str, Record], Store, Watcher]) -> None:
    _, _, view = failures
    for method in ("tiny_raises", "tiny_nan"):
        assert [kind for kind, label in view.events if f" {method} " in label] == ["started", "failed"]


def test_a_trial_that_runs_out_of_memory_beside_others_is_started_once_again(
    failures: tuple[dict[str, Record], Store, Watcher],
) -> None:
    _, _, view = failures
    assert [kind for kind, label in view.events if " tiny_hungry " in label] == [
        "started",
        "retried",
        "started",
        "failed",
    ]
    assert "out of memory beside others: now without them" in view.reasons


def test_a_killed_trial_is_started_again_and_done(failures: tuple[dict[str, Record], Store, Watcher]) -> None:
    records, store, view = failures
    events = [kind for kind, label in view.events if " tiny_killed_once " in label]
    assert events == ["started", "retried", "started", "done"]
    assert store.done(records["tiny_killed_once"].key) is not None
    assert "SIGKILL" in view.reasons[0]


def test_a_trial_that_is_always_killed_is_given_up(failures: tuple[dict[str, Record], Store, Watcher]) -> None:
    records, _, view = failures
    assert RETRIES == 2
    events = [kind for kind, label in view.events if " tiny_killed " in label]
    assert events == ["started", "retried"] * 2 + ["started", "failed"]
    failure = records["tiny_killed"].failure
    assert failure is not None
    assert failure.message.endswith("3 times")
    assert "about to be killed" in failure.traceback, "the end of its log"


def test_failed_trials_run_again_and_may_succeed(
    failures: tuple[dict[str, Record], Store, Watcher], tiny: MakeTrial
) -> None:
    """A record of a failure is never in the way of the next attempt, nor does it survive one that succeeds."""
    _, store, _ = failures
    trial = tiny("tiny_good", seed=77)
    record = Record(key=trial.key, trial=trial, status="failed", started="", finished="", environment={})
    store.write(record)
    again = run([trial], store)["tiny_good 77"]
    assert again.status == "done"
    assert store.done(trial.key) == again


def test_changed_data_are_noticed_by_the_trial(tiny: MakeTrial, tmp_path: Path) -> None:
    trial = tiny().model_copy(update={"data": "tiny-0"})
    failure = run([trial], Store(tmp_path))["tiny_good 0"].failure
    assert failure is not None
    for part in ("'tiny'", "changed", "planned with tiny-0", "tiny-1"):
        assert part in failure.message


# Two runs at once


def test_a_trial_that_another_run_is_at_is_not_run_twice(tiny: MakeTrial, tmp_path: Path) -> None:
    """The other run holds the lock, finishes, and frees it: its result is taken as it is."""
    trial, store = tiny(), Store(tmp_path / "runs")
    (theirs,) = run([trial], Store(tmp_path / "theirs")).values()
    predictions = Store(tmp_path / "theirs").predictions(theirs)
    theirs.environment = {"commit": "another run"}
    free = threading.Event()

    def hold(ready: threading.Event) -> None:
        with store.lock(trial.key):
            ready.set()
            free.wait(timeout=30)
            time.sleep(0.5)  # the other run looks at it again and again
            store.write(theirs, predictions)

    ready = threading.Event()
    holder = threading.Thread(target=hold, args=(ready,))
    holder.start()
    try:
        assert ready.wait(timeout=10)
        (record,) = run([trial], store, view=Watcher(on_busy=lambda _: free.set())).values()
    finally:
        free.set()
        holder.join()
    assert record.environment == {"commit": "another run"}


def test_a_trial_that_another_run_has_just_finished_keeps_its_result(tiny: MakeTrial, tmp_path: Path) -> None:
    """It came in after the list of what is missing was made; a run that discards it may be killed before it has it again."""
    trial, store = tiny(), Store(tmp_path / "runs")
    (theirs,) = run([trial], Store(tmp_path / "theirs")).values()
    theirs.environment = {"commit": "another run"}
    store.write(theirs, Store(tmp_path / "theirs").predictions(theirs))
    (record,) = run([trial], store).values()
    assert record.environment == {"commit": "another run"}


# Ending


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_and_keeps_what_is_finished(tiny: MakeTrial, tmp_path: Path, name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    trials = [tiny("tiny_good"), tiny("tiny_sleeps", epochs=1000), tiny("tiny_good", 1)]
    store = Store(tmp_path)
    sent = time.monotonic()

    def end_the_run(trial: Trial) -> None:
        nonlocal sent
        if trial == trials[2]:  # the first is finished, the second asleep
            sent = time.monotonic()
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(Interrupted) as interrupt:
        run_trials(trials, store, cpu(2), Watcher(end_the_run))
    assert time.monotonic() - sent < 10
    assert interrupt.value.signum == getattr(signal, name)
    assert store.done(trials[0].key) is not None
    assert store.record(trials[1].key) is None, "half a trial is no result"
    assert signal.getsignal(getattr(signal, name)) == before
    assert not any(p.is_alive() for p in multiprocessing.active_children())


def test_a_trial_that_gets_sigterm_is_no_result(tiny: MakeTrial, tmp_path: Path) -> None:
    """Lightning answers SIGTERM by ending the fit as if all were well; what it has by then must not pass for a result."""
    trial, store = tiny("tiny_sleeps", epochs=4), Store(tmp_path)  # 16 steps of 0.05 s
    log = store.log(trial.key)

    def terminate() -> None:
        (process,) = multiprocessing.active_children()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (log.exists() and log.read_text().count("asleep") > 6):
            time.sleep(0.01)
        process.terminate()

    view = Watcher()
    view.on_started = lambda _: threading.Thread(target=terminate).start() if len(view.events) == 1 else None
    (record,) = run([trial], store, view=view).values()
    assert [kind for kind, _ in view.events] == ["started", "retried", "started", "done"]
    assert len(record.curves) == 4


# Devices


@pytest.mark.parametrize(
    ("cores", "arguments", "expected"),
    [
        (8, ("cpu", None, None), (["cpu"], 8, 1)),
        (8, ("cpu", 2, None), (["cpu"], 2, 4)),
        (8, ("cpu", 3, None), (["cpu"], 3, 2)),
        (2, ("cpu", 4, None), (["cpu"], 4, 1)),
        (8, ("cpu", 2, 3), (["cpu"], 2, 3)),
        (8, ("0,1", None, None), (["0", "1"], 2, 4)),
        (8, ("0, 1", 4, None), (["0", "1"], 4, 2)),
        (8, ("0", 3, None), (["0"], 3, 2)),
    ],
)
def test_options_share_out_devices_and_threads(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    arguments: tuple[str, int | None, int | None],
    expected: tuple[list[str], int, int],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    backend = local_backend(*arguments)
    capacity = backend.capacity()
    assert (backend.devices, capacity.jobs, capacity.cores) == expected
    assert capacity.gpus == (0 if expected[0] == ["cpu"] else len(expected[0]))


@pytest.mark.parametrize(("gpus", "expected"), [(0, ["cpu"]), (2, ["0", "1"])])
def test_automatic_devices_are_the_gpus_or_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, expected: list[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert local_backend("auto", None, None).devices == expected


@pytest.mark.parametrize("devices", ["", "gpu0", "cuda:0", "0,,1", "-1", "7", "cpu,0"])
def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, devices: str) -> None:
    """Once: any text was taken, and then every trial failed on it."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UsageError, match="devices"):
        local_backend(devices, None, None)


def test_threads_are_what_is_asked_for(tiny: MakeTrial, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for threads, trial in ((1, tiny(seed=1)), (2, tiny(seed=2))):
        (record,) = run_trials([trial], store, LocalBackend(1, threads), Watcher())
        assert record.environment["threads"] == threads
        assert f"torch uses {threads} threads" in store.log(trial.key).read_text()


def test_another_server_has_variables_of_its_own_for_the_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMBENCH_ONE", "before")

    def sees(one: str, other: str) -> bool:
        test = f'[ "$MMBENCH_ONE" = "{one}" ] && [ "$MMBENCH_OTHER" = "{other}" ]'
        process = start_server().Process(target=os.execlp, args=("sh", "sh", "-c", test))
        process.start()
        process.join()
        return process.exitcode == 0

    with other_server(MMBENCH_ONE="1", MMBENCH_OTHER="2"):
        assert sees("1", "2")
    assert os.environ["MMBENCH_ONE"] == "before"
    assert "MMBENCH_OTHER" not in os.environ
    assert sees("before", "")
    monkeypatch.setenv("MMBENCH_ONE", "after")
    assert sees("before", "")  # as it was started
    monkeypatch.setenv("MMBENCH_WEIGHTS", "other")
    assert sees("after", "")  # by another one: trials read other folders now
