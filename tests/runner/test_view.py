"""What a run shows of its progress."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmbench.missing import Missing
from mmbench.recipe import Recipe
from mmbench.record import Failure, Record
from mmbench.runner import view as module
from mmbench.runner.view import GridView, last_epoch
from mmbench.trial import Trial


class Clock:
    """Stands in for the time module: goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def trial(seed: int = 0, missing: Missing | None = None, **more: Any) -> Trial:
    return Trial(
        dataset="tiny", data="", protocol="clean", missing=missing, method="cca", seed=seed, encoders={}, params={},
        recipe=Recipe(epochs=30), **more,
    )  # fmt: skip


def done(trial: Trial, seconds: float = 0.0) -> Record:
    metrics = {"left": {"accuracy": 10.0}, "left+right": {"accuracy": 37.6}}
    curves = [{"validation/accuracy": 0.25}, {"validation/accuracy": 0.5}]
    return Record(
        key=trial.key, trial=trial, status="done", started="", finished="", environment={}, metrics=metrics,
        curves=curves, seconds={"fit": seconds} if seconds else {},
    )  # fmt: skip


def failed(trial: Trial) -> Record:
    failure = Failure(kind="exception", message="[bold]broken")
    return done(trial).model_copy(update={"status": "failed", "failure": failure})


TRIALS = [trial(seed) for seed in range(8)]


def make(terminal: bool = False, width: int = 200, **options: Any) -> tuple[GridView, Callable[[], str]]:
    """A view, and what it has written by now."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, soft_wrap=True, force_terminal=terminal, color_system=None, highlight=False
    )
    return GridView(console=console, **options), file.getvalue


def run(view: GridView, one: Trial, clock: Clock, seconds: float, end: Callable[[Trial], Record] = done) -> None:
    """A trial from its start to its end; the runner ticks about twice a second."""
    view.started(one)
    until = clock.now + seconds
    while clock.now < until:
        clock.now = min(until, clock.now + 0.5)
        view.tick()
    view.finished(one, end(one))


# Without a terminal


def test_without_a_terminal_there_is_a_line_a_minute(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS)
    with view:
        for one in TRIALS:
            run(view, one, clock, 25)
    assert written().splitlines() == [
        "2/8 trials, 1 running, 1:00 elapsed, about 2:20 left",
        "4/8 trials, 1 running, 2:00 elapsed, about 1:20 left",
        "7/8 trials, 1 running, 3:00 elapsed, about 0:20 left",
        "8/8 trials, 3:20 elapsed",
    ]


def test_a_run_of_two_thousand_trials_has_a_readable_log(clock: Clock) -> None:
    view, written = make()
    trials = [trial(seed) for seed in range(2000)]
    view.plan(trials)
    with view:
        for one in trials:
            run(view, one, clock, 0.5)
    assert len(written().splitlines()) == 17, "1,000 seconds"


def test_a_trial_of_a_minute_has_a_line_of_its_own_and_counting_goes_on_after_an_earlier_run(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS[2:], [(one, 0.0) for one in TRIALS[:2]])
    with view:
        run(view, TRIALS[2], clock, 60)
    lines = written().splitlines()
    assert lines[0] == "2/8 trials, 1 running, 1:00 elapsed", "nothing is known yet of how long they take"
    assert lines[1:] == [
        "[3/8] tiny clean cca seed 0:  37.6 %  (60.0 s)".replace("0:", "2:"),
        "3/8 trials, 1:00 elapsed",
    ]


def test_what_other_runners_are_at_and_have_run_is_told_in_words(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS)
    with view:
        view.elsewhere(TRIALS[0], None)
        view.started(TRIALS[1])
        view.elsewhere(TRIALS[1], None)  # its process found the lock taken
        run(view, TRIALS[2], clock, 59.5)
        view.elsewhere(TRIALS[0], done(TRIALS[0]))
        run(view, TRIALS[3], clock, 0.5)
        view.elsewhere(TRIALS[1], failed(TRIALS[1]))
    lines = written().splitlines()
    assert lines[0].startswith("2/8 trials, 1 run elsewhere, 1 running, 1 running elsewhere, 1:00 elapsed")
    assert lines[1].startswith("tiny clean cca seed 1: FAILED ")
    assert lines[1].endswith(", run elsewhere")
    assert lines[2] == "4/8 trials, 2 run elsewhere, 1 failed, 1:00 elapsed"


def test_a_failure_and_a_new_start_are_told_at_once(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS)
    with view:
        view.started(TRIALS[0])
        view.retried(TRIALS[0], "killed by SIGKILL")
        assert written() == "again tiny clean cca seed 0: killed by SIGKILL\n"
        run(view, TRIALS[0], clock, 1, failed)
        key = TRIALS[0].key
        assert f"[1/8] tiny clean cca seed 0: FAILED [bold]broken (mmbench show {key})  (1.0 s)\n" in written()
    assert written().splitlines()[-1] == "1/8 trials, 1 failed, 0:01 elapsed"


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (trial(), "seed 0:  37.6 %  ("),
        (trial(missing=Missing(rate=0.5)), "seed 0:  37.6 % with nothing missing in the test  ("),
        (trial(tuning=True), "seed 0:  50.0 % in validation  ("),
    ],
)
def test_an_accuracy_that_tables_do_not_show_is_told_from_one_that_they_do(
    clock: Clock, one: Trial, words: str
) -> None:
    view, written = make(terminal=True)
    view.plan([one])
    with view:
        run(view, one, clock, 1)
    assert words in written()


def test_what_a_resumed_run_has_done_tells_how_long_the_rest_takes(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS[4:], [(one, 100.0) for one in TRIALS[:4]])
    with view:
        view.started(TRIALS[4])
        clock.now += 60
        view.tick()
    assert "4/8 trials, 1 running, 1:00 elapsed, about 5:40 left" in written()


def test_the_first_trials_wait_for_imports_and_say_little_of_others(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS)
    with view:
        run(view, TRIALS[0], clock, 30, lambda one: done(one, seconds=20))
        run(view, TRIALS[1], clock, 30)
    assert "1/8 trials, 1 running, 1:00 elapsed, about 2:00 left" in written(), "six times 20 s, and not of 30 s"


def test_what_is_still_to_be_chosen_counts_too(clock: Clock) -> None:
    view, written = make()
    view.plan(TRIALS[:2], later=TRIALS[:1] * 4)
    with view:
        run(view, TRIALS[0], clock, 60)
        run(view, TRIALS[1], clock, 60)
    assert "1/6 trials, 1 running, 2:00 elapsed, about 4:00 left" in written()
    view.plan(TRIALS[2:4], [(TRIALS[4], 1.0)])
    assert (view.ended, view.total) == (3, 5)


# In a terminal

EPOCH = "epoch {} validation/accuracy 0.4625 train/loss {}\n"


def test_a_running_trial_shows_its_epoch_its_metrics_and_its_time(clock: Clock, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    view, written = make(terminal=True, log=lambda key: log, slots=2)
    view.plan(TRIALS)
    with view:
        view.started(TRIALS[0])
        for epoch in range(10):
            clock.now += 6
            with log.open("a") as file:
                file.write(EPOCH.format(epoch, 1 / (epoch + 1)))
            os.utime(log, (epoch, epoch))
            view.tick()
        view.live.refresh()
        shown = written()
    for words in ("tiny clean cca seed 0", "epoch 10/30  loss 0.1  val 46.2 %", "1:00 elapsed", "2:00 left", "0/8"):
        assert words in shown


def test_the_log_of_an_earlier_run_is_not_this_ones(clock: Clock, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(EPOCH.format(29, 0.5))
    view, _ = make(terminal=True, log=lambda key: log)
    view.plan(TRIALS)
    with view:
        view.started(TRIALS[0])
        clock.now += 1
        view.tick()
        assert view.rows[TRIALS[0].key].epochs == 0
        log.write_text("starts\n")
        os.utime(log, (1, 1))
        clock.now += 1
        view.tick()
        assert view.rows[TRIALS[0].key].epochs == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_a_trial_runs_once_it_has_written_to_its_log(clock: Clock, tmp_path: Path, terminal: bool) -> None:
    """On a cluster a worker has to come up first, which may take minutes."""
    logs = [tmp_path / one.key for one in TRIALS[:2]]
    logs[0].write_text("of an earlier run\n")
    view, written = make(terminal, log=lambda key: tmp_path / key, slots=2)
    view.plan(TRIALS)

    def look() -> tuple[str, list[str]]:
        clock.now += 60
        view.tick()
        return view.states, [row.words for row in view.rows.values()]

    with view:
        for one in TRIALS[:2]:
            view.started(one)
        assert look() == ("2 starting", ["starts", "starts"])
        for number, log in enumerate(logs):
            log.write_text("begins\n")
            os.utime(log, (number, number))
            assert look()[1][: number + 1] == ["epoch 0/30"] * (number + 1)
            assert view.states == ("2 running" if number else "1 running, 1 starting")
    assert terminal or "0/8 trials, 2 starting, 1:00 elapsed\n" in written()


def test_the_time_of_a_trial_that_goes_on_is_told_by_its_own_epochs(clock: Clock, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(EPOCH.format(epoch, 0.5) for epoch in range(20)))
    view, written = make(terminal=True, log=lambda key: log, slots=2)
    view.plan(TRIALS)
    with view:
        view.started(TRIALS[0])
        for epoch in range(18, 22):  # from a checkpoint after 18 epochs on
            clock.now += 6
            with log.open("a") as file:
                file.write(EPOCH.format(epoch, 0.25))
            os.utime(log, (epoch, epoch))
            view.tick()
        view.live.refresh()
    for words in ("epoch 22/30", "0:48 left"):
        assert words in written()


def test_rows_fit_into_a_narrow_terminal(clock: Clock) -> None:
    name = "a label that is longer than a terminal is wide " * 3 + "seed 7"
    view, written = make(terminal=True, width=80, describe=lambda _: name)
    view.plan(TRIALS)
    with view:
        view.started(TRIALS[0])
        clock.now += 1
        view.tick()
        view.live.refresh()
    for words in ("wide seed 7", "epoch 0/30", "0:01 so far"):
        assert words in written()
    assert max(len(line.partition("\x1b")[0]) for line in written().splitlines()) <= 80


@pytest.mark.parametrize(
    ("log", "epochs", "metrics"),
    [
        ("", 0, {}),
        ("starts\n", 0, {}),
        ("epoch 0 train/loss 1.5\nepoch 1 train/loss 0.5\nends\n", 2, {"train/loss": 0.5}),
        ("epoch 0 train/loss nan gradient/left -1e-05\n", 1, {"gradient/left": -1e-05}),
        ("epoch 0 train/loss 1.5\nepoch 1 train/lo", 1, {"train/loss": 1.5}),
        ("epoch 0 train/loss 1.5\nepoch 1 train/loss 1.", 1, {"train/loss": 1.5}),
        ("epoch one is done\nthe epoch 7 train/loss 1\n", 0, {}),
        ("epoch 0 train/loss high validation/accuracy 0.5\n", 1, {"validation/accuracy": 0.5}),
        ("epoch 3 " + "x" * 100_000 + " 1\nepoch 4 train/loss 2\n", 5, {"train/loss": 2.0}),
        ("epoch 3 train/loss 2\nepoch " + "9" * 5000 + " train/loss 2\n", 4, {"train/loss": 2.0}),
    ],
)  # fmt: skip
def test_the_end_of_a_log_is_read(tmp_path: Path, log: str, epochs: int, metrics: dict[str, float]) -> None:
    path = tmp_path / "log.txt"
    assert last_epoch(path) == (0, {})
    path.write_text(log)
    found = last_epoch(path)
    assert found[0] == epochs
    assert {name: value for name, value in found[1].items() if value == value} == metrics
