import shutil
from collections import Counter
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from folding import check_folds, check_ids, check_module
from mmbench.data.demo.media import sound
from mmbench.data.demo.tuxpaint import write, write_speech
from mmbench.data.prepared import SPLITS
from mmbench.data.preparing.audio import fbank
from mmbench.data.preparing.audit import audit
from mmbench.data.preparing.manifest import verify
from mmbench.data.preparing.media import BadFile
from mmbench.data.preparing.pictures import read_image
from mmbench.data.preparing.prepare import check_listing, prepare
from mmbench.data.preparing.raw import Sample
from mmbench.data.sets import tuxpaint
from mmbench.data.sets.tuxpaint import Tuxpaint, decode_audio, decode_image, group_and_split, series
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import DataError, UsageError
from toy import reseal

STAMPS = "usr/share/tuxpaint/stamps"
ANY = Sample("any", 0, "")


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The demo's raw folder; not to be changed."""
    folder = tmp_path_factory.mktemp("tuxpaint-raw")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def ready(raw, tmp_path_factory) -> Path:
    """The folder of the prepared demo; not to be changed."""
    root = tmp_path_factory.mktemp("tuxpaint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMBENCH_DATA", str(root))
        prepare(Tuxpaint, raw, say=lambda text: None)
    return root


@pytest.fixture
def data(ready, monkeypatch) -> Path:
    """The prepared demo, in use."""
    monkeypatch.setenv("MMBENCH_DATA", str(ready))
    return ready / "tuxpaint"


@pytest.fixture
def bare(tmp_path) -> Path:
    """A raw folder with one silent, undescribed stamp in each category; to be changed."""
    for label, category in enumerate(Tuxpaint.classes):
        folder = tmp_path / STAMPS / category / "things"
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4), (label, 0, 0)).save(folder / "thing.png")
    return tmp_path


def find(samples, name) -> Sample:
    return next(s for s in samples if s.id == name)


# Listing


def test_every_png_of_the_categories_is_a_sample(raw):
    samples = Tuxpaint.scan(raw).samples
    expected = {
        str(p.relative_to(raw / STAMPS).with_suffix(""))
        for category in Tuxpaint.classes
        for p in (raw / STAMPS / category).rglob("*.png")
        if "mirror" not in p.name
    }
    assert [s.id for s in samples] == sorted(expected)
    assert Counter(Tuxpaint.classes[s.label] for s in samples) == Counter(name.split("/")[0] for name in expected)
    assert Counter(s.label for s in samples) == {label: 7 if label in (4, 7) else 6 for label in range(8)}


def test_the_text_is_the_first_line_and_what_is_not_there_is_absent(raw):
    samples = Tuxpaint.scan(raw).samples
    assert find(samples, "animals/birds/new_anim").text == {"text": "A new anim."}
    assert find(samples, "animals/birds/new_anim").files == {
        "image": f"{STAMPS}/animals/birds/new_anim.png",
        "audio": f"{STAMPS}/animals/birds/new_anim_desc_fr.ogg",
    }
    assert find(samples, "animals/birds/old_anim").files["audio"] is None
    assert find(samples, "vehicles/auto/old_vehi").text == {"text": ""}
    assert sum(s.files["audio"] is None for s in samples) == sum(s.text["text"] == "" for s in samples) == 1


def test_what_is_left_out_is_said(raw):
    listing = Tuxpaint.scan(raw)
    assert listing.notes == ["1 stamps are drawn in SVG only, which is not read: left out"]
    assert listing.unlisted == [f"{STAMPS}/seasonal/winter/gift_desc_fr.ogg"]


@pytest.mark.parametrize("variant", ["mirror", "flip", "mirrorflip"])
def test_variants_of_a_stamp_are_no_samples(bare, variant):
    folder = bare / STAMPS / "animals/things"
    shutil.copy(folder / "thing.png", folder / f"thing_{variant}.png")
    (folder / f"other_{variant}.svg").write_text("<svg/>")
    listing = Tuxpaint.scan(bare)
    assert len(listing.samples) == 8
    assert not listing.notes


@pytest.mark.parametrize("inner", ["", "stamps"])
def test_the_categories_may_lie_in_other_places(raw, tmp_path, inner):
    shutil.copytree(raw / STAMPS, tmp_path / inner, dirs_exist_ok=True)
    there, here = Tuxpaint.scan(raw).samples, Tuxpaint.scan(tmp_path).samples
    for a, b in zip(there, here, strict=True):
        assert (a.id, a.label, a.group, a.text, a.legacy) == (b.id, b.label, b.group, b.text, b.legacy)
        assert (tmp_path / b.files["image"]).read_bytes() == (raw / a.files["image"]).read_bytes()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("seasonal/halloween/grave-a", "seasonal/halloween/grave-b", True),
        ("plants/flowers/flower1", "plants/flowers/flower10", True),
        ("symbols/alphabets/filled/a_filled", "symbols/alphabets/filled/z_filled", True),
        ("seasonal/hanukkah/dreydl", "seasonal/hanukkah/dreydl-hay", True),
        ("symbols/math/0", "symbols/math/9", True),
        ("food/fruit/Apricot_whole", "food/fruit/apricot", True),
        ("animals/fish/shrimp", "animals/birds/shrimp", False),
        ("animals/cats/lion", "animals/cats/lioness", False),
        ("symbols/math/0", "symbols/math/plus", False),
    ],
)
def test_series(one, other, same):
    assert (series(PurePath(one)) == series(PurePath(other))) == same


def test_groups_are_what_series_and_descriptions_link():
    names = {
        "animals/a/spider": "A spider.",
        "animals/a/spider2": "Another",
        "seasonal/b/ghost": "a  SPIDER",
        "seasonal/b/skull": "A skull.",
        "town/c/other": "",
        "town/c/unlike": "!",
    }
    samples = [Sample(n, 0, series(PurePath(n)), {}, {"text": t}) for n, t in names.items()]
    groups = [s.group for s in group_and_split(samples)]
    assert groups == ["animals/a/spider"] * 3 + ["seasonal/b/skull", "town/c/other", "town/c/unlike"]


def test_groups_of_the_demo_by_brute_force(raw):
    samples = Tuxpaint.scan(raw).samples

    def linked(a: Sample, b: Sample) -> bool:
        return series(PurePath(a.id)) == series(PurePath(b.id)) or a.text["text"] == b.text["text"] != ""

    for start in samples:
        reached, todo = {start.id}, [start]
        while todo:
            a = todo.pop()
            more = [b for b in samples if linked(a, b) and b.id not in reached]
            reached |= {b.id for b in more}
            todo += more
        assert {s.id for s in samples if s.group == start.group} == reached
    assert Counter(Counter(s.group for s in samples).values()) == {2: 9, 1: 32}


def test_legacy_is_a_random_fifth_of_every_class(raw):
    samples = [
        Sample(f"animals/x/{w}", label, w, {}, {"text": ""})
        for label in range(3)
        for w in map(str, range(label, 300, 3))
    ]
    split = group_and_split(samples)
    assert Counter((s.label, s.legacy) for s in split) == {
        (c, p): n for c in range(3) for p, n in (("test", 20), ("train", 80))
    }
    assert [s.legacy for s in split] != sorted(s.legacy for s in split)
    assert Tuxpaint.scan(raw).samples == Tuxpaint.scan(raw).samples


def table(groups, labels, pictures=None, sounds=None) -> pd.DataFrame:
    count = len(groups)
    pictures, sounds = pictures or [str(i) for i in range(count)], sounds or [""] * count
    return pd.DataFrame({"group": groups, "label": labels, "sha256_image": pictures, "sha256_audio": sounds})


def test_clean_has_seventy_ten_and_twenty_percent_of_every_class():
    frame = table([f"g{i // 2}" for i in range(2000)], [i // 2 % 4 for i in range(2000)])
    frame["split"] = Tuxpaint.clean(frame)
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    for _, part in frame.groupby("label"):
        assert part["split"].value_counts().to_dict() == {"train": 350, "test": 100, "validation": 50}


def test_clean_keeps_equal_recordings_and_pictures_together():
    count = 600
    sounds = [f"s{i % 150}" if i % 3 else "" for i in range(count)]
    pictures = [f"p{min(i, count - 1 - i)}" for i in range(count)]
    frame = table([f"g{i}" for i in range(count)], [0] * count, pictures, sounds)
    frame["split"] = Tuxpaint.clean(frame)
    assert set(frame["split"]) == set(SPLITS)
    assert (frame[frame["sha256_audio"] != ""].groupby("sha256_audio")["split"].nunique() == 1).all()
    assert (frame.groupby("sha256_image")["split"].nunique() == 1).all()


# Decoding


def test_a_padded_picture_is_whole_and_in_the_middle_of_white(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 10)).save(tmp_path / "wide.png")
    expected = np.full((16, 24, 3), 255)
    expected[2:14] = (255, 0, 10)
    assert np.array_equal(read_image(tmp_path / "wide.png", (16, 24), pad=True), expected)
    assert np.array_equal(
        read_image(tmp_path / "wide.png", (24, 16), pad=True)[:, 0, 1], [255] * 8 + [0] * 8 + [255] * 8
    )
    assert (read_image(tmp_path / "wide.png", (24, 16))[..., 1] == 0).all()


def test_transparent_parts_are_white_and_edges_are_in_place(tmp_path):
    pixels = np.zeros((64, 32, 4), np.uint8)
    pixels[:32] = (0, 200, 0, 255)  # the lower half is black, but transparent
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = decode_image(tmp_path / "a.png", ANY)["pixels"]
    assert got.shape == (128, 128, 3)
    assert got.dtype == np.uint8
    assert (got[:63, 33:95] == (0, 200, 0)).all()
    assert (got[65:] == 255).all()
    assert (got[:, :32] == 255).all()
    assert (got[:, 96:] == 255).all()


@pytest.mark.parametrize("mode", ["LA", "P", "L", "1", "I;16", "RGB"])
def test_stamps_of_every_kind_are_read(tmp_path, mode):
    image = Image.new("L", (30, 10), 0)
    (image.convert(mode) if mode != "I;16" else Image.new(mode, (30, 10), 0)).save(tmp_path / "a.png")
    got = decode_image(tmp_path / "a.png", ANY)["pixels"]
    assert (got[64] == 0).all()
    assert (got[0] == 255).all()


def hear(monkeypatch, said) -> dict[str, np.ndarray]:
    monkeypatch.setattr(tuxpaint, "read_audio", lambda path: np.asarray(said, np.float32))
    return dict(decode_audio(Path("some.ogg"), ANY))


def test_sound_is_stored_as_waveform_and_filter_bank(monkeypatch):
    said = sound(3, 1.0, 16_000, "said")
    got = hear(monkeypatch, said)
    assert got["waveform"].dtype == np.int16
    assert np.abs(got["waveform"][:16_000] / 32767 - said).max() <= 0.51 / 32767
    assert not got["waveform"][16_000:].any()
    assert len(got["waveform"]) == 41_200
    assert got["fbank"].shape == (256, 128)
    assert np.array_equal(got["fbank"], fbank(torch.from_numpy(said), 256).numpy())
    assert not got["fbank"][98:].any()
    assert got["fbank"][97].all()


def test_long_sound_is_cut_where_the_last_frame_ends(monkeypatch):
    said = sound(3, 3.0, 16_000, "long")
    got = hear(monkeypatch, said)
    assert np.array_equal(got["waveform"], np.round(said[:41_200] * 32767))
    assert np.array_equal(got["fbank"], fbank(torch.from_numpy(said), 1024).numpy()[:256])
    assert got["fbank"][255].all()


def test_sound_beyond_full_scale_is_brought_down_not_clipped(monkeypatch):
    said = 5 * sound(3, 1.0, 16_000, "loud")
    got = hear(monkeypatch, said)["waveform"][:16_000].astype(np.float64)
    assert np.abs(got).max() == 32767
    assert np.allclose(got / 32767, said / np.abs(said).max(), atol=1e-4)
    assert (np.abs(got) == 32767).sum() == 1


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"no media" * 100), "not a? ?readable"),
        (cut_short, "not a? ?readable|zero|holds no|is cut off"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
    ],
)
@pytest.mark.parametrize("kind", [".png", "_desc_fr.ogg"])
def test_what_cannot_be_decoded_is_reported(raw, tmp_path, kind, spoil, reason):
    path = Path(shutil.copy(raw / f"{STAMPS}/animals/birds/new_anim{kind}", tmp_path))
    decode = decode_image if kind == ".png" else decode_audio
    decode(path, ANY)
    spoil(path)
    with pytest.raises(BadFile, match=reason):
        decode(path, ANY)


def test_speech_in_stereo_is_read(tmp_path):
    said = sound(3, 0.5, 44_100, "said")
    write_speech(tmp_path / "a.ogg", said)
    got = decode_audio(tmp_path / "a.ogg", ANY)["waveform"]
    heard = got[1000:7000] / 32767
    assert np.abs(np.fft.rfft(heard)).argmax() * 16_000 / 6000 == pytest.approx(560, abs=25)
    assert heard.std() == pytest.approx(said.std(), rel=0.1)  # channels are averaged, not added up


# Bad raw folders


def test_a_folder_without_stamps_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no stamps; expected the folder usr/share/tuxpaint/stamps"):
        Tuxpaint.scan(tmp_path)


def test_a_category_that_is_missing_is_named(bare):
    shutil.rmtree(bare / STAMPS / "plants")
    with pytest.raises(UsageError, match=r"stamps/plants is missing"):
        Tuxpaint.scan(bare)


def test_categories_without_pictures_are_refused(bare):
    for path in bare.rglob("*.png"):
        path.unlink()
    with pytest.raises(UsageError, match="no sample found"):
        check_listing(Tuxpaint, bare, Tuxpaint.scan(bare))


def test_a_description_in_another_encoding_is_counted(bare):
    (bare / STAMPS / "town/things/thing.txt").write_bytes("A café.\n".encode("latin-1"))
    listing = Tuxpaint.scan(bare)
    assert "A caf\ufffd." in {s.text["text"] for s in listing.samples}
    assert any("thing.txt: 1 line with bytes that are not UTF-8" in note for note in listing.notes)


def test_what_systems_leave_behind_does_not_count(bare):
    before = Tuxpaint.scan(bare)
    for name in (
        "town/things/._thing.png",
        "town/things/.x/thing2.png",
        "__MACOSX/town/thing.png",
        "town/__MACOSX/a.png",
    ):
        (bare / STAMPS / name).parent.mkdir(parents=True, exist_ok=True)
        (bare / STAMPS / name).touch()
    assert Tuxpaint.scan(bare) == before


@pytest.mark.parametrize("content", ["", "\n", "  \nfr.utf8=Un truc.\n"])
def test_an_empty_description_is_an_absent_one(bare, content):
    (bare / STAMPS / "town/things/thing.txt").write_text(content)
    assert find(Tuxpaint.scan(bare).samples, "town/things/thing").text == {"text": ""}


@pytest.mark.parametrize("name", ["thing.png", "thing.txt", "thing_desc_fr.ogg"])
def test_a_link_out_of_the_folder_is_refused(bare, tmp_path_factory, name):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("secret")
    link = bare / STAMPS / "town/things" / name
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    with pytest.raises(UsageError, match=rf"{name} is a link to .*secret; expected a file in"):
        check_listing(Tuxpaint, bare, Tuxpaint.scan(bare))


def test_a_category_that_is_a_link_out_of_the_folder_is_refused(bare, tmp_path_factory):
    shutil.rmtree(bare / STAMPS / "town")
    (bare / STAMPS / "town").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(UsageError, match="is a link to"):
        Tuxpaint.scan(bare)


def test_bad_stamps_are_counted_and_end_preparing_if_many(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    (bare / STAMPS / "food/things/thing.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"1 of 8 samples cannot be used(.|\n)*food/things/thing: .*thing\.png not a readable picture"
    ):
        prepare(Tuxpaint, bare, say=lambda text: None)
    manifest = prepare(Tuxpaint, bare, allow_bad=True, say=lambda text: None)
    assert manifest["samples"] == 7
    assert [item[0] for item in manifest["skipped"]] == ["food/things/thing"]


# The prepared demo


def test_the_prepared_demo_is_whole(data):
    frame, manifest = Tuxpaint.table(), Tuxpaint.read_manifest()
    assert manifest["samples"] == len(frame) == 50
    assert not manifest["skipped"]
    assert verify(Tuxpaint) == []
    for modality, absent in (
        ("image", []),
        ("audio", ["animals/birds/old_anim"]),
        ("text", ["vehicles/auto/old_vehi"]),
    ):
        assert frame["id"][~frame[f"present_{modality}"]].tolist() == absent


def test_clean_splits_of_the_demo_are_disjoint_and_hold_every_class(data):
    frame = Tuxpaint.table()
    for key in ("group", "sha256_image", "sha256_audio", "text_text"):
        some = frame[frame[key] != ""]
        assert (some.groupby(key)["clean"].nunique() == 1).all()
    for split in SPLITS:
        assert set(frame["label"][frame["clean"] == split]) == set(range(8))
    for one in frame.itertuples():
        for other in frame.itertuples():
            if series(PurePath(one.id)) == series(PurePath(other.id)):
                assert one.clean == other.clean


def test_folds_of_the_demo_are_of_whole_series_and_of_equal_recordings(data):
    frame = Tuxpaint.table()
    check_folds(Tuxpaint.parts(), tuxpaint.linked(frame))
    check_module(lambda **arguments: Tuxpaint(tokenizers={"text": HashedText().tokenize}, **arguments), len(frame))
    parts = frame.assign(part=Tuxpaint.parts().clean)
    for key in ("group", "sha256_image", "sha256_audio", "text_text"):
        some = parts[parts[key] != ""]
        assert (some.groupby(key)["part"].nunique() == 1).all()
    shuffled = frame.sample(frac=1, random_state=0)
    assert Tuxpaint.part_of(shuffled) == parts["part"].loc[shuffled.index].tolist()


def test_a_subset_of_its_modalities(data):
    module = Tuxpaint(modalities=("audio", "image"), image_sizes={"image": 64}, views={"audio": "waveform"}, fold=0)
    assert (module.modalities, module.text_modalities, module.conditioning) == (("image", "audio"), (), "image")
    assert module.views == {"image": "pixels", "audio": "waveform"}
    assert set(module.augmentations) == set(module.resizing) == {"image"}
    train = module.splits.train
    assert list(train.inputs) == ["image", "audio"]
    absent = ~Tuxpaint.table()["present_audio"]
    assert int((~train.present).sum()) == int(absent[train.inputs["audio"].rows].sum())
    spoken = Tuxpaint(modalities=("audio", "text"), tokenizers={"text": HashedText().tokenize})
    assert (spoken.views, dict(spoken.augmentations), spoken.conditioning) == ({"audio": "fbank"}, {}, "text")
    for settings in ({"image_sizes": {"image": 64}}, {"views": {"image": "pixels"}}):
        with pytest.raises(UsageError, match="tuxpaint: a setting of image, which is left out of the modalities"):
            Tuxpaint(modalities=("audio", "text"), tokenizers={"text": HashedText().tokenize}, **settings)


def test_the_audit_of_the_demo_finds_legacy_leaking_and_clean_not(data):
    found = audit(Tuxpaint)
    assert found.violations == {"clean": [], "legacy": []}
    assert "1 samples have no audio" in found.facts
    assert any("legacy" in line and "share their group with train" in line for line in found.findings)
    assert any(line.startswith("2 samples share the text of text with a sample of another") for line in found.findings)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("plants/trees/long_plan", "share their group"),
        ("seasonal/winter/snow", "share their audio"),
        ("seasonal/winter/snow", "share their text"),
    ],
)
def test_the_audit_finds_a_planted_leak(data, tmp_path, monkeypatch, name, what):
    shutil.copytree(data, tmp_path / "tuxpaint")
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    frame = Tuxpaint.table()
    row = frame["id"] == name
    frame.loc[row, "clean"] = "test" if frame["clean"][row].item() == "train" else "train"
    frame.to_parquet(tmp_path / "tuxpaint/samples.parquet", index=False)
    assert verify(Tuxpaint)
    reseal(tmp_path / "tuxpaint", frame)
    assert any(what in line for line in audit(Tuxpaint).violations["clean"])


def test_stored_pictures_show_the_stamp_of_their_row(data, raw):
    frame, pixels = Tuxpaint.table(), np.load(data / "pixels.npy")
    for row in range(0, len(frame), 7):
        with Image.open(raw / STAMPS / f"{frame['id'][row]}.png") as image:
            ground = Image.new("RGBA", image.size, "white")
            flat = np.asarray(Image.alpha_composite(ground, image).convert("RGB")).astype(float)
        height, width = flat.shape[:2]
        scale = 128 / max(height, width)
        inner = pixels[row].astype(float)
        h, w = round(height * scale), round(width * scale)
        top, left = round((128 - h) / 2), round((128 - w) / 2)
        inside = inner[top : top + h, left : left + w]
        assert np.allclose(inside.mean(axis=(0, 1)), flat.mean(axis=(0, 1)), atol=4)
        assert inner.sum() - inside.sum() == 255 * 3 * (128 * 128 - h * w)


def test_stored_sounds_have_the_pitch_of_their_class(data):
    frame = Tuxpaint.table()
    waveform, bank = np.load(data / "waveform.npy"), np.load(data / "fbank.npy")
    for row, label in enumerate(frame["label"]):
        if not frame["present_audio"][row]:
            assert not waveform[row].any()
            assert not bank[row].any()
            continue
        if frame["id"][row] == "vehicles/auto/snow_vehi":
            label = 4  # it has the recording of the other snow
        pitch = np.abs(np.fft.rfft(waveform[row])).argmax() * 16_000 / 41_200
        assert abs(pitch - (200 + 120 * label)) < 25
        last = np.flatnonzero(waveform[row])[-1] + 1
        frames = 1 + (last - 400) // 160
        again = fbank(torch.from_numpy(waveform[row, :last] / 32767), 256).numpy()
        assert np.abs(again[: frames - 1, 20:] - bank[row, : frames - 1, 20:]).mean() < 0.05


@pytest.mark.parametrize(("protocol", "view"), [("clean", "fbank"), ("legacy", "waveform")])
def test_a_trial_gets_batches(data, protocol, view):
    module = Tuxpaint(
        protocol=protocol, batch_size=8, seed=0, tokenizers={"text": HashedText().tokenize}, views={"audio": view}
    )
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch.inputs["image"].shape == (8, 3, 128, 128)
    assert batch.inputs["image"].dtype == torch.uint8
    shape, dtype = ((256, 128), torch.float16) if view == "fbank" else ((41_200,), torch.int16)
    assert (tuple(batch.inputs["audio"].shape[1:]), batch.inputs["audio"].dtype) == (shape, dtype)
    assert batch.present.shape == (8, 3)
    assert module.spec.num_classes == 8


def test_the_ids_of_its_splits_are_those_of_what_is_loaded(data):
    check_ids(Tuxpaint)
