"""``mmbench data add --hf``: what Hugging Face's ``save_to_disk`` wrote, as the package itself writes it."""

import io
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image as Picture

from mmbench.cli import main
from mmbench.data.adding.columns import Plain, Rows
from mmbench.data.adding.huggingface import export, names_of
from mmbench.errors import StoreError, UsageError

hf = pytest.importorskip("datasets")
hf.disable_progress_bars()
CLASSES = ["tone", "noise", "silence"]
FILE = {"bytes": hf.Value("binary"), "path": hf.Value("string")}


def wav(hertz: float, seconds: float = 0.3) -> bytes:
    time = np.arange(int(16_000 * seconds)) / 16_000
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((20_000 * np.sin(2 * np.pi * hertz * time)).astype("<i2").tobytes())
    return stream.getvalue()


def png(grey: int) -> bytes:
    stream = io.BytesIO()
    Picture.new("RGB", (8, 8), (grey, grey, grey)).save(stream, "PNG")
    return stream.getvalue()


def made(rows: list[dict], features: dict, casts: dict | None = None) -> "hf.Dataset":
    dataset = hf.Dataset.from_list(rows, features=hf.Features(features))
    for column, feature in (casts or {}).items():
        dataset = dataset.cast_column(column, feature)
    return dataset


def audio(rows: int, first: int = 0) -> "hf.Dataset":
    return made(
        [
            {
                "audio": {"bytes": wav(300 + 100 * i), "path": f"clip{i}.wav"},
                "label": i % 3,
                "speaker": f"s{i // 2}",
                "said": f"this is number {i}" if i % 4 else None,
            }
            for i in range(first, first + rows)
        ],
        {"audio": FILE, "label": hf.ClassLabel(names=CLASSES), "speaker": hf.Value("string"), "said": hf.Value("string")},
        {"audio": hf.Audio(decode=False)},
    )  # fmt: skip


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "metadata.parquet")


def quietly(folder: Path, into: Path, label: str | None = None, **others):
    return export(folder, into, label, say=lambda text: None, **others)


def test_sounds_of_several_splits_and_shards(tmp_path):
    parts = {"train": audio(7), "test": audio(3, first=8)}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "in", num_shards={"train": 3, "test": 1})
    result = quietly(tmp_path / "in", tmp_path / "out")
    assert result.declaration == {"label": "label", "classes": CLASSES, "split": "split"}
    assert result.unused == result.notes == []
    table = table_of(tmp_path / "out")
    assert table["split"].tolist() == ["train"] * 7 + ["test"] * 3
    assert table["label"].tolist() == [CLASSES[i % 3] for i in (*range(7), 8, 9, 10)]
    assert table["audio_file_name"].tolist() == [f"audio/train-{i}.wav" for i in range(7)] + [
        f"audio/test-{i}.wav" for i in range(3)
    ]
    for path, i in zip(table["audio_file_name"], (*range(7), 8, 9, 10), strict=True):
        assert (tmp_path / "out" / path).read_bytes() == wav(300 + 100 * i)
    assert table["said"].isna().tolist() == [i % 4 == 0 for i in (*range(7), 8, 9, 10)]


def test_pictures_texts_and_a_label_that_is_a_text(tmp_path):
    rows = [
        {"A picture": {"bytes": png(i), "path": None} if i != 1 else None, "caption": f"text {i}", "category": "ab"[i % 2]}
        for i in range(4)
    ]  # fmt: skip
    features = {"A picture": FILE, "caption": hf.Value("large_string"), "category": hf.Value("string")}
    made(rows, features, {"A picture": hf.Image()}).save_to_disk(tmp_path / "in")
    result = quietly(tmp_path / "in", tmp_path / "out")
    assert result.declaration == {}, "what a text means is inferred as of any table"
    table = table_of(tmp_path / "out")
    assert table.columns.tolist() == ["a_picture_file_name", "caption", "category"]
    assert table["a_picture_file_name"].fillna("absent").tolist() == [
        "a_picture/0.png",
        "absent",
        "a_picture/2.png",
        "a_picture/3.png",
    ]
    assert (tmp_path / "out/a_picture/3.png").read_bytes() == png(3)


def test_vectors_and_numbers(tmp_path):
    rows = [
        {"emb": [i, 1.5, -2.0] if i != 1 else None, "fixed": [1.0 * i, 2.0], "one": [[1.0, i]] if i else None,
         "size": i, "weight": i / 2 if i else None, "ok": i > 1, "huge": 2**62 + i, "label": i % 2}
        for i in range(5)
    ]  # fmt: skip
    features = {
        "emb": hf.List(hf.Value("float64")), "fixed": hf.List(hf.Value("float16"), length=2), "one": hf.Array2D((1, 2), "float32"),
        "size": hf.Value("int8"), "weight": hf.Value("float32"), "ok": hf.Value("bool"), "huge": hf.Value("uint64"),
        "label": hf.ClassLabel(names=["no", "yes"]),
    }  # fmt: skip
    made(rows, features).save_to_disk(tmp_path / "in", num_shards=2)
    quietly(tmp_path / "in", tmp_path / "out")
    nan = np.nan
    np.testing.assert_array_equal(
        np.load(tmp_path / "out/emb.npy"), np.float32([[0, 1.5, -2], [nan] * 3, *([i, 1.5, -2] for i in (2, 3, 4))])
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out/fixed.npy"), np.float32([[i, 2] for i in range(5)]))
    np.testing.assert_array_equal(
        np.load(tmp_path / "out/one.npy"), np.float32([[nan, nan], *([1, i] for i in range(1, 5))])
    )
    table = table_of(tmp_path / "out")
    assert table.columns.tolist() == ["size", "weight", "ok", "huge", "label"]
    assert table["size"].tolist() == list(range(5))
    assert table["weight"].isna().tolist() == [True] + [False] * 4
    assert table["huge"][4] == str(2**62 + 4)


def test_columns_that_cannot_be_used_are_named(tmp_path):
    features = {
        "text": hf.Value("string"), "label": hf.ClassLabel(names=["a", "b"]), "day": hf.Value("date32"), "raw": hf.Value("binary"),
        "nest": {"x": hf.Value("int32")}, "tokens": hf.List(hf.Value("int32")), "steps": hf.Array2D((4, 2), "float32"),
        "ragged": hf.List(hf.Value("float32")), "none": hf.List(hf.Value("float32")), "words": hf.List(hf.Value("string")),
        "pair": hf.Translation(["en", "fr"]),
    }  # fmt: skip
    row = {"text": "t", "label": 0, "day": None, "raw": b"x", "nest": {"x": 1}, "tokens": [1], "steps": [[1.0, 2]] * 4,
           "none": None, "words": ["a"], "pair": {"en": "a", "fr": "b"}}  # fmt: skip
    rows = [row | {"ragged": [1.0, 2.0]}, row | {"ragged": [1.0], "label": 1}]
    hf.Dataset.from_list(rows, features=hf.Features(features)).save_to_disk(tmp_path / "in")
    result = quietly(tmp_path / "in", tmp_path / "out")
    assert dict(result.unused) == {
        "day": "dates or times; cast it to string to use it",
        "raw": "bytes of no type; say what they are: dataset.cast_column(…, Image()), Audio() or Video()",
        "nest": "nested values; dataset.flatten() makes columns of them",
        "pair": "nested values; dataset.flatten() makes columns of them",
        "tokens": "lists of whole numbers, such as tokens; if they are features, cast them to float32",
        "steps": "4 × 2; expected one vector a sample: average over time first",
        "ragged": f"its vectors are of different widths ({tmp_path}/in, row 1 (from 0), column 'ragged'); pad them, or average over "
        "time",
        "none": "it is empty",
        "words": "lists of string",
    }
    assert table_of(tmp_path / "out").columns.tolist() == ["text", "label"]
    assert not list((tmp_path / "out").glob("*.npy"))


def test_rows_without_a_label_are_left_out_and_told(tmp_path):
    features = {"text": hf.Value("string"), "label": hf.ClassLabel(names=["a", "b"]), "v": hf.List(hf.Value("float32"))}
    rows = [{"text": f"t{i}", "label": label, "v": [i]} for i, label in enumerate([0, -1, None, 1, 0])]
    parts = {"train": made(rows, features), "unsupervised": made([{"text": "x", "label": -1, "v": [9]}], features)}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "in")
    result = quietly(tmp_path / "in", tmp_path / "out")
    assert result.notes[0] == (
        f"3 rows have no label, such as {tmp_path}/in/train, row 1 (from 0), column 'label': left out"
    )
    assert table_of(tmp_path / "out")["text"].tolist() == ["t0", "t3", "t4"]
    assert np.load(tmp_path / "out/v.npy").tolist() == [[0], [3], [4]]
    hf.DatasetDict({"test": parts["unsupervised"]}).save_to_disk(tmp_path / "none")
    with pytest.raises(UsageError, match="none: of its 1 rows none has a label"):
        quietly(tmp_path / "none", tmp_path / "out2")


@pytest.mark.parametrize(
    ("splits", "declared"),
    [
        (["train"], False), (["train", "validation"], False), (["train", "test", "more"], False),
        (["training", "dev", "test"], True),
    ],
)  # fmt: skip
def test_splits_that_are_not_ours_are_not_taken_for_ours(splits, declared, tmp_path):
    features = {"text": hf.Value("string"), "label": hf.ClassLabel(names=["a", "b"])}
    hf.DatasetDict({name: made([{"text": name, "label": 0}], features) for name in splits}).save_to_disk(
        tmp_path / "in"
    )
    result = quietly(tmp_path / "in", tmp_path / "out")
    assert ("split" in result.declaration) == declared
    assert len(result.notes) == (not declared and len(splits) > 1)
    columns = table_of(tmp_path / "out").columns.tolist()
    assert columns == ["text", "label", *(["split"] if declared else ["hf_split"] if len(splits) > 1 else [])]


def test_which_column_of_classes_is_the_label(tmp_path):
    kind = hf.ClassLabel(names=["a", "b"])
    features = {"genre": kind, "mood": kind, "text": hf.Value("string")}
    row = {"genre": 0, "mood": 1, "text": "t"}
    made([row], features).save_to_disk(tmp_path / "named")
    assert quietly(tmp_path / "named", tmp_path / "1").declaration["label"] == "genre", "it is called like a label"
    assert quietly(tmp_path / "named", tmp_path / "2", "mood").declaration["label"] == "mood"
    made([row], features).rename_column("genre", "key").save_to_disk(tmp_path / "two")
    with pytest.raises(UsageError, match="two: key, mood are columns of classes; name the label: --label key"):
        quietly(tmp_path / "two", tmp_path / "3")
    with pytest.raises(UsageError, match=r"--label: .* has no column 'moood'; did you mean 'mood'"):
        quietly(tmp_path / "two", tmp_path / "4", "moood")
    made([row], features).rename_columns({"genre": "lang_id", "mood": "intent_class"}).save_to_disk(tmp_path / "ends")
    assert quietly(tmp_path / "ends", tmp_path / "6").declaration["label"] == "intent_class"
    made([row], features).remove_columns("mood").rename_column("genre", "speaker").save_to_disk(tmp_path / "group")
    assert quietly(tmp_path / "group", tmp_path / "5").declaration == {}, "who speaks is no label"


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["Audio", "audio"], ["audio_2", "audio"]),
        (["mel spec", "mel-spec"], ["mel_spec", "mel_spec_2"]),
        (["图", "image", "image_file_name"], ["column", "image_2", "image_file_name"]),
    ],
)
def test_names_of_modalities_are_plain_and_do_not_clash(columns, names):
    assert names_of(columns) == names
    assert len({*names, *(f"{name}_file_name" for name in names)} & set(columns)) <= 1


def test_paths_of_files_that_are_not_in_it_are_no_texts(tmp_path):
    dataset = audio(4).add_column("file", [f"/home/me/{i}.WAV" for i in range(4)])
    dataset.add_column("note", ["see a.wav", "", "", "b"]).save_to_disk(tmp_path / "in")
    result = quietly(tmp_path / "in", tmp_path / "out")
    assert [column for column, _ in result.unused] == ["file"]
    assert table_of(tmp_path / "out").columns.tolist() == ["audio_file_name", "label", "speaker", "said", "note"]


def test_more_rows_than_any_table_may_have_are_refused_before_they_are_looked_at(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("mmbench.data.adding.saved.MOST_ROWS", 3)
    with pytest.raises(UsageError, match="train: has 4 rows, expected at most 3"):
        quietly(saved, tmp_path / "out")


def test_a_long_text_that_a_dictionary_says_often_is_not_written_out(tmp_path, monkeypatch):
    monkeypatch.setattr("mmbench.data.adding.columns.MOST_BYTES", 1 << 20)
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), ["x" * 1000])
    with pytest.raises(
        UsageError, match=r"column 'a': the values up to this one take 3,012,000 bytes, expected at most"
    ):
        Plain("a", pa.string()).add(words, Rows([], lambda row, column: f"column '{column}'"))


# What is wrong with a folder


@pytest.fixture
def saved(tmp_path):
    hf.DatasetDict({"train": audio(4), "test": audio(2)}).save_to_disk(tmp_path / "in")
    return tmp_path / "in"


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def shard(folder: Path) -> Path:
    return folder / "train/data-00000-of-00001.arrow"


MISTAKES = {
    "shard outside": (
        lambda f: edit(f / "train/state.json", _data_files=[{"filename": "../../x.arrow"}]),
        r"train/state.json: the path '../../x.arrow' leads out of",
    ),
    "split outside": (lambda f: edit(f / "dataset_dict.json", splits=["../x"]), "expected names of splits, .* got '../x'"),
    "link outside": (
        lambda f: (shutil.move(shard(f), f.parent / "x"), shard(f).symlink_to(f.parent / "x")),
        "is a link to .*/x; expected a file in",
    ),
    "no shard": (lambda f: shard(f).unlink(), "data-00000-of-00001.arrow is missing; copy the whole folder"),
    "cut off": (
        lambda f: shard(f).write_bytes(shard(f).read_bytes()[:-8]),
        "does not end as an Arrow stream does; save the data set again",
    ),
    "damaged": (lambda f: shard(f).write_bytes(bytes(64) + b"\xff\xff\xff\xff\0\0\0\0"), "arrow is damaged"),
    "not JSON": (lambda f: (f / "train/state.json").write_text("{"), "train/state.json is damaged"),
    "no JSON object": (lambda f: (f / "dataset_dict.json").write_text("[]"), "expected a JSON object"),
    "no state": (lambda f: (f / "train/state.json").unlink(), "train/state.json is missing"),
    "other columns": (
        lambda f: (shutil.rmtree(f / "test"), audio(2).remove_columns("said").save_to_disk(f / "test")),
        "test: its columns are not those of .*train: said; expected the same in every split",
    ),
    "other classes": (
        lambda f: (
            shutil.rmtree(f / "test"),
            audio(2).cast_column("label", hf.ClassLabel(names=CLASSES[::-1])).save_to_disk(f / "test"),
        ),
        "column 'label' is another one than in .*train: ClassLabel .int64. of silence, noise, tone, there ClassLabel",
    ),
    "label out of range": (
        lambda f: [
            edit(f / part / "dataset_info.json", features=smaller(f / part / "dataset_info.json"))
            for part in ("train", "test")
        ],
        r"train, row 2 \(from 0\), column 'label': label 2, expected 0 to 1",
    ),
    "compressed": (
        lambda f: rewrite(shard(f), compression="zstd"),
        "arrow is compressed, which save_to_disk does not do",
    ),
    "another type": (
        lambda f: [
            edit(f / part / "dataset_info.json", features=smaller(f / part / "dataset_info.json", said={"_type": "Image"}))
            for part in ("train", "test")
        ],
        "column 'said' is called Image, but holds string",
    ),
}  # fmt: skip


def rewrite(path: Path, **options) -> None:
    """Write an Arrow file anew in another way."""
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        table = stream.read_all()
    chosen = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=chosen) as writer:
        writer.write_table(table)


def smaller(info: Path, **features) -> dict:
    """The features of a file with one class less, or with others."""
    known = json.loads(info.read_text())["features"]
    return known | (features or {"label": {"_type": "ClassLabel", "names": CLASSES[:2]}})


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_what_is_wrong_is_named(mistake, saved, tmp_path):
    damage, message = MISTAKES[mistake]
    damage(saved)
    with pytest.raises(UsageError, match=message):
        quietly(saved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["snapshots/x", "refs/main"], "is a cache of the Hugging Face hub"),
        (["dataset_info.json", "a-train.arrow"], "as a cache of load_dataset; expected what datasets.load_dataset"),
        (["squad.py", "README.md"], "a data set by a script, which is never executed here"),
        (["data/a.parquet", "README.md"], "it has no dataset_dict.json or state.json"),
        (["metadata.csv"], "a folder with a table of samples is added without --hf"),
    ],
)
def test_folders_of_another_kind(files, message, tmp_path):
    for file in files:
        (tmp_path / "in" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / file).write_text("raise SystemExit")
    with pytest.raises(UsageError, match=message):
        quietly(tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        quietly(tmp_path / "nowhere", tmp_path / "out")


def test_a_path_without_bytes_is_copied_from_below_the_folder_and_from_nowhere_else(tmp_path):
    def save(paths: list[str]) -> Path:
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        audio(len(paths)).save_to_disk(tmp_path / "in")
        (tmp_path / "in/media").mkdir()
        (tmp_path / "in/media/a.wav").write_bytes(wav(400))
        path = tmp_path / "in/data-00000-of-00001.arrow"
        with pa.ipc.open_stream(path.read_bytes()) as stream:
            table = stream.read_all()
        kind = table.schema.field("audio").type
        held = pa.array([{"bytes": None, "path": p} for p in paths], kind)
        table = table.set_column(0, table.schema.field("audio"), held)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return tmp_path / "in"

    quietly(save(["media/a.wav", f"{tmp_path}/in/media/a.wav", "media/gone.wav"]), tmp_path / "out")
    files = table_of(tmp_path / "out")["audio_file_name"].tolist()
    assert [(tmp_path / "out" / file).exists() for file in files] == [True, True, False], "preparing counts the third"
    assert (tmp_path / "out" / files[1]).read_bytes() == wav(400)
    (tmp_path / "secret").write_bytes(b"secret")
    for path in (f"{tmp_path}/secret", "../secret"):
        with pytest.raises(
            UsageError, match=r"in, row 0 \(from 0\), column 'audio': holds no bytes, and the path .* outside of"
        ):
            quietly(save([path]), tmp_path / "out")


def test_an_export_is_whole_and_is_made_once(saved, tmp_path, monkeypatch):
    said: list[str] = []
    out = tmp_path / "out"
    first = export(saved, out, None, said.append)
    (out / "dataset.yaml").write_text("changed by hand")
    before = (out / "metadata.parquet").stat().st_mtime_ns
    assert export(saved, out, None, said.append) == first
    assert said == [f"{out} has all of {saved} already"]
    assert (out / "metadata.parquet").stat().st_mtime_ns == before
    shutil.rmtree(saved)
    hf.DatasetDict({"train": audio(5), "test": audio(2)}).save_to_disk(saved)
    monkeypatch.setattr("mmbench.data.adding.huggingface.atomic_write", refuse)
    with pytest.raises(StoreError, match="full"):
        quietly(saved, out)
    assert len(table_of(out)) == 6, "what was there before is whole"
    monkeypatch.undo()
    quietly(saved, out)
    assert len(table_of(out)) == 7
    assert (out / "dataset.yaml").read_text() == "changed by hand"
    assert not (tmp_path / "out.partial").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(UsageError, match="own is there, and is not what --hf wrote; move it away"):
        quietly(saved, tmp_path / "own")


def refuse(*arguments):
    raise StoreError("full")


# The command


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMBENCH_RESULTS", str(tmp_path / "results"))
    return tmp_path / "data"


def test_trying_it_writes_nothing(saved, data, capsys):
    assert main(["data", "add", "--hf", str(saved), "--name", "clips", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "tone 3, noise 2, silence 1" in out
    assert f"nothing was written (--dry-run); without it, {data}/hf-raw/clips would be" in out
    assert not data.exists()
    assert main(["data", "add", "--hf", str(saved), "--name", "openclipart"]) == 2
    assert main(["data", "add", "--hf", str(saved), "--metadata", "x.csv"]) == 2
    assert main(["data", "add", "--hf", str(saved), "--split", "said", "--dry-run"]) == 2
    assert f"mmbench: {data}/hf-raw/in/metadata.parquet, row 1, column 'said'" in capsys.readouterr().err
    assert main(["data", "add", str(saved)]) == 2
    assert "add it with --hf: mmbench data add --hf" in capsys.readouterr().err
    assert not data.exists()


@pytest.mark.slow
def test_from_a_saved_data_set_to_a_trial(data, tmp_path, capsys):
    parts = {"train": audio(24), "validation": audio(6, first=24), "test": audio(6, first=30)}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "clips")
    assert main(["data", "add", str(tmp_path / "clips"), "--hf", "--jobs", "1"]) == 0
    assert main(["data", "audit", "clips"]) == 0
    assert "clean train: 24 samples" in capsys.readouterr().out
    experiment = tmp_path / "tiny.yaml"
    experiment.write_text(
        "title: t\ndatasets: {clips: {recipe: {epochs: 1, batch_size: 8, lr: 0.01}}}\nmethods: {sum: null}\nseeds: [0]\n"
    )
    assert main(["run", str(experiment), "--devices", "cpu", "--jobs", "1"]) == 0
    (record,) = (tmp_path / "results/runs").glob("*/record.json")
    assert json.loads(record.read_text())["status"] == "done"
