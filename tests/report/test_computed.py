"""A table whose trials were not all computed on the same says so, in every format; records of before say what they can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from make_golden import experiment, predictions

from mmbench.experiment.plan import Experiment
from mmbench.record import Record
from mmbench.report.collect import Results, collect
from mmbench.report.computed import computed_on
from mmbench.report.html import to_html
from mmbench.report.latex import to_latex
from mmbench.report.tables import sections, to_markdown
from mmbench.report.terminal import print_report
from mmbench.report.trained import of_training
from mmbench.store import Store
from mmbench.trial import Trial

CPU = {"device": "cpu", "cpu": "A CPU", "threads": 1}
H100 = {
    "device": "0", "cpu": "A CPU", "threads": 4, "gpu": "NVIDIA H100", "compute_capability": "9.0", "driver": "580.65",
    "cuda": "13.0", "cudnn": "9.10.2", "precision": "tf32",
}  # fmt: skip
L4 = {**H100, "gpu": "NVIDIA L4", "compute_capability": "8.9"}


def of(precision: str = "32-true", seed: int = 0) -> Trial:
    first = experiment().trials[0]
    recipe = first.recipe.model_validate({**first.recipe.model_dump(), "precision": precision})
    return first.model_copy(update={"recipe": recipe, "seed": seed})


def record(trial: Trial, environment: dict[str, Any], **more: Any) -> Record:
    common = {"key": trial.key, "trial": trial, "started": "", "finished": "", "seconds": {"fit": 1.0}}
    return Record(**common, status="done", environment=environment, **more)


def collected(folder: Path, environments: Sequence[dict[str, Any]], precision: str = "tf32", **more: Any) -> Results:
    """A report of one method with a seed for each environment."""
    store, trials = Store(folder), [of(precision, seed) for seed in range(len(environments))]
    for trial, environment in zip(trials, environments, strict=True):
        store.write(record(trial, environment, **more), predictions(experiment().trials[0]))
    return collect(Experiment("golden", experiment().grid, trials), store)


@pytest.mark.parametrize(
    ("precision", "environment", "expected"),
    [
        ("32-true", CPU, "CPU, float32"),
        ("tf32", CPU, "CPU, float32"),  # where there is no TF32
        ("bf16", CPU, "CPU, bfloat16"),
        ("tf32", H100, "NVIDIA H100, TF32"),
        ("32-true", H100, "NVIDIA H100, float32"),
        ("tf32", {**H100, "compute_capability": "7.5"}, "NVIDIA H100, float32"),
        ("tf32", {**H100, "devices": 2}, "2 × NVIDIA H100, TF32"),
        ("32-true", {"device": "0"}, "a GPU without a name, float32"),  # as records of before have it
        ("tf32", {**H100, "compute_capability": "?"}, "NVIDIA H100, TF32"),
        ("32-true", {}, ""),
    ],
)
def test_on_what_a_trial_was_computed(precision: str, environment: dict[str, Any], expected: str) -> None:
    assert computed_on(record(of(precision), environment)) == expected


MIXED = "Mixed devices: 2 trials on NVIDIA H100, TF32; 1 trial on CPU, float32."


def test_a_table_that_mixes_devices_says_so_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = collected(tmp_path, [H100, CPU, H100])
    print_report(results)
    for text in (to_markdown(results), to_latex(results), to_html(results), capsys.readouterr().out):
        assert MIXED in text
    assert list(results.trials.device) == ["NVIDIA H100, TF32", "cpu", "NVIDIA H100, TF32"]


@pytest.mark.parametrize(
    ("other", "mixed"),
    [
        (H100, False),
        ({**H100, "cpu": "another", "driver": "570.1", "device": "3"}, False),
        (L4, True),
        ({**H100, "devices": 2}, True),
        (CPU, True),
        ({}, False),  # nothing is known of it
    ],
)
def test_what_is_a_mixture(tmp_path: Path, other: dict[str, Any], mixed: bool) -> None:
    assert ("Mixed devices" in to_markdown(collected(tmp_path, [H100, other]))) is mixed


def test_protocols_on_different_devices_are_told_where_they_are_compared(tmp_path: Path) -> None:
    trials = [trial for trial in experiment().trials if trial.method == "concat"]
    for trial in trials:
        environment = CPU if trial.protocol == "clean" else H100
        Store(tmp_path).write(record(trial, environment), predictions(trial))
    made = sections(collect(Experiment("golden", experiment().grid, trials), Store(tmp_path)))
    assert [s.title for s in made if any("Mixed devices" in note for note in s.notes)] == ["crema_d, inflation"]


def test_another_cpu_or_the_number_of_threads_is_no_mixture(tmp_path: Path) -> None:
    assert "Mixed" not in to_markdown(collected(tmp_path, [CPU, {**CPU, "cpu": "another", "threads": 2}]))


def test_two_precisions_in_a_table_are_a_mixture(tmp_path: Path) -> None:
    store, trials = Store(tmp_path), [of("tf32", 0), of("bf16", 1)]
    for trial in trials:
        store.write(record(trial, H100), predictions(experiment().trials[0]))
    told = to_markdown(collect(Experiment("golden", experiment().grid, trials), store))
    assert "1 trial on NVIDIA H100, TF32; 1 trial on NVIDIA H100, bfloat16" in told


def test_a_report_names_the_gpu_what_runs_it_and_the_memory(tmp_path: Path) -> None:
    made = of_training(collected(tmp_path, [H100, CPU], gpu_memory_mb=2560.0, gpu_allocated_mb=2000.0))
    rows = {row[0].text: row[1].text for section in made for row in section.body}
    assert rows["GPU"] == "NVIDIA H100, compute capability 9.0, driver 580.65, cuda 13.0, cudnn 9.10.2, precision tf32"
    assert rows["GPU memory"] == "up to 2.5 GB a trial"
    assert rows["machine"] == "A CPU"
    assert "libraries" not in rows
    assert rows["precision"].startswith("TF32 in products and convolutions")


def test_a_record_of_the_cpu_has_nothing_of_a_gpu(tmp_path: Path) -> None:
    made = of_training(collected(tmp_path, [CPU]))
    assert not {"GPU", "GPU memory"} & {row[0].text for section in made for row in section.body}
    one = record(of(), CPU)
    assert b"gpu" not in one.to_bytes()
    assert Record.from_bytes(one.to_bytes()) == one
    other = record(of(), H100, gpu_memory_mb=12.0, gpu_allocated_mb=8.0)
    assert Record.from_bytes(other.to_bytes()) == other
