import re
import shlex

import numpy as np
import pandas as pd
import pytest
import yaml

import dataset_facts
import dataset_pages
from mmbench.cli import parser
from mmbench.data import DATASETS

ABOUT = yaml.safe_load(dataset_pages.ABOUT.read_text(encoding="utf-8"))
NEEDED = {"for", "know", "cite"}


@pytest.fixture(scope="module")
def pages():
    """Every page, without what takes reading the data."""
    cut = dataset_facts.Cut({"train": np.ones(200, int)}, 1)
    quick = dataset_facts.Cuts(dict.fromkeys(dataset_facts.KINDS, cut), {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_pages, "cuts", lambda data: quick)
        patch.setattr(dataset_pages, "audited", lambda data: iter(["a finding"]))
        return dataset_pages.pages()


@pytest.mark.merged
def test_every_data_set_has_its_entry():
    lacking = {name: sorted(NEEDED - ABOUT.get(name, {}).keys()) for name in dataset_facts.shipped()}
    lacking = {name: keys for name, keys in lacking.items() if keys}
    assert lacking == {}, f"{dataset_pages.ABOUT} lacks {lacking}"


def test_no_entry_is_of_a_data_set_that_is_gone():
    assert sorted(ABOUT.keys() - set(dataset_facts.shipped())) == []


def test_all_registered_data_sets_and_the_embedded_ones_are_shipped():
    assert set(DATASETS.registered) | {"handwritten"} == set(dataset_facts.shipped())


def test_every_entry_has_its_page_that_says_for_whom_and_is_in_the_table(pages):
    for name in ABOUT:
        text = pages[f"datasets/{name}.md"]
        assert text.startswith(f"# {name}\n\nFor whoever "), name
        headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
        audit = ["Audit"] if dataset_facts.is_embedded(DATASETS[name]) else []
        assert headings == ["Get it", "Classes and modalities", "Splits", *audit, "What to know", "Experiments", "Cite"]
        assert f"[{name}]({name}.md)" in pages["datasets/table.txt"]


def test_a_set_that_was_not_at_hand_says_so(pages):
    warned = {name for name in ABOUT if "not at hand" in pages[f"datasets/{name}.md"]}
    assert warned == set(ABOUT) - {"openclipart", "openclipart_features", "handwritten", "tuxpaint"}


def test_every_paragraph_of_a_docstring_is_in_the_page_once(pages):
    for name in set(ABOUT) - {"handwritten"}:
        for paragraph in dataset_pages.doc_of(DATASETS[name]):
            assert pages[f"datasets/{name}.md"].count(paragraph) == 1, (name, paragraph)


def test_what_is_of_splits_stands_with_the_splits(pages):
    page = pages["datasets/kinetics_sounds.md"]
    reading, splits = page.index("## Classes and modalities"), page.index("## Splits")
    assert reading < page.index("Inputs: `audio`") < splits < page.index("`clean` keeps the clips of one YouTube video")


def test_tables_have_at_most_five_columns(pages):
    for path, text in pages.items():
        widths = [line.count(" | ") + 1 for line in text.splitlines() if line.startswith("| ")]
        assert max(widths) <= 5, path


def test_commands_of_the_pages_are_the_parser_s(pages):
    lines = [line for text in pages.values() for line in re.findall(r"^mmbench [^#\n]*", text, flags=re.MULTILINE)]
    assert len(lines) > 3 * len(ABOUT)
    commands = parser()
    for line in set(lines):
        commands.parse_args(shlex.split(line)[1:])


def test_counts_are_those_of_the_data():
    data = DATASETS["openclipart"]
    found, parts = dataset_facts.cuts(data), data.parts()
    assert found.whole["clean"].sizes() == "1,067 / 283 / 282"
    assert found.digests["clean, folds"] == parts.hash_of("clean")
    tested = [fold.counts["test"].sum() for fold in found.folds["clean"]]
    assert tested == np.bincount(parts.clean).tolist()
    for kind, cut in found.whole.items():
        codes = data.read()[f"split_{kind}"]
        labels = data.read()["label"]
        assert cut.counts["test"].tolist() == np.bincount(labels[codes == 2]).tolist()


def test_an_audit_is_told_without_the_names_of_samples(monkeypatch):
    found = dataset_facts.audit.__globals__["Audit"]()
    found.findings = [
        "clean: 2 share it: a and b, c and d; 1 more",
        "1 in 2 share their group: 24, 206 and 3 more",
        "odd: x",
    ]
    found.pairs = [("clean: 2 share it", "a", "b")]
    found.violations["clean"] = ["there is no test split"]
    monkeypatch.setattr(dataset_facts, "audit", lambda data: found)
    assert list(dataset_facts.audited(DATASETS["openclipart"])) == [
        "**`clean` is broken**: there is no test split",
        "clean: 2 share it",
        "1 in 2 share their group",
        "odd: x",
    ]


def test_the_page_of_open_clip_art_has_the_numbers_of_its_file():
    page = (dataset_pages.ABOUT.parents[1] / "openclipart.md").read_text(encoding="utf-8")
    data = DATASETS["openclipart"]
    read = data.read()
    table = pd.DataFrame({name: read[name] for name in ("label", "artist", "tags", "split_clean", "split_legacy")})
    table["class"], table["part"] = [data.classes[label] for label in table.label], data.parts(read).clean
    for name, rows in table.groupby("class"):
        assert f"/{name}.png) | {len(rows)} | {(rows.tags == '').mean():.0%}".replace("%", " % |") in page
    pictures, tested = table.artist.value_counts(), table[table.split_legacy == 2]
    known = tested.artist.isin(table.artist[table.split_legacy == 0]).mean()
    food, animals = (table[table["class"] == name].part.value_counts() for name in ("food", "animals"))
    for told in (
        f"{len(table):,} public-domain drawings by {len(pictures)} artists",
        f"for {(table.tags != '').mean() * 100:.0f} % of them, tags",
        data.manifest(),
        f'"{pictures.index[0]}"\n  drew {pictures.iloc[0]} pictures, {(pictures == 1).sum()} artists drew one',
        f"The {pictures['unknown']} pictures without a usable name",
        f"({(table.split_clean == 0).sum():,} and {(table.split_clean == 2).sum()})",
        f"{(table.split_legacy == -1).sum()} pictures are left out. {known * 100:.0f} % of the test pictures",
        f"of {pictures.iloc[0]} and {pictures.iloc[1]} pictures make them: {food[0]} of {food.sum()} pictures of food are in "
        f"the first, {animals[1]} of {animals.sum()} animals in the second",
        f"{(table.tags == '').sum()} pictures ({(table.tags == '').mean() * 100:.0f} %) have no tags",
    ):
        assert told in page, told
    left_out = page[page.index("## What was left out") :].splitlines()
    counted = [
        int(line.split(" | ")[1].replace(",", "")) for line in left_out if re.match(r"\| [\w-]+.*\| [\d,]+ \|", line)
    ]
    assert f"Of {sum(counted) + len(table):,} picture files in the ten folders, {len(table):,} are kept" in page
