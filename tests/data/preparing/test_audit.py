"""The audit: every kind of violation planted once, and what is only told."""

from dataclasses import replace

import pandas as pd
import pytest

from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.manifest import doubts_of
from mmbench.data.preparing.media import note
from mmbench.data.preparing.prepare import prepare
from mmbench.data.preparing.raw import Sample
from toy import FoldedToy, Toy, change, reseal, write_toy


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    write_toy(tmp_path / "raw")
    return tmp_path / "raw"


def audited(raw, plant=None):
    """Prepare, plant something into the table (indexed by id), and audit."""
    prepare(Toy, raw, say=lambda text: None)
    if plant:
        table = Toy.table().set_index("id", drop=False)
        plant(table)
        reseal(Toy.folder(), table)
    return audit(Toy)


def test_sound_data_break_no_promise(raw):
    found = audited(raw)
    assert found.violations == {"clean": [], "legacy": []}
    assert found.facts[0] == "100 samples, 2 classes, 10 groups"
    assert found.facts[1].startswith("clean train: 60 samples, list ")
    assert found.facts[1].endswith(": even 30, odd 30")
    assert "legacy test: 40 samples (published: 40)" in found.facts[5]
    assert found.findings == ["legacy: 40 of 40 test samples share their group with train: 0, 1, 2 and 7 more"]


def group(table):
    table.loc["s040", "group"] = "0"


def file(table):
    table.loc["s040", "sha256_number"] = table.loc["s000", "sha256_number"]


def text(table):
    table.loc["s040", "text_text"] = table.loc["s000", "text_text"]


def gone(table):
    table.loc[table["clean"].eq("validation") & table["label"].eq(1), "clean"] = "train"


def no_validation(table):
    table.loc[table["clean"].eq("validation"), "clean"] = ""


def no_splits(table):
    table["clean"] = ""


@pytest.mark.parametrize(
    ("plant", "line"),
    [
        (group, "1 of 20 test samples share their group with train: 0"),
        (file, "1 of 20 test samples share their number with train: s040 and s000"),
        (text, "1 of 20 test samples share their text with train: s040 and s000"),
        (gone, "validation has no sample of odd"),
        (no_validation, "there is no validation split"),
        (no_splits, "there are no splits"),
    ],
)
def test_clean_promises(raw, monkeypatch, plant, line):
    monkeypatch.setattr(Toy, "distinct_texts", True)
    found = audited(raw, plant)
    assert line in found.violations["clean"]
    assert not found.violations["legacy"]


@pytest.mark.parametrize("twin", ["Caf\u00e9 &amp; more", "Cafe\u0301 & more", "CAF\u00c9\u00a0\uff06 mo\u00adre"])
def test_texts_that_are_equal_to_the_eye_break_the_promise(raw, monkeypatch, twin):
    monkeypatch.setattr(Toy, "distinct_texts", True)

    def plant(table):
        table.loc["s000", "text_text"], table.loc["s040", "text_text"] = "caf\u00e9 & more", twin

    found = audited(raw, plant)
    assert "1 of 20 test samples share their text with train: s040 and s000" in found.violations["clean"]


def test_what_is_doubtful_of_the_files_is_told(raw, monkeypatch):
    [(modality, source)] = Toy.sources.items()

    def decode(path, sample):
        note(seconds=1.0, peak=0.0 if sample.id == "s003" else 0.5)
        return source.decode(path, sample)

    monkeypatch.setattr(Toy, "sources", {modality: replace(source, decode=decode)})
    assert "doubtful: s003: number is silent: its peak is 0 of full scale" in audited(raw).findings


def test_lengths_that_are_far_apart_are_doubtful():
    def noted(sound, video, peak=1.0):
        return {"error": "", "noted": {"audio": {"seconds": sound, "peak": peak}, "video": {"seconds": video}}}

    rows = [
        noted(10, 10.4),
        noted(1, 1.4),
        noted(3, 2.2, 0.0001),
        noted(10, 1),
        {"error": "is missing", "noted": {}},
        noted(2, 2.6),
    ]
    assert doubts_of([Sample(str(i), 0, "") for i in range(len(rows))], rows) == [
        ("2", "audio is silent: its peak is 0.0001 of full scale"),
        ("2", "lengths differ: video 2.20 s and audio 3.00 s"),
        ("3", "lengths differ: video 1.00 s and audio 10.00 s"),
        ("5", "lengths differ: audio 2.00 s and video 2.60 s"),
    ]


def test_equal_texts_are_only_told_where_they_are_not_promised_away(raw):
    found = audited(raw, text)
    assert not found.violations["clean"]
    assert "clean: 1 of 20 test samples share their text with train: s040 and s000" in found.findings


def test_folds_promise_what_clean_does(raw, monkeypatch):
    """s040 is of part 4, s000 of part 0; a part is told from the name, so that a group can be planted in two."""
    part_of = {f"s{i:03}": i // 10 % 5 for i in range(100)}
    monkeypatch.setattr(FoldedToy, "part_of", classmethod(lambda cls, samples: samples["id"].map(part_of).tolist()))
    audited(raw)
    assert not any("fold" in fact for fact in audit(Toy).facts)
    found = audit(FoldedToy)
    assert found.violations["clean"] == []
    parts = FoldedToy.parts()
    expected = f"5 folds by ten, lists clean {parts.hash_of('clean')[:16]}, legacy {parts.hash_of('legacy')[:16]}"
    assert found.facts[-6:] == [expected, *(f"clean fold {k}: tests 20 samples: even 10, odd 10" for k in range(5))]
    sound = Toy.table()
    pair = "s000 and s040"
    for plant, count, what, named in ((group, 11, "group", "0"), (file, 2, "number", pair), (text, 2, "text", pair)):
        reseal(Toy.folder(), sound)
        table = Toy.table().set_index("id", drop=False)
        plant(table)
        reseal(Toy.folder(), table)
        line = f"{count} samples share their {what} with a sample of another fold: {named}"
        monkeypatch.setattr(FoldedToy, "distinct_texts", False)
        found = audit(FoldedToy)
        assert (line in found.violations["clean"], f"clean: {line}" in found.findings) == (
            plant is not text,
            plant is text,
        )
        monkeypatch.setattr(FoldedToy, "distinct_texts", True)
        assert line in audit(FoldedToy).violations["clean"]


def test_samples_that_a_protocol_leaves_out_are_counted(raw):
    def leave_out(table):
        table.loc[["s002", "s003"], "clean"] = ""

    assert "clean: 2 samples are in no split" in audited(raw, leave_out).facts

    def leave_out_a_copy(table):
        leave_out(table)
        table.loc["s002", "sha256_number"] = table.loc["s000", "sha256_number"]

    line = "clean: 2 samples are in no split; 1 of them share a file, text or vector with one that is"
    assert line in audited(raw, leave_out_a_copy).facts


def test_absent_files_and_texts_are_no_duplicates(raw, monkeypatch):
    monkeypatch.setattr(Toy, "distinct_texts", True)
    change(raw, 0, file="")
    change(raw, 40, file="")
    change(raw, 1, text="")
    change(raw, 41, text="")
    found = audited(raw)
    assert not found.violations["clean"]
    assert {"2 samples have no number", "2 samples have no text"} <= set(found.facts)
    assert found.findings == ["legacy: 40 of 40 test samples share their group with train: 0, 1, 2 and 7 more"]


def test_legacy_promises_the_published_counts(raw, monkeypatch):
    change(raw, 0, legacy="")
    assert audited(raw).violations["legacy"] == ["train has 59 samples, published 60"]
    monkeypatch.setattr(Toy, "published", {"legacy": {"validation": 5, "test": 41}, "clean": {"train": 61}})
    found = audited(raw)
    assert found.violations["legacy"] == [
        "test has 40 samples, published 41"
    ]  # legacy has no use for a validation split
    assert "clean train: 60 samples, published 61" in found.findings


def test_legacy_without_lists(raw):
    for i in range(100):
        change(raw, i, legacy="")
    found = audited(raw)
    assert found.violations == {"clean": [], "legacy": ["there are no splits"]}
    assert "legacy: no splits; the legacy protocol needs lists" in found.facts


def test_contradictory_labels_are_told(raw):
    (raw / "003.txt").write_text("2")  # of another class, in the same group
    change(raw, 5, text="text 4")
    found = audited(raw)
    line = "2 samples share the {} with a sample of another label: {}"
    assert line.format("file of number", "s002 and s003") in found.findings
    assert line.format("text of text", "s004 and s005") in found.findings


def test_clips_of_one_file_do_not_contradict_each_other(raw):
    def clips(table):
        table.loc[["s002", "s003"], "clip"] = ['{"from": 0}', '{"from": 1}']

    (raw / "003.txt").write_text("2")
    assert not [line for line in audited(raw, clips).findings if "another label" in line]


def test_skipped_unlisted_and_other_counts_are_told(raw, monkeypatch):
    (raw / "007.txt").write_text("bad")
    scan = Toy.scan

    def more(raw):
        listing = scan(raw)
        listing.unlisted = [f"x{i}.txt" for i in range(30)]
        listing.notes.append("a note")
        return listing

    monkeypatch.setattr(Toy, "scan", more)
    found = audited(raw)
    assert found.findings[:4] == [
        "samples: 99, published 100",
        "skipped: s007: 007.txt is bad",
        "on disk, but in no list: 30 files, such as x0.txt, x1.txt, x2.txt",
        "a note",
    ]
    reseal(Toy.folder(), skipped=12 * Toy.read_manifest()["skipped"])
    told = [line for line in audit(Toy).findings if line.startswith("skipped")]
    assert len(told) == 11
    assert told[-1].startswith("skipped: 2 more")


def test_many_classes_are_told_by_their_range(raw, monkeypatch):
    monkeypatch.setattr(Toy, "classes", tuple(f"c{i}" for i in range(12)))
    lines = audited(raw).facts
    assert lines[1].endswith(": 0 to 30 of a class")
    gone = ", ".join(f"c{i}" for i in range(2, 12))
    assert f"train has no sample of {gone}" in audit(Toy).violations["clean"]
    monkeypatch.setattr(Toy, "classes", tuple(f"c{i}" for i in range(500)))
    assert f"train has no sample of {gone} and 488 more" in audit(Toy).violations["clean"]
    assert pd.Series(lines).str.len().max() < 100


def test_groups_of_one_sample_are_told(raw):
    assert "every sample is a group of its own" in audited(raw, singles).facts[1]


def singles(table):
    table["group"] = table["id"]


def same_splits(table):
    table["legacy"] = table["clean"]


def test_a_legacy_that_is_clean_is_told(raw):
    assert audited(raw).findings[-1].startswith("legacy: ")
    assert audited(raw, same_splits).findings[-1].startswith("legacy has the splits of clean")
