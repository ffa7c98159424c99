"""Rows that were made elsewhere: a trial's own predictions, entered as another program's, give its numbers; what lacks is –."""

import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_golden import GOLDEN, experiment

from mmbench import report_commands
from mmbench.cli import main
from mmbench.elsewhere.entries import Elsewhere, Entry, Part
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment
from mmbench.record import Predictions
from mmbench.report.collect import Results, collect
from mmbench.report.committed import compare, read_table
from mmbench.report.elsewhere import narrowed
from mmbench.report.figures.gallery import figures
from mmbench.report.html import to_html
from mmbench.report.latex import to_latex
from mmbench.report.page import frames, write
from mmbench.report.tables import sections, to_markdown
from mmbench.store import Store
from mmbench.trial import Trial


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    return Store(tmp_path / "runs")


def trial_of(method: str, protocol: str, seed: int) -> Trial:
    return next(t for t in experiment().trials if (t.method, t.protocol, t.seed) == (method, protocol, seed))


def stored(store: Store, method: str, protocol: str, seed: int) -> Predictions:
    return store.predictions(store.record(trial_of(method, protocol, seed).key))


def enter(store: Store, label: str, seed: int, p: Predictions, protocol: str = "clean", **more: object) -> Entry:
    """Keep predictions of the one split as ``add-predictions`` does."""
    content = p.to_bytes()
    held = [name for name, there in zip(p.pattern_names, p.given, strict=True) if there]
    part = Part(
        fold=None, split_sha256="s", predictions_sha256=sha256(content).hexdigest(), patterns=held, source="p.csv", source_sha256="f",
        added="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    about = {
        "label": label,
        "dataset": "crema_d",
        "data": "golden",
        "protocol": protocol,
        "seed": seed,
        "parts": [part],
    }
    entry = Entry.model_validate(about | more)
    Elsewhere.beside(store).write(entry, {part.file: content})
    return entry


def without(p: Predictions, *rows: int) -> Predictions:
    """The predictions with none under some patterns."""
    log_probs, predicted = p.log_probs.copy(), p.predicted.copy()
    log_probs[list(rows)], predicted[list(rows)] = np.nan, -1
    return replace(p, log_probs=log_probs, predicted=predicted)


def of(frame: pd.DataFrame, method: str, *but: str) -> pd.DataFrame:
    own = frame[frame.method == method]
    return own.drop(columns=["method", "track", "reported", *but], errors="ignore").reset_index(drop=True)


def test_a_trials_own_predictions_give_its_numbers(store: Store) -> None:
    for protocol in ("clean", "legacy"):
        for seed in (0, 1):
            enter(store, "mine", seed, stored(store, "concat", protocol, seed), protocol)
    made = collect(experiment(), store)
    before = collect(experiment(), store, elsewhere=False)
    pd.testing.assert_frame_equal(of(made.table, "mine ‡"), of(made.table, "concat"))
    pd.testing.assert_frame_equal(of(made.inflation, "mine ‡"), of(made.inflation, "concat"))
    own = made.diagnostics[~made.diagnostics.diagnostic.isin(["gradient_balance", "modality_gap"])]
    pd.testing.assert_frame_equal(of(own, "mine ‡"), of(own, "concat"))
    assert np.array_equal(*(made.confusions["crema_d", "clean", "complete", m] for m in ("mine ‡", "concat")))
    trials = made.trials
    how = ["key", "status", "best_epoch", "epochs", "parameters", "commit", "device", "memory_mb"]
    seconds = [name for name in trials if name.startswith("seconds/")]
    one, other = (of(trials, m, *how, *seconds) for m in ("mine ‡", "concat"))
    pd.testing.assert_frame_equal(one, other)
    pair = made.comparisons[(made.comparisons.method == "concat") & (made.comparisons.other == "mine ‡")]
    assert len(pair) == 2 * 4
    assert (pair.difference == 0).all()
    assert (pair.n == 2).all()
    # What is not made elsewhere is as it was, but for Holm's correction, which is for one comparison more.
    pd.testing.assert_frame_equal(made.table[made.table.track == ""], before.table)
    rest = made.comparisons[made.comparisons.track == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest.drop(columns="p_holm"), before.comparisons.drop(columns="p_holm"))
    assert made.commits == before.commits
    assert made.planned == before.planned


def test_it_is_marked_everywhere(store: Store, tmp_path: Path) -> None:
    enter(store, "my_method & a long name of it", 0, stored(store, "sum", "clean", 0))
    made = collect(experiment(), store, GOLDEN / "reported")
    mark = "my_method & a long name of it ‡"
    for name, frame in frames(made).items():
        if "track" in frame:
            own = (frame.get("method") == mark) | (frame.get("other", "") == mark)
            assert own.any(), name
            assert (frame.track[own] == "made elsewhere").all(), name
            assert (frame.track[~own] == "").all(), name
    assert set(made.trials[made.trials.method == mark].status) == {"made elsewhere"}
    markdown = to_markdown(made)
    assert f"| {mark} | " in markdown
    assert "‡: made elsewhere: predictions of other code" in markdown
    assert r"my\_method \& a long name of it $^\ddagger$ & " in to_latex(made)
    assert r"$^\ddagger$: made elsewhere" in to_latex(made)
    page = to_html(made)
    assert "my_method &amp; a long name of it ‡" in page
    drawn = dict(figures(made))
    assert all(caption.endswith("‡: made elsewhere.") for _, caption in drawn.values())
    write(made, tmp_path / "report")
    figure = (tmp_path / "report/figure.svg").read_text()
    assert "my_method &amp; a long name of it ‡" in figure
    assert "my_method &amp; a long name… ‡" in (tmp_path / "report/confusion.svg").read_text()
    assert mark not in (tmp_path / "report/cost.svg").read_text(), "of its cost nothing is known"


def test_patterns_that_were_not_given_are_dashes_with_a_reason(store: Store, tmp_path: Path) -> None:
    enter(store, "video alone", 0, without(stored(store, "sum", "clean", 0), 0, 2))
    made = collect(experiment(), store)
    table = made.table[(made.table.method == "video alone ‡") & (made.table.metric == "accuracy")].set_index("pattern")
    single = made.table[
        (made.table.method == "sum") & (made.table.protocol == "clean") & (made.table.metric == "accuracy")
    ]
    assert table["mean"].isna().to_dict() == {"audio": True, "video": False, "audio+video": True, "mean": True}
    assert table.ci_low.isna().sum() == 3
    assert table.loc["video", "mean"] == single.set_index("pattern").loc["video", "mean"]
    assert made.table[made.table.method == "video alone ‡"].groupby("metric")["mean"].count().tolist() == [1] * 4
    pairs = made.comparisons[made.comparisons.other == "video alone ‡"]
    assert set(pairs.pattern) == {"video"}
    assert made.comparisons.difference.notna().all()
    diagnostics = made.diagnostics[made.diagnostics.method == "video alone ‡"]
    assert diagnostics[["diagnostic", "of"]].to_numpy().tolist() == [["information", "video"]]
    assert made.reliability[made.reliability.method == "video alone ‡"].empty
    assert ("crema_d", "clean", "complete", "video alone ‡") not in made.confusions
    (section,) = [s for s in sections(made) if s.title == "crema_d, clean"]
    (line,) = [row for row in section.body if row[0].text == "video alone ‡"]
    assert [cell.text for cell in line[1:4]] == ["–", f"{table.loc['video', 'mean']:.1f}", "–"]
    assert "video alone ‡: no predictions were given under audio, audio+video (–)." in section.notes
    assert not any(" nan" in text or "nan," in text for text in (to_markdown(made), to_latex(made)))
    write(made, tmp_path / "report")
    assert not re.search(r"\bNaN\b|\bnan\b", (tmp_path / "report/table.md").read_text())


def test_a_report_with_patterns_that_were_not_given_can_be_compared(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    enter(store, "video alone", 0, without(stored(store, "sum", "clean", 0), 0, 2))
    write(collect(experiment(), store), tmp_path / "report")
    assert main(["compare", str(tmp_path / "report"), str(tmp_path / "report")]) == 0
    assert "mean difference +0.00" in capsys.readouterr().out
    own = read_table(tmp_path / "report/table.csv")
    assert compare(own[own.method == "video alone ‡"], own, "it").line.startswith("Agrees with it: 1 of 1 accuracies")


def test_patterns_that_one_seed_lacks_count_for_none(store: Store) -> None:
    enter(store, "mine", 0, stored(store, "concat", "clean", 0))
    enter(store, "mine", 1, without(stored(store, "concat", "clean", 1), 1))
    made = collect(experiment(), store)
    table = made.table[(made.table.method == "mine ‡") & (made.table.metric == "accuracy")].set_index("pattern")
    assert table["mean"].isna().to_dict() == {"audio": False, "video": True, "audio+video": False, "mean": True}
    assert table.loc["audio+video", "n"] == 2


def test_seeds_of_the_same_predictions_are_one_run_also_where_some_are_not_there(store: Store) -> None:
    for seed in (0, 1):
        enter(store, "mine", seed, without(stored(store, "concat", "clean", 0), 1))
    (row,) = [row for row in collect(experiment(), store).rows if row.elsewhere]
    assert (row.seeds, row.runs) == ([0, 1], 1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"data": "other"}, "seed 0: made for other data, of hash other, than the trials', of golden"),
        ({"parts": []}, "seed 0: no predictions were given"),
    ],
)
def test_what_cannot_be_used_leaves_a_gap_with_a_reason(store: Store, spoil: dict[str, object], reason: str) -> None:
    enter(store, "mine", 0, stored(store, "concat", "clean", 0), **spoil)
    made = collect(experiment(), store)
    assert f"crema_d clean mine ‡ {reason}" in made.not_run
    assert made.table[made.table.method == "mine ‡"]["mean"].isna().all()
    assert "mine ‡ | – | – | – |" in to_markdown(made)


@pytest.mark.parametrize("name", ["record.json", "*.npz"])
def test_damage_is_told_and_the_report_goes_on(store: Store, name: str) -> None:
    entry = enter(store, "mine", 0, stored(store, "concat", "clean", 0))
    (path,) = (Elsewhere.beside(store).root / entry.key).glob(name)
    path.write_bytes(path.read_bytes()[:-9])
    made = collect(experiment(), store)
    assert sum("record.json: " in line or "damaged (" in line for line in made.not_run) == 1
    pd.testing.assert_frame_equal(
        of(made.table, "concat"), of(collect(experiment(), store, elsewhere=False).table, "concat")
    )


@pytest.mark.parametrize("change", [{"seed": 10**30}, {"seed": -1}, {"label": ""}])
def test_an_entry_that_no_command_would_keep_is_left_out(store: Store, change: dict[str, object]) -> None:
    entry = enter(store, "mine", 0, stored(store, "concat", "clean", 0))
    spoilt, elsewhere = entry.model_copy(update=change), Elsewhere.beside(store)
    elsewhere.write(spoilt, {})
    made = collect(experiment(), store)
    assert [line for line in made.not_run if f"--remove {spoilt.key}" in line]
    assert "mine ‡" in set(made.table.method)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": np.full(7, 0)}, "expected the shape"),
        ({"modalities": np.array(["sound", "smell"])}, "know nothing of"),
        ({"modalities": np.array(3)}, "expected names"),
    ],
)
def test_predictions_that_are_none_are_told_and_left_out(store: Store, change: dict[str, Any], reason: str) -> None:
    entry = enter(store, "mine", 0, stored(store, "concat", "clean", 0))
    content = replace(stored(store, "concat", "clean", 0), **change).to_bytes()
    entry.parts[0].predictions_sha256 = sha256(content).hexdigest()
    Elsewhere.beside(store).write(entry, {entry.parts[0].file: content})
    assert [line for line in collect(experiment(), store).not_run if "damaged (" in line and reason in line]


def test_folds_that_are_missing_leave_the_row_without_a_number(store: Store) -> None:
    entry = enter(store, "mine", 0, stored(store, "concat", "clean", 0))
    entry.parts[0].fold = 1
    Elsewhere.beside(store).write(entry, {})
    trials = [t.model_copy(update={"fold": fold}) for t in experiment().trials for fold in (0, 1)]
    made = collect(Experiment("golden", experiment().grid, trials), store)
    assert "crema_d clean mine ‡ fold 0 seed 0: no predictions were given" in made.not_run
    assert not any("mine ‡ fold 1" in line for line in made.not_run)
    assert made.table[made.table.method == "mine ‡"]["mean"].isna().all()
    own = made.trials[made.trials.method == "mine ‡"].set_index("fold")
    assert own.status.to_dict() == {0: "not given", 1: "made elsewhere"}
    assert own.accuracy.notna().to_dict() == {0: False, 1: True}


def test_what_is_published_has_none_of_it(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    enter(store, "mine", 0, stored(store, "concat", "clean", 0))
    monkeypatch.setattr(report_commands, "load_experiment", lambda arguments, imported: experiment())
    monkeypatch.setattr("mmbench.report.committed.unfit", lambda results: [])
    assert main(["--results", str(tmp_path), "report", "golden", "--publish"]) == 0
    captured = capsys.readouterr()
    assert "not in what is published, since nothing here can make it again: mine ‡" in captured.err
    assert "‡" not in (tmp_path / "golden/table.md").read_text() + captured.out


def test_a_variant_of_fewer_modalities_takes_the_patterns_that_it_has() -> None:
    p = Predictions(
        modalities=np.array(["a", "b", "c"]), label=np.zeros(2, int), group=np.zeros(2, int), present=np.eye(3, dtype=bool)[:2],
        predicted=np.arange(14).reshape(7, 2).astype(np.int16), log_probs=np.arange(28.0).reshape(7, 2, 2).astype(np.float16),
        log_prior=np.zeros(2), attack=np.empty(0, np.int16),
    )  # fmt: skip
    fewer = narrowed(p, ("a", "c"))
    rows = [0, 2, 4]  # a, c, a+c among a, b, c, a+b, a+c, b+c, a+b+c
    assert fewer.pattern_names == ["a", "c", "a+c"]
    assert fewer.predicted.tolist() == p.predicted[rows].tolist()
    assert fewer.log_probs.tolist() == p.log_probs[rows].tolist()
    assert fewer.present.tolist() == [[True, False], [False, False]]


def test_rates_take_in_what_has_every_pattern_and_leave_out_what_has_not(store: Store) -> None:
    plan = experiment()
    grid = Grid.model_validate({**plan.grid.model_dump(exclude_unset=True), "test_rates": [0.2, 0.4]})
    enter(store, "whole", 0, stored(store, "concat", "clean", 0))
    enter(store, "whole", 1, stored(store, "concat", "clean", 1))
    enter(store, "part", 0, without(stored(store, "concat", "clean", 0), 1))
    made: Results = collect(Experiment("golden", grid, plan.trials), store)
    assert made.rates is not None
    curves = made.rates.curves[made.rates.curves.protocol == "clean"]
    pd.testing.assert_frame_equal(of(curves, "whole ‡"), of(curves, "concat"))
    assert "part ‡" not in set(curves.method)
    assert set(curves[curves.method == "whole ‡"].track) == {"made elsewhere"}
    (table,) = [s for s in sections(made) if "clean, missing rates" in s.title]
    assert any("part ‡: no predictions were given under video (–)" in note for note in table.notes)
