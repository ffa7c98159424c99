"""Scores that follow from a modality's role, seeds that are one run, protocols that are one: marked wherever a number is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_golden import experiment, predictions, write_store

from mmbench.evidence.accuracy import distinct_runs, estimate
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment
from mmbench.record import Predictions, Record
from mmbench.report.collect import Results, collect
from mmbench.report.figures.accuracy import draw
from mmbench.report.figures.gallery import figures
from mmbench.report.html import to_html
from mmbench.report.latex import to_latex
from mmbench.report.outcomes import Outcomes
from mmbench.report.tables import sections, to_markdown
from mmbench.report.terminal import print_report
from mmbench.store import Store


def stored(folder: Path, method: str, same: tuple[str, ...] = (), seeds: int = 2, **params: Any) -> Results:
    """The golden experiment with another method in concat's place.

    Args:
        folder: for the store.
        method: the method, whose predictions are concat's.
        same: "seeds" or "protocols" that all have the predictions of the first.
        seeds: how many.
        params: the method's own arguments.
    """
    old, store, trials = experiment(), Store(folder), []
    settings = {
        "title": "marks",
        "datasets": {"crema_d": {"protocols": ["clean", "legacy"]}},
        "seeds": list(range(seeds)),
    }
    grid = Grid.model_validate({**settings, "methods": {method: params, "sum": None}})
    for protocol in ("clean", "legacy"):
        for seed in range(seeds):
            for name, like in ((method, "concat"), ("sum", "sum")):
                like_trial = next(t for t in old.trials if t.method == like)
                seen = {"seed": seed, "protocol": protocol}
                trial = like_trial.model_copy(
                    update={**seen, "method": name, "params": params if name == method else {}}
                )
                trials.append(trial)
                if name == method:
                    seen |= {"seed": 0} if "seeds" in same else {}
                    seen |= {"protocol": "clean"} if "protocols" in same else {}
                record = Record(
                    key=trial.key, trial=trial, status="done", started="", finished="", environment={}, parameters=1,
                    seconds={"fit": 1.0},
                )  # fmt: skip
                store.write(record, predictions(like_trial.model_copy(update=seen)))
    return collect(Experiment("marks", grid, trials), store)


def cell(results: Results, title: str, method: str, head: str) -> Any:
    section = next(s for s in sections(results) if s.title == title)
    return next(row[section.header.index(head)] for row in section.body if row[0].text == method)


# Artefacts of a role


@pytest.mark.parametrize("method", ["film", "bigated"])
@pytest.mark.parametrize(
    ("params", "artefact", "other"), [({}, "audio", "video"), ({"conditioning": "video"}, "video", "audio")]
)
def test_the_score_of_a_role_is_marked_and_not_ranked(
    tmp_path: Path, method: str, params: dict, artefact: str, other: str
) -> None:
    made = stored(tmp_path, method, **params)
    marked = made.table[made.table.artefact == "role"]
    assert set(zip(marked.method, marked.pattern, strict=True)) == {(method, artefact)}
    for protocol in ("clean", "legacy"):
        own, rival = (cell(made, f"crema_d, {protocol}", m, artefact) for m in (method, "sum"))
        assert own.text.endswith(" †")
        assert (own.rank, rival.rank) == (0, 1)
        assert 1 in [cell(made, f"crema_d, {protocol}", m, other).rank for m in (method, "sum")]
        assert "†" not in cell(made, f"crema_d, {protocol}", method, other).text
    marked = made.inflation[(made.inflation.method == method) & (made.inflation.artefact == "role")]
    assert set(marked.pattern) == {artefact}
    assert all(
        any(note.startswith("†: an artefact of the modality's role") for note in s.notes)
        for s in sections(made)
        if s.title in ("crema_d, clean", "crema_d, legacy")
    )


def test_every_format_and_figure_has_the_mark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = stored(tmp_path, "film")
    text = cell(made, "crema_d, clean", "film", "audio").text
    assert f"| {text} |" in to_markdown(made)
    in_latex = text.replace("±", r"$\pm$").replace("†", r"$^\dagger$")
    assert f"& {in_latex} &" in to_latex(made)
    (figure, caption) = dict(figures(made))["figure"]
    assert text in to_html(made, [])
    assert "†: an artefact" in caption
    print_report(made)
    assert text in capsys.readouterr().out
    audio = next(axes for axes in figure.axes if axes.get_title() == "audio")
    hollow = [bars for bars in audio.containers if bars.lines[0].get_markerfacecolor() == "white"]
    assert len(hollow) == 2, "one a protocol"
    assert [len(bars.lines[0].get_xdata()) for bars in hollow] == [1, 1]
    assert any("artefact of a role" in t.get_text() for t in figure.legends[0].get_texts())


def test_without_such_a_method_nothing_is_marked(tmp_path: Path) -> None:
    made = stored(tmp_path, "concat")
    assert set(made.table.artefact) == {""}
    assert "†" not in to_markdown(made)
    assert not any("artefact" in t.get_text() for t in draw(made).legends[0].get_texts())


# Seeds that are one run


def test_identical_seeds_are_one_run(tmp_path: Path) -> None:
    made = stored(tmp_path / "one", "concat", same=("seeds",), seeds=3)
    alone = stored(tmp_path / "alone", "concat", seeds=1)
    columns = ["mean", "std", "ci_low", "ci_high", "n"]
    for protocol in ("clean", "legacy"):
        where = f"method == 'concat' and protocol == '{protocol}'"
        np.testing.assert_array_equal(made.table.query(where)[columns], alone.table.query(where)[columns])
        assert (made.table.query(where).n == 1).all()
        assert cell(made, f"crema_d, {protocol}", "concat", "n").text == "1"
        assert "±" not in cell(made, f"crema_d, {protocol}", "concat", "multi").text
        assert cell(made, f"crema_d, {protocol}", "sum", "n").text == "3"
    assert "Seeds with identical predictions are one run: concat (3 seeds, n 1)." in to_markdown(made)
    assert "one run" not in to_markdown(alone)


def test_a_run_that_differs_by_its_last_digit_is_the_same_run() -> None:
    """Samples are shuffled by the seed, so sums are taken in another order: CCA's third seed once counted as a run for that."""
    trial = experiment().trials[0]
    first, twin, rounded, surer, other = (predictions(trial) for _ in range(5))
    rounded.log_probs[0, 0, 0] = np.nextafter(rounded.log_probs[0, 0, 0], np.float16(0))
    surer.log_probs[0, 0, 0] -= np.float16(0.1)
    other.predicted[0, 0] = (other.predicted[0, 0] + 1) % 2
    assert distinct_runs([first, twin, rounded, surer, other]) == [0, 3, 4]
    assert distinct_runs([]) == []


def test_the_deviation_of_two_runs_told_three_times_is_that_of_two() -> None:
    first, second = (predictions(t) for t in experiment().trials if t.method == "concat" and t.protocol == "clean")
    names = first.pattern_names
    assert estimate([first, second, first], names) == estimate([first, second], names)


def test_curves_by_missing_rate_count_runs_too() -> None:
    trial = experiment().trials[0]
    record = Record(key="k", trial=trial, status="done", started="", finished="", environment={})
    of = Outcomes.of("d", "clean", None, "cca", [[record]] * 3, [predictions(trial)] * 3, "crema_d", {"test": 20})
    assert of.hits.shape[0] == 1
    assert len(of.seeds) == 3, "gains are of the same seeds"


# Protocols that are one


def test_a_legacy_that_is_clean_is_told(tmp_path: Path) -> None:
    made = stored(tmp_path, "concat", same=("protocols",))
    inflation = next(s for s in sections(made) if s.title == "crema_d, inflation")
    assert [c.text for c in inflation.body[0]] == ["concat", "–"]
    assert "+" in inflation.body[1][1].text or "-" in inflation.body[1][1].text
    told = "The protocols gave identical predictions, so there is nothing to compare: concat."
    assert any(note.startswith(told) for note in inflation.notes)
    legacy = next(s for s in sections(made) if s.title == "crema_d, legacy")
    assert "Its test samples are those of clean." in legacy.notes


def test_protocols_with_tests_of_their_own_are_not_called_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_store(store)
    plan = experiment()
    for trial in (t for t in plan.trials if t.protocol == "legacy" and t.method != "mla"):
        record = store.record(trial.key)
        assert record is not None
        p = store.predictions(record)
        store.write(record, Predictions(**{**vars(p), "label": np.roll(p.label, 1)}))
    text = to_markdown(collect(plan, store))
    assert "Its test samples are those of clean." not in text
    assert "so not paired and with wide intervals: inflation." in text


def test_groups_of_one_sample_are_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_store(store)
    plan = experiment()
    for trial in (t for t in plan.trials if t.protocol == "clean"):
        record = store.record(trial.key)
        if record is None or record.status != "done":
            continue
        p = store.predictions(record)
        store.write(record, Predictions(**{**vars(p), "group": np.arange(len(p.label))}))
    notes = {s.title: s.notes for s in sections(collect(plan, store))}
    assert any("disjoint by group is no more than disjoint by sample" in note for note in notes["crema_d, clean"])
    assert not any("disjoint by sample" in note for note in notes["crema_d, legacy"])
