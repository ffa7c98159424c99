"""What is not a trial's fault: a fork server that dies, and a disk that takes nothing more."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from itertools import pairwise
from multiprocessing import forkserver
from pathlib import Path

import pytest
from test_local import MakeTrial, Watcher, cpu, run

from mmbench.errors import Interrupted, NotedSignals, RunnerError, StoreError, raise_on_signals
from mmbench.files import disk_error
from mmbench.provenance import Codes
from mmbench.record import Code
from mmbench.runner import local
from mmbench.runner.child import orphaned
from mmbench.runner.local import start_server
from mmbench.runner.loop import run_trials
from mmbench.store import Store

server = forkserver._forkserver  # type: ignore[attr-defined]


# The fork server


def test_trials_whose_server_is_killed_are_started_again_and_none_runs_twice(tiny: MakeTrial, tmp_path: Path) -> None:
    """The processes outlive the server; the ones that are started for them wait, and take what they left."""
    store, view = Store(tmp_path / "runs"), Watcher()
    (tmp_path / "alone").mkdir()
    trials = [tiny("tiny_breaks_its_server"), tiny("tiny_sleeps", 1, epochs=4), tiny("tiny_good", 2)]
    records = run(trials, store, view=view)
    assert {record.status for record in records.values()} == {"done"}
    assert any("fork server" in reason for reason in view.reasons)
    for trial in trials:
        assert store.log(trial.key).read_text().count(f"({trial.key})") == 1, "begun once"
    (again,) = run([tiny("tiny_sleeps", 1, epochs=4)], Store(tmp_path / "alone")).values()
    assert (
        Store(tmp_path / "alone").predictions(again).to_bytes()
        == store.predictions(records["tiny_sleeps 1"]).to_bytes()
    )


def test_a_server_that_is_killed_between_two_trials_is_started_again(tiny: MakeTrial, tmp_path: Path) -> None:
    start_server()
    os.kill(server._forkserver_pid, signal.SIGKILL)
    (record,) = run([tiny(seed=3)], Store(tmp_path)).values()
    assert record.status == "done"


def test_the_server_leaves_ctrl_c_to_the_runner() -> None:
    """From its first moment on: an interrupt while it imports would end it, with a traceback."""
    start_server()
    status = Path(f"/proc/{server._forkserver_pid}/status").read_text().splitlines()
    blocked = next(line.split()[1] for line in status if line.startswith("SigBlk"))
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []), "this process takes it again"


class Context:
    """A fork server that can never be reached."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.exitcode = None

    def Process(self, **_: object) -> Context:
        return self

    def start(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(), BrokenPipeError(), ConnectionRefusedError()])
def test_a_server_that_always_dies_ends_the_run_in_words(
    tiny: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As one does whose imports fail: three tries, not three for each of a thousand trials."""
    monkeypatch.setattr(local, "start_server", lambda: Context(error))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    view = Watcher()
    with pytest.raises(
        RunnerError, match=rf"died 3 times in a row, the last time with {type(error).__name__}; .*preload"
    ):
        run_trials([tiny(seed=seed) for seed in range(5)], Store(tmp_path), cpu(2), view)
    assert len(view.reasons) == 2


def test_a_new_server_must_not_run_other_code(tiny: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = [Code(core="c", method={"m": version}, data={}, encoders={}) for version in "ab"]
    monkeypatch.setattr(Codes, "of", lambda self, trial: code[self is not codes])
    codes = Codes()
    monkeypatch.setattr(local, "start_server", lambda: Context(EOFError()))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(RunnerError, match="the code of tiny clean tiny_good seed 0 has changed since it was started"):
        run_trials([tiny()], Store(tmp_path), cpu(1), Watcher(), codes=codes)


# Interrupts


DESTRUCTOR = """
class Slow:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    "code",
    [
        "try: os.kill(os.getpid(), signal.SIGINT)\n        except BaseException: raise RecursionError('numpy')",
        "try: os.kill(os.getpid(), signal.SIGINT)\n        except BaseException: pass",
        "Slow()\n        time.sleep(60)",
    ],
    ids=["another error", "nothing", "dropped by a destructor"],
)
def test_an_interrupt_counts_whatever_the_code_that_it_came_into_makes_of_it(code: str) -> None:
    program = f"""
import os, signal, time
from mmbench.errors import Interrupted, raise_on_signals
{DESTRUCTOR}
try:
    with raise_on_signals():
        {code}
except Interrupted as interrupt:
    print(interrupt)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert answer.stdout == "ended by SIGINT\n"
    assert answer.stderr == ""


@pytest.mark.parametrize("waiting", [False, True])
def test_signals_are_noted_and_raised_where_they_are_asked_for(waiting: bool) -> None:
    seen = []

    def work() -> None:
        with NotedSignals() as signals:
            signals.waiting = waiting
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("went on")

    with pytest.raises(Interrupted, match="ended by SIGINT"):
        work()
    assert seen == ([] if waiting else ["went on"])


def test_errors_without_an_interrupt_are_what_they_are() -> None:
    with pytest.raises(RecursionError), raise_on_signals():
        raise RecursionError
    with pytest.raises(Interrupted), raise_on_signals():
        raise Interrupted(signal.SIGTERM)


# Disks


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ENOSPC", "No space left on device"),
        ("EDQUOT", "quota exceeded"),
        ("EROFS", "Read-only file system"),
        ("EACCES", "Permission denied"),
        ("EIO", "Input/output error"),
        ("limit", "File too large"),
    ],
)
def test_a_disk_that_takes_nothing_more_ends_the_run_once_and_in_words(
    tiny: MakeTrial, tmp_path: Path, name: str, words: str
) -> None:
    """Once: eight trials, each "ended with exit code 1 and left no record", and on through the grid."""
    Path(os.environ["MMBENCH_TESTING_MARKER"] + "-errno").write_text(name)
    store, view = Store(tmp_path), Watcher()
    trials = [tiny("tiny_good"), *(tiny("tiny_unwritable", seed) for seed in range(6)), tiny("tiny_good", 9)]
    with pytest.raises(
        StoreError, match=rf"^no trial can be run: .*{words} \(.*\)\. .*What was finished is kept$"
    ) as error:
        run_trials(trials, store, cpu(1), view)
    assert [kind for kind, _ in view.events] == ["started", "done", "started"]
    assert store.done(trials[0].key) is not None
    assert not any(store.record(trial.key) for trial in trials[1:])
    assert ("Free some space and run again" in str(error.value)) == (name in ("ENOSPC", "EDQUOT"))


def test_a_trials_own_errors_are_not_the_disks() -> None:
    def raised(*errors: BaseException) -> BaseException:
        for error, cause in pairwise(errors):
            error.__cause__ = cause
        return errors[0]

    full = OSError(errno.ENOSPC, "full")
    assert disk_error(raised(RuntimeError(), ValueError(), full)) == errno.ENOSPC
    assert disk_error(raised(StoreError(), OSError(errno.EACCES, "no"))) == errno.EACCES
    assert disk_error(raised(StoreError(), StoreError(), OSError(errno.EIO, "no"))) == errno.EIO
    assert disk_error(raised(RuntimeError(), FileNotFoundError(errno.ENOENT, "data"))) is None
    assert disk_error(raised(RuntimeError(), PermissionError(errno.EACCES, "data"))) is None, "a file that is read"
    assert disk_error(None) is None


@pytest.mark.parametrize("error", [EOFError("Ran out of input"), ConnectionResetError(), ValueError("a fault")])
def test_a_server_says_nothing_of_a_runner_that_is_gone(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    orphaned(type(error), error, None)
    assert ("a fault" in capsys.readouterr().err) == isinstance(error, ValueError)
