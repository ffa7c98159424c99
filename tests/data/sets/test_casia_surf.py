"""CASIA-SURF: a tiny copy in the real layout, its official splits, what the labels mean, and every mistake in the lists."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from folding import check_ids
from mmbench.data.augment import RandomResizedCrop
from mmbench.data.demo import casia_surf as demo
from mmbench.data.demo.media import write_picture
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.prepare import prepare
from mmbench.data.sets.casia_surf import LISTS, CasiaSurf
from mmbench.errors import UsageError
from toy import reseal

MODALITIES = ("rgb", "depth", "ir")
VAL = "Val/0000/000000-{}.jpg"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The tiny copy."""
    raw = tmp_path_factory.mktemp("casia_surf")
    demo.write(raw)
    return raw


@pytest.fixture(scope="module")
def root(whole, tmp_path_factory) -> Path:
    """It, prepared; the folder that MMBENCH_DATA has to name."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        prepare(CasiaSurf, whole, say=lambda text: None)
    return root


@pytest.fixture
def raw(whole, tmp_path) -> Path:
    """The lists without the pictures, enough for scanning."""
    for name in LISTS.values():
        shutil.copy(whole / name, tmp_path)
    return tmp_path


def line(path: str, label: int | str) -> str:
    return f"{' '.join(path.format(kind) for kind in ('color', 'depth', 'ir'))} {label}\n"


def training(part: str, subject: str, video: str, frame: int) -> str:
    return f"Training/{part}_part/{subject}/{video}/{{}}/{frame}.jpg"


def flip(path: Path) -> None:
    """Let 0 mean what 1 meant."""
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{text[:-1]}{1 - int(text[-1])}\n" for text in lines))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


# The tiny copy


def test_samples_are_the_lines_of_the_lists(whole):
    listing = CasiaSurf.scan(whole)
    assert not listing.skipped
    assert not listing.unlisted
    assert listing.notes == [
        "only training's paths tell the subject; groups of validation and test are folders, which mix subjects"
    ]
    expected = {}
    for split, name in LISTS.items():
        for text in (whole / name).read_text().splitlines():
            color, depth, ir, label = text.split()
            expected[color] = ({"rgb": color, "depth": depth, "ir": ir}, "spoof" if label == "0" else "live", split)
    assert {s.id: (s.files, CasiaSurf.classes[s.label], s.legacy) for s in listing.samples} == expected
    assert len(expected) == 56
    assert [s.id for s in listing.samples] == sorted(expected)


def test_the_path_tells_subject_and_type_of_attack(whole):
    for sample in CasiaSurf.scan(whole).samples:
        top, part, *rest = sample.id.split("/")
        if top == "Training":
            subject, video = rest[:2]
            assert sample.label == (part == "fake_part")
            assert sample.group == subject
            assert sample.attack == (0 if video == "real.rssdk" else int(video[:2]))
        else:
            assert sample.group == f"{top}/{part}"
            assert sample.attack == sample.label


def test_demo_is_the_same_each_time(whole, tmp_path):
    demo.write(tmp_path)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) == 3 * 56 + 3
    assert all((tmp_path / f).read_bytes() == (whole / f).read_bytes() for f in files)


def test_prepared_splits_are_the_official_ones(root, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(root))
    for protocol in ("clean", "legacy"):
        module = CasiaSurf(protocol)
        got = (module.splits.train, module.splits.validation, module.splits.test)
        assert [len(split) for split in got] == [32, 10, 14]
        groups = [set(split.group.tolist()) for split in got]
        assert not any(groups[i] & groups[j] for i, j in ((0, 1), (0, 2), (1, 2)))
        for split in got:
            assert split.present.all()
            assert ((split.attack > 0) == (split.label == 1)).all()
        assert set(got[0].attack.tolist()) == {0, 4, 5, 6}
        assert set(got[2].attack.tolist()) == {0, 1}
        assert len(module.selection_split) == {"clean": 10, "legacy": 14}[protocol]


def test_arrays_are_the_pictures(root, whole, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(root))
    test = CasiaSurf().splits.test
    ids = [s.id for s in CasiaSurf.scan(whole).samples if s.legacy == "test"]
    assert list(test.inputs) == list(MODALITIES)
    for i in (0, 7, 13):
        for modality, kind in zip(MODALITIES, ("color", "depth", "ir"), strict=True):
            stored = test[i].inputs[modality][0]
            assert stored.shape == (3, 144, 144)
            assert stored.dtype == torch.uint8
            with Image.open(whole / ids[i].replace("color", kind)) as image:
                side, (width, height) = min(image.size), image.size
                left, top = (width - side) // 2, (height - side) // 2
                square = (left, top, left + side, top + side)
                expected = image.convert("RGB").resize((144, 144), Image.Resampling.BILINEAR, square)
            assert np.abs(stored.permute(1, 2, 0).numpy() - np.asarray(expected, np.float32)).mean() < 2
            assert (stored[0] == stored[1]).all() == (modality != "rgb"), "grey but for colour"


def test_pictures_are_upright_and_scaled_to_cover(tmp_path):
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :, 0] = 250  # red above
    pixels[:, :15] = pixels[:, -15:] = 255  # cut off
    write_picture(tmp_path / "x.png", pixels)
    stored = CasiaSurf.sources["ir"].decode(tmp_path / "x.png", None)["ir"]
    assert stored[:66].mean(axis=(0, 1)) == pytest.approx([250, 0, 0], abs=6)
    assert stored[78:].mean(axis=(0, 1)) == pytest.approx([0, 0, 0], abs=6)


def test_training_cuts_112_of_144(root, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(root))
    crops = CasiaSurf(image_sizes=dict.fromkeys(MODALITIES, 112)).augmentations
    for modality in MODALITIES:
        crop = crops[modality]
        assert isinstance(crop, RandomResizedCrop)
        boxes = crop.boxes(200, 144, 144)
        assert (boxes[:, 2:] == 112).all()
        assert boxes[:, :2].max() == 32
        assert boxes[:, :2].min() == 0


# Clean splits


def frame(rows) -> pd.DataFrame:
    """Rows (split, group, one hash for each modality)."""
    return pd.DataFrame(rows, columns=["legacy", "group", *(f"sha256_{m}" for m in MODALITIES)])


def test_clean_leaves_out_what_a_later_split_holds():
    samples = frame(
        [
            ("train", "a", "1", "2", "3"),
            ("train", "a", "4", "9", "6"),  # depth as in test
            ("train", "b", "7", "8", "18"),  # infrared as in validation
            ("train", "w", "10", "11", "12"),  # a group of the test split
            ("validation", "v", "13", "5", "18"),
            ("validation", "v", "14", "15", "19"),  # infrared as in test
            ("test", "w", "16", "9", "17"),
            ("test", "w", "20", "21", "19"),
        ]
    )
    assert CasiaSurf.clean(samples) == ["train", "", "", "", "validation", "", "test", "test"]
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    shuffled = CasiaSurf.clean(samples.iloc[order].reset_index(drop=True))
    assert shuffled == [["train", "", "", "", "validation", "", "test", "test"][i] for i in order]


def test_clean_keeps_equal_files_of_one_split():
    assert CasiaSurf.clean(frame([("train", "a", "1", "2", "3"), ("train", "b", "1", "2", "3")])) == ["train", "train"]


# What the labels mean


def test_labels_of_a_release_in_which_0_is_live_mean_the_same(raw):
    before = [(s.id, s.label, s.attack) for s in CasiaSurf.scan(raw).samples]
    for name in LISTS.values():
        flip(raw / name)
    assert [(s.id, s.label, s.attack) for s in CasiaSurf.scan(raw).samples] == before


@pytest.mark.parametrize("split", LISTS)
def test_a_list_of_the_other_release_is_refused(raw, split):
    flip(raw / LISTS[split])
    with pytest.raises(
        UsageError, match=f"{LISTS['validation'] if split == 'train' else LISTS[split]}: .* faces would be live"
    ):
        CasiaSurf.scan(raw)


def test_a_list_that_contradicts_its_folders_is_refused(raw):
    append(raw / "train_list.txt", line(training("real", "CLKJ_X", "real.rssdk", 1), 0))
    with pytest.raises(
        UsageError, match=r"1 is live in .*train_list.txt, line 1, but 0 is in .*train_list.txt, line 33; expected one"
    ):
        CasiaSurf.scan(raw)


def test_lists_that_do_not_tell_are_refused(raw):
    for i, name in enumerate(LISTS.values()):
        (raw / name).write_text(line(f"X/{i}-{{}}.jpg", 0))
    with pytest.raises(
        UsageError, match="cannot tell which label is live; expected paths with real_part and fake_part"
    ):
        CasiaSurf.scan(raw)


# Lists


@pytest.mark.parametrize("name", LISTS.values())
def test_every_list_is_needed(raw, name):
    (raw / name).unlink()
    with pytest.raises(UsageError, match=f"{name} is missing: expected the challenge's list"):
        CasiaSurf.scan(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            line(VAL, "")[:-2] + "\n",
            r"expected three paths and the label 0 or 1 \(lists named 'public' have none\), got 'Val/0000",
        ),
        (line(VAL, 2), "expected three paths and the label 0 or 1"),
        (line(VAL, "live"), "expected three paths and the label 0 or 1"),
        (f"extra {line(VAL, 1)}", "expected three paths and the label 0 or 1"),
        (
            "Val/1-depth.jpg Val/1-color.jpg Val/1-ir.jpg 0\n",
            "expected a picture of color, got Val/1-depth.jpg; the columns are",
        ),
        ("a/color/1.jpg a/ir/1.jpg a/depth/1.jpg 0\n", "expected a picture of depth, got a/ir/1.jpg"),
        (line("../{}/1.jpg", 0), "the path '../color' leads out of"),
        (line("Val/../../{}/1.jpg", 0), "leads out of"),
        (line("/etc/{}/1.jpg", 0), "the path '/etc/color' leads out of"),
    ],
)
def test_bad_lines(raw, text, message):
    append(raw / "val_private_list.txt", text)
    with pytest.raises(UsageError, match=f"val_private_list.txt, line 11: .*{message}"):
        CasiaSurf.scan(raw)


def test_lists_that_are_not_text(raw):
    (raw / "test_private_list.txt").write_bytes(b"\xff\xff\n")
    with pytest.raises(UsageError, match=r"test_private_list.txt, line 1: expected three paths"):
        CasiaSurf.scan(raw)


def test_paths_are_compared_as_paths(raw):
    """However a list writes them: with ``./``, doubled or backward slashes, trailing blanks."""
    before = CasiaSurf.scan(raw)
    for name in ("train_list.txt", "val_private_list.txt", "test_private_list.txt"):
        path, ways = raw / name, ("./{}", ".//{}", "././{}", "{}")
        lines = [line.split() for line in path.read_text().splitlines()]
        for i, line in enumerate(lines):
            line[:3] = [ways[i % 4].format(file.replace("/", ["/", "//", "\\", "/./"][i % 4])) for file in line[:3]]
        path.write_text("".join(" ".join(line) + " \t\r\n" for line in lines))
    after = CasiaSurf.scan(raw)
    assert after.samples == before.samples
    assert after.unlisted == before.unlisted == []


@pytest.mark.parametrize("way", ["./{}", "{} ", ".//{}"])
def test_a_sample_given_twice_in_another_way_is_refused(raw, way):
    path = raw / "val_private_list.txt"
    first = path.read_text().splitlines()[0].split()
    path.write_text(path.read_text() + " ".join([*map(way.format, first[:3]), first[3]]) + "\n")
    with pytest.raises(UsageError, match=r"is in .* line 1 too"):
        CasiaSurf.scan(raw)


def test_paths_upwards_are_refused(raw):
    path = raw / "val_private_list.txt"
    path.write_text(path.read_text() + "Val\\..\\..\\1-color.jpg Val/1-depth.jpg Val/1-ir.jpg 0\n")
    with pytest.raises(UsageError, match="leads out of"):
        CasiaSurf.scan(raw)


@pytest.mark.parametrize("name", ["val_private_list.txt", "test_private_list.txt"])
def test_a_sample_given_twice_is_refused(raw, name):
    first = (raw / "val_private_list.txt").read_text().splitlines(True)[0]
    append(raw / name, first)
    number = len((raw / name).read_text().splitlines())
    with pytest.raises(
        UsageError, match=rf"{name}, line {number}: .* is in .*val_private_list.txt, line 1 too, expected it once"
    ):
        CasiaSurf.scan(raw)


def test_windows_line_ends_and_blank_lines(raw, whole):
    path = raw / "train_list.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert CasiaSurf.scan(raw).samples == CasiaSurf.scan(whole).samples


def test_pictures_that_no_list_names_are_told(raw):
    for file in (
        "Training/real_part/X/real.rssdk/color/1.jpg",
        "Val/0000/._000000-color.jpg",
        "other/x.jpg",
        "Val/notes.txt",
    ):
        (raw / file).parent.mkdir(parents=True, exist_ok=True)
        (raw / file).touch()
    assert CasiaSurf.scan(raw).unlisted == ["Training/real_part/X/real.rssdk/color/1.jpg"]


def test_links_out_of_the_folder_are_refused(raw, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(raw / "root"))
    outside = tmp_path_factory.mktemp("outside")
    sample = CasiaSurf.scan(raw).samples[0]
    file = raw / sample.files["depth"]
    file.parent.mkdir(parents=True)
    (outside / "x.jpg").touch()
    file.symlink_to(outside / "x.jpg")
    with pytest.raises(UsageError, match=r"is a link to .*outside"):
        prepare(CasiaSurf, raw, say=lambda text: None)
    shutil.rmtree(raw / "Testing")
    (raw / "Testing").symlink_to(outside)
    with pytest.raises(UsageError, match=r"test_private_list.txt, line 1: .* is a link to .*outside"):
        CasiaSurf.scan(raw)


# Files that cannot be used


def test_bad_pictures_are_counted(whole, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    shutil.copytree(whole, raw)
    samples = CasiaSurf.scan(raw).samples
    (raw / samples[0].files["rgb"]).unlink()
    (raw / samples[1].files["depth"]).write_bytes(b"")
    (raw / samples[2].files["ir"]).write_text("no picture")
    whole_file = raw / samples[3].files["ir"]
    whole_file.write_bytes(whole_file.read_bytes()[:400])
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "root"))
    manifest = prepare(CasiaSurf, raw, allow_bad=True, say=lambda text: None)
    reasons = {name: (file, reason) for name, file, reason in manifest["skipped"]}
    assert list(reasons) == [s.id for s in samples[:4]]
    assert manifest["samples"] == 52
    for sample, modality, reason in zip(
        samples,
        ("rgb", "depth", "ir", "ir"),
        ("is missing", "is empty", "not a readable", "not a readable"),
        strict=False,
    ):
        file, why = reasons[sample.id]
        assert file == sample.files[modality]
        assert reason in why


def test_a_missing_modality_is_no_sample(tmp_path):
    for modality in MODALITIES:
        with pytest.raises(BadFile, match="is missing"):
            CasiaSurf.sources[modality].decode(tmp_path / "x.jpg", None)


# Audit


@pytest.fixture
def audited(root, tmp_path, monkeypatch):
    """The audit of the prepared table after a change."""
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    folder = tmp_path / "casia_surf"
    folder.mkdir()
    shutil.copy(root / "casia_surf/manifest.json", folder)
    for array in (root / "casia_surf").glob("*.npy"):
        (folder / array.name).symlink_to(array)

    def changed(change):
        rows = pd.read_parquet(root / "casia_surf/samples.parquet")
        change(rows)
        reseal(folder, rows)
        return audit(CasiaSurf)

    return changed


def test_audit_of_the_copy(audited):
    found = audited(lambda rows: None)
    assert found.violations["clean"] == []
    assert len(found.violations["legacy"]) == 3, "the published counts are others"


@pytest.mark.parametrize("column", ["group", "sha256_rgb", "sha256_depth", "sha256_ir"])
def test_audit_finds_planted_leaks(audited, column):
    def plant(rows):
        train, test = ((rows["clean"] == split).idxmax() for split in ("train", "test"))
        rows.loc[test, column] = rows.loc[train, column]

    assert any("1 of 14 test samples" in text for text in audited(plant).violations["clean"])


def test_audit_finds_a_class_that_is_missing(audited):
    def plant(rows):
        rows.loc[(rows["clean"] == "validation") & (rows["label"] == 0), "clean"] = ""

    assert any("validation has no sample of live" in text for text in audited(plant).violations["clean"])


def test_the_ids_of_its_splits_are_those_of_what_is_loaded(root, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(root))
    check_ids(CasiaSurf)
