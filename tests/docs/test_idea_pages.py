"""The pages of ideas and footguns say what the committed reports say, and their pictures show it."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from idea_numbers import (
    RESULTS,
    accuracies,
    against_late_fusion,
    best_seed,
    expected_scores,
    fold_accuracies,
    habits,
    one_mask_for_another,
    pairs,
    table,
    trained_at_the_rate,
    what_tuning_adds,
    with_everything,
)
from idea_pictures import BLUE, GREEN, GREY, MODALITIES, ORANGE, SAMPLES, pictures
from mmbench.missing import Missing, mask_generator

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def signed(value):
    """As the pages write it: with a sign, the minus as a dash of its width."""
    return f"{value:+.1f}".replace("-", "−")


def with_interval(row, value="mean"):
    """A difference and its interval, as the pages write them."""
    return f"{signed(row[value])} [{signed(row.ci_low)}, {signed(row.ci_high)}]"


def missing_from(page, *sentences):
    """Which of the sentences the page does not have, however its lines are broken."""
    text = " ".join((DOCS / page).read_text().split())
    return [sentence for sentence in sentences if sentence not in text]


def test_patterns():
    scores, everything = accuracies("table1")["mean"], with_everything("table1")["mean"]
    lazy = table("table1/diagnostics.csv").query(
        "protocol == 'clean' and method == 'ogm_ge' and diagnostic == 'laziness' and of == 'tags'"
    )
    alone = max(scores["late_fusion", modality] for modality in MODALITIES)
    assert not missing_from(
        "ideas/patterns.md",
        f"With everything, OGM-GE is {everything.late_fusion - everything.ogm_ge:.1f} points below it",
        f"with the tags alone {lazy.value.item():.1f}",
        f"right in {everything.late_fusion:.1f} %, its best modality in {alone:.1f} %",
    )


def test_protocols():
    adds, clean = habits(), with_everything("table1")["mean"]
    leakage, peeking = (adds.xs(part, level="part")["mean"] for part in ("leakage", "peeking"))
    assert not missing_from(
        "ideas/protocols.md",
        f"leakage is worth {leakage.min():.1f} to {leakage.max():.1f} points, peeking {peeking.min():.1f} to {peeking.max():.1f}",
        f"leakage {with_interval(adds.loc['late_fusion', 'leakage'])}, peeking {with_interval(adds.loc['late_fusion', 'peeking'])}",
        f"Between clean methods there are {clean.max() - clean.min():.1f} points",
    )
    assert leakage.min() > clean.max() - clean.min(), "a habit is worth more than the choice of a method"
    assert set(table("table1/inflation.csv").n) == {1}, "one seed"


def test_folds():
    folds = fold_accuracies("late_fusion").accuracy
    assert not missing_from("ideas/folds.md", f"{folds.max():.1f} % of one part and in {folds.min():.1f} % of another")
    assert set(table("table1/table.csv").query("protocol == 'clean'").n) == {3}


def test_missing():
    rates, pairs_of = table("missing_rates/rates.csv"), trained_at_the_rate()
    rows = rates[(rates.method == "late_fusion") & (rates.evaluation == "matched")].set_index("rate")
    nothing, half, example = rows.loc[0], rows.loc[0.5], pairs_of.loc[("late_fusion", 0.4)]
    assert not missing_from(
        "ideas/missing.md",
        f"is {rows.masked[0.7]:.3f} here",
        f"at rate 0, {100 * nothing.missing:.1f} % of the cells are missing",
        f"takes {100 * half.masked:.1f} % leaves {100 * half.missing:.1f} % missing and {100 * half['empty']:.1f} % of the samples",
        f"In {(pairs_of.complete > pairs_of.masked).sum()} of {len(pairs_of)} cases here",
        f"late fusion at 0.4 has {example.complete:.1f} against {example.masked:.1f}",
    )
    assert "38 % have no tags" in (RESULTS / "missing_rates/table.md").read_text()


def test_intervals():
    scores, rows, to_late_fusion = with_everything("table1"), pairs("table1"), against_late_fusion()
    separable = (rows.ci_low > 0) | (rows.ci_high < 0)
    width, paired = (scores.ci_high - scores.ci_low).median(), (rows.ci_high - rows.ci_low).median()
    film, starred = to_late_fusion.loc["film"], to_late_fusion[to_late_fusion.p_holm < 0.05]
    assert not missing_from(
        "ideas/intervals.md",
        f"all {len(rows)} pairs of methods overlap; a typical interval is {width:.1f} points wide",
        f"a typical one is {paired:.1f} wide, and {separable.sum()} of the {len(rows)} pairs are *separable*",
        f"FiLM is {with_interval(film, 'difference')} with p = {film.p:.3f}, and {film.p_holm:.3f} corrected",
        f"typically {scores['std'].median():.1f} points here, beside an interval of {width:.1f}",
    )
    assert scores.ci_low.max() < scores.ci_high.min(), "all overlap"
    assert list(starred.index) == ["bigated"]
    assert rows.p_equivalent.max() < 0.95
    assert "32 % of them in the two largest" in (RESULTS / "table1/table.md").read_text()


def test_tuning():
    adds, scores = what_tuning_adds(), expected_scores("late_fusion")
    draws = table("tuned/tuning.csv").query("method == 'late_fusion'")
    assert not missing_from(
        "ideas/tuning.md",
        f"are {adds.validation.min():.1f} to {adds.validation.max():.1f} points above the default for every method",
        f"QMF loses: {with_interval(adds.loc['qmf'], 'test')}",
        f"{scores[0]:.1f} with one random draw, {scores[3]:.1f} with four, {scores[15]:.1f} with all 16",
        f"its default has {draws[draws.draw == 0].score.mean():.1f}",
        f"one can find {scores[15] - scores[0]:.1f} points",
    )
    assert (adds.ci_low < 0).all()
    assert list(adds.index[adds.ci_high < 0]) == ["qmf"]


def test_footguns():
    adds, scores, rows = habits()["mean"], accuracies("table1")["mean"], with_everything("table1")
    leakage, peeking = (adds.xs(part, level="part") for part in ("leakage", "peeking"))
    ledger, draws, masks = table("ledger.csv"), expected_scores("late_fusion"), one_mask_for_another().abs()
    concat = ledger.query(
        "dataset == 'crema_d' and method == 'concat' and modalities == 'multi' and variant != 'Conformer'"
    ).reported
    by_artist = table("table1/table.csv").query(
        "protocol == 'clean' and metric == 'group_accuracy' and pattern == 'image+title+tags'"
    )
    by_artist = by_artist.set_index("method")["mean"]
    size = table("tuned/trials.csv").groupby("method").parameters.first()
    tuned = pairs("tuned").query("method == 'late_fusion' and other == 'film'").iloc[0]
    folds = fold_accuracies("late_fusion").accuracy
    assert not missing_from(
        "footguns.md",
        f"{leakage.min():.1f} to {leakage.max():.1f} points of accuracy",
        f"{peeking.min():.1f} to {peeking.max():.1f} points, and not the same for every method",
        f"is {concat.min():.1f} in one paper and {concat.max():.1f} in another",
        f"up to {draws[15] - draws[0]:.1f} points of validation score between 1 and 16 draws",
        f"by {masks.mean():.1f} points in the mean, {masks.max():.1f} at most",
        f"worth {scores['late_fusion', 'tags']:.1f} % in late fusion and {scores['ogm_ge', 'tags']:.1f} % inside OGM-GE",
        f"title alone has {scores['bigated', 'title']:.1f} %",
        f"have {rows['mean']['sum']:.1f} and {rows['mean'].late_fusion:.1f} %",
        f"as a mean over artists, {by_artist['sum']:.1f} and {by_artist.late_fusion:.1f} %",
        f"FiLM has {100 * (size.film / size.late_fusion - 1):.0f} % more parameters",
        f"{best_seed().mean():.1f} points above the mean, {best_seed().max():.1f} at most",
        f"± is {rows['std'].median():.1f} points where the interval is {(rows.ci_high - rows.ci_low).median():.1f} wide",
        f"late fusion has {folds.min():.1f} to {folds.max():.1f} % by fold",
    )
    assert tuned.ci_low < 0 < tuned.ci_high


def test_every_footgun_says_what_is_done_and_what_the_suite_does():
    items = re.split(r"^### ", (DOCS / "footguns.md").read_text(), flags=re.MULTILINE)[1:]
    lines = {item.splitlines()[0]: re.findall(r"^- \*\*(\w+)\*\*:", item, re.MULTILINE) for item in items}
    assert len(lines) > 15
    assert [title for title, found in lines.items() if found not in (["Done", "Here"], ["Done", "Costs", "Here"])] == []


@pytest.fixture(scope="module")
def drawn():
    return {Path(path).stem: ElementTree.fromstring(text) for path, text in pictures().items()}


def boxes(svg, fill):
    return [box for box in svg.iter(f"{SVG}rect") if box.get("fill") == fill]


def words(svg):
    return [text.text for text in svg.iter(f"{SVG}text")]


def test_every_picture_is_on_a_page_and_on_white(drawn):
    pages = "".join(path.read_text() for path in (DOCS / "ideas").glob("*.md"))
    assert set(drawn) == set(re.findall(r"\]\(made/(\w+)\.svg\)", pages))
    for name, svg in drawn.items():
        paper, width, height = svg.find(f"{SVG}rect"), float(svg.get("width")), float(svg.get("height"))
        assert paper.get("fill") == "#ffffff", name
        assert float(paper.get("width")) == width <= 520, name
        for box in svg.iter(f"{SVG}rect"):
            assert float(box.get("x", 0)) + float(box.get("width")) <= width, name
            assert float(box.get("y", 0)) + float(box.get("height")) <= height, name


def test_the_picture_of_patterns_has_seven_columns(drawn):
    assert len(boxes(drawn["patterns"], GREEN)) == 12 + 1  # 3 · 2² cells are shown, and the key
    for method in ("late_fusion", "ogm_ge"):
        expected = accuracies("table1")["mean"][method].drop("mean")
        assert all(f"{value:.1f}" in words(drawn["patterns"]) for value in expected)


def test_the_picture_of_protocols_ends_at_legacy(drawn):
    ends = {f"{value:.1f}" for value in with_everything("table1", "legacy")["mean"]}
    assert ends <= set(words(drawn["protocols"]))
    assert len(boxes(drawn["protocols"], ORANGE)) == 8 + 1


def test_each_part_is_tested_once(drawn):
    tests, validations = (boxes(drawn["folds"], colour)[:-1] for colour in (ORANGE, BLUE))
    assert len({box.get("x") for box in tests}) == len({box.get("y") for box in tests}) == len(tests) == 5
    assert len({box.get("x") for box in validations}) == len(validations) == 5


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "masks",
            [
                Missing(rate=0.5),
                Missing(kind="bernoulli", rate=0.5),
                Missing(kind="per_modality", rates={"title": 0.5}),
            ],
        ),
        ("nested", [Missing(rate=0.2), Missing(rate=0.4), Missing(rate=0.6)]),
    ],
)
def test_masks_are_those_of_trials(drawn, name, settings):
    masks = [m.draw(MODALITIES, SAMPLES, mask_generator("a data set", "test", 0)) for m in settings]
    assert len(boxes(drawn[name], GREEN)) - 1 == sum(int(mask.sum()) for mask in masks)
    gaps = [box for box in drawn[name].iter(f"{SVG}rect") if box.get("stroke") == GREY]
    assert len(gaps) - 1 == sum(int((~mask).sum()) for mask in masks)  # and the key
    if name == "nested":
        assert all(np.all(less | ~more) for less, more in pairwise(masks))


@pytest.mark.parametrize(("name", "dots"), [("intervals", 8 + 7), ("tuning", 8 + 8)])
def test_intervals_have_a_dot_each(drawn, name, dots):
    assert len(list(drawn[name].iter(f"{SVG}circle"))) == dots
    assert words(drawn["intervals"]).count("*") == 1
