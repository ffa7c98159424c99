"""Methods over data sets, in a report: from six on a table and a figure, below a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_golden import experiment, predictions

from mmbench.evidence.ranks import mean_ranks, signed_rank
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import Experiment, Labels
from mmbench.record import Record
from mmbench.report.collect import Results, collect
from mmbench.report.figures.gallery import figures
from mmbench.report.figures.ranks import draw_ranks
from mmbench.report.page import frames
from mmbench.report.ranking import RANK_COLUMNS, by_rank
from mmbench.report.tables import header_notes, sections, to_markdown
from mmbench.store import Store

METHODS = ("concat", "sum", "late_fusion")


def report(folder: Path, datasets: int, missed: tuple[tuple[int, str], ...] = ()) -> Results:
    """So many data sets, labels of one, each with luck of its own; of those missed nothing was run."""
    store, trials, labels = Store(folder), [], {}
    like = next(t for t in experiment().trials if t.method == "concat" and t.protocol == "clean")
    names = ["crema_d", *(f"variant {k}" for k in range(1, datasets))]
    grid = Grid.model_validate(
        {
            "title": "many",
            "datasets": {name: {"dataset": "crema_d"} if k else {} for k, name in enumerate(names)},
            "methods": dict.fromkeys(METHODS),
            "seeds": [0],
        }
    )
    for k, name in enumerate(names):
        for number, method in enumerate(METHODS):
            trial = like.model_copy(update={"method": method, "seed": 0, "params": {"of": k}})
            trials.append(trial)
            labels[trial.key] = Labels(name, method)
            if (k, method) not in missed:
                record = Record(
                    key=trial.key, trial=trial, status="done", started="", finished="", environment={}, seconds={"fit": 1.0}
                )  # fmt: skip
                store.write(record, predictions(like.model_copy(update={"seed": 10 * k + number})))
    return collect(Experiment("many", grid, trials, labels=labels), store)


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return report(tmp_path_factory.mktemp("six"), 6)


def accuracies(results: Results, methods: tuple[str, ...] = METHODS) -> np.ndarray:
    table = results.table[(results.table.metric == "accuracy") & (results.table.pattern == "audio+video")]
    by = table.set_index(["dataset", "method"])["mean"]
    return np.array([[by[d, m] for m in methods] for d in dict.fromkeys(table.dataset)])


def test_a_line_a_pair_with_ranks_of_the_accuracies(six: Results) -> None:
    assert six.ranks is not None
    assert list(six.ranks.columns) == list(RANK_COLUMNS)
    values = accuracies(six)
    ranks = dict(zip(METHODS, mean_ranks(values), strict=True))
    assert len(six.ranks) == 3
    for line in six.ranks.itertuples():
        assert (line.rank, line.other_rank, line.datasets) == (ranks[line.method], ranks[line.other], 6)
        one, other = (values[:, METHODS.index(m)] for m in (line.method, line.other))
        assert (line.p_better, line.p_equivalent, line.p_worse) == signed_rank(one - other)
    assert list(by_rank(six.ranks).method) == sorted(METHODS, key=lambda m: ranks[m])
    assert "ranks" in frames(six)


def test_the_table_is_of_mean_ranks_and_against_the_reference(six: Results) -> None:
    (section,) = (s for s in sections(six) if "mean ranks" in s.title)
    assert section.title == "6 data sets, clean, mean ranks"
    assert section.header == ["method", "mean rank", "mean accuracy", "better", "equivalent", "worse"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in section.body}
    values = accuracies(six)
    chances = signed_rank(values[:, 0] - values[:, 2])
    assert rows["concat"][0] == f"{mean_ranks(values)[0]:.2f}"
    assert rows["concat"][2:] == [f"{c:.2f}" for c in chances]
    assert rows["late_fusion"][2:] == ["–"] * 3
    assert any("variants of one data set" in note for note in section.notes)


def test_the_figure_names_every_method(six: Results) -> None:
    figure = draw_ranks(six)
    assert figure is not None
    texts = {t.get_text().strip() for t in figure.axes[0].texts}
    ranks = dict(zip(METHODS, mean_ranks(accuracies(six)), strict=True))
    for method, rank in ranks.items():
        assert texts & {f"{method}  {rank:.2f}", f"{rank:.2f}  {method}"}
    assert "ranks" in dict(figures(six))
    assert figure.axes[0].get_xticks().tolist() == [1, 2, 3]
    assert six.ranks is not None
    bar = [1, pytest.approx(1 + six.ranks.critical.iloc[0])]
    assert any(list(line.get_xdata()) == bar for line in figure.axes[0].lines), "the critical difference is drawn"


@pytest.mark.parametrize(("datasets", "told"), [(1, False), (2, True), (5, True)])
def test_below_six_there_is_a_sentence(tmp_path: Path, datasets: int, told: bool) -> None:
    made = report(tmp_path, datasets)
    assert made.ranks is None
    assert draw_ranks(made) is None
    assert any(f"{datasets} data sets are too few" in note for note in header_notes(made)) == told
    assert "mean ranks" not in to_markdown(made)


def test_a_method_that_lacks_a_data_set_is_not_ranked_and_a_data_set_without_any_is_left_out(tmp_path: Path) -> None:
    made = report(tmp_path, 7, missed=((2, "sum"), *((4, m) for m in METHODS)))
    assert made.ranks is not None
    assert isinstance(made.ranks, pd.DataFrame)
    assert set(zip(made.ranks.method, made.ranks.other, strict=True)) == {("concat", "late_fusion")}
    assert set(made.ranks.datasets) == {6}
