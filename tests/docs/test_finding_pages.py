"""Findings say what the reports say: their numbers are computed once more, from other tables where there are some."""

import re
from pathlib import Path

import pandas as pd
import pytest

import finding_numbers
import finding_pages
from mmbench.baselines import METHODS

ROOT = Path(__file__).parents[2]
EVERYTHING = "image+title+tags"
PAGES = finding_pages.pages()
NUMBERS = r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]"


def rows(page, columns):
    """A page's table: the first cell of a row -> its numbers, value, low and high, a column each."""
    found = {}
    for line in PAGES[f"findings/{page}.md"].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numbers = [re.fullmatch(NUMBERS, cell) for cell in cells[1:]]
        if line.startswith("| ") and any(numbers):
            assert len(numbers) == columns
            found[cells[0].strip("`")] = [n and tuple(map(float, n.groups())) for n in numbers]
    return found


def accuracy(experiment, dataset, **chosen):
    """Accuracy with everything, by method."""
    table = pd.read_csv(ROOT / f"results/{experiment}/table.csv")
    keep = (table.dataset == dataset) & (table.pattern == EVERYTHING) & (table.metric == "accuracy")
    for column, value in {"protocol": "clean", "training": "complete", **chosen}.items():
        keep &= table[column] == value
    return table[keep].set_index("method")["mean"]


def test_what_the_two_habits_add_is_the_difference_of_protocols():
    clean, peek, legacy = (accuracy("table1", "openclipart", protocol=p) for p in ("clean", "peek", "legacy"))
    found = rows("legacy_and_clean", 3)
    assert list(found) == list(clean.index)
    for method, (leakage, peeking, both) in found.items():
        assert both[0] == pytest.approx(leakage[0] + peeking[0], abs=0.11)
        assert peeking[0] > 0, f"{method}: {peek[method]} {clean[method]} {legacy[method]}"


@pytest.mark.parametrize(
    ("page", "experiment", "dataset", "tuned"),
    [
        ("laziness", "imbalance", "openclipart", ""),
        ("tuned_late_fusion", finding_pages.TUNED, "openclipart_features", ", tuned"),
    ],
)
def test_what_a_method_gains_over_late_fusion_is_the_difference_of_their_accuracies(page, experiment, dataset, tuned):
    scores = accuracy(experiment, dataset)
    found = rows(page, 4 if page == "laziness" else 1)
    assert len(found) >= 16
    for method, numbers in found.items():
        value, low, high = numbers[-1]
        assert value == pytest.approx(scores[method + tuned] - scores["late_fusion" + tuned], abs=0.06)
        assert low <= value <= high


def test_a_modality_is_lazy_by_as_much_as_it_is_below_the_model_trained_alone():
    table = pd.read_csv(ROOT / "results/imbalance/table.csv")
    table = table[(table.dataset == "openclipart") & (table.metric == "accuracy")].set_index(["method", "pattern"])[
        "mean"
    ]
    for method, numbers in rows("laziness", 4).items():
        for modality, lazy in zip(("image", "title", "tags"), numbers[:-1], strict=True):
            if lazy is not None:
                assert lazy[0] == pytest.approx(table["unimodal", modality] - table[method, modality], abs=0.06)


def test_who_is_behind_is_who_has_an_interval_above_zero():
    found = rows("laziness", 4)
    behind = [m for m, numbers in found.items() if any(n and n[1] > 0 for n in numbers[:-1])]
    text = PAGES["findings/laziness.md"]
    assert f"{len(behind)} of {len(found)} methods leave a modality behind" in text
    assert ", ".join(f"`{m}`" for m in behind) in " ".join(text.split())


def test_as_written_minus_as_released_is_the_difference_of_their_accuracies():
    scores = accuracy("released", "openclipart")
    found = rows("released", 1)
    assert list(found) == ["MLA", "PMR", "ARL", "ReconBoost", "DMRNet"]
    for method, ((value, low, high),) in found.items():
        assert value == pytest.approx(scores[f"{method}, as written"] - scores[f"{method}, as released"], abs=0.06)
        assert low <= value <= high


def test_the_page_on_released_mechanisms_quotes_the_report():
    pairs = finding_numbers.written_and_released().set_index(["name", "pattern"])
    text = (ROOT / "docs/released_mechanisms.md").read_text()
    quoted = re.findall(rf"^\| (\w+), [^|]* \| {NUMBERS} \| {NUMBERS} \|$", text, re.MULTILINE)
    assert [name for name, *_ in quoted] == list(dict.fromkeys(pairs.index.get_level_values("name")))
    for name, *numbers in quoted:
        for pattern, said in ((EVERYTHING, numbers[:3]), ("mean", numbers[3:])):
            row = pairs.loc[(name, pattern)]
            assert list(map(float, said)) == pytest.approx([row.difference, row.ci_low, row.ci_high], abs=0.051)
            assert float(said[1]) < 0 < float(said[2]), "the page says that none can be told from zero"


def test_the_grid_has_every_method_and_its_accuracy_on_complete_data():
    page = PAGES["findings/one_grid.md"]
    rates = pd.read_csv(ROOT / "results/grid/rates.csv").query(
        "evaluation == 'matched' and dataset == 'openclipart_features'"
    )
    assert page.startswith("# Complete or with gaps, nothing is above Late Fusion") == (
        not (rates.difference_low > 0).any()
    )
    scores = accuracy("grid", "openclipart_features")
    found = dict(re.findall(r"^\| `([^`]+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert list(found) == list(scores.index)
    assert len({name.partition(",")[0] for name in found} & set(METHODS)) >= 35
    assert {name: float(value) for name, value in found.items()} == pytest.approx(scores.to_dict(), abs=0.051)
