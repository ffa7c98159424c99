"""Vectors by row, by id, in columns and in files; what is no vector is refused, and no pickle is ever executed."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmbench.data.adding.declaration import Modality
from mmbench.data.adding.metadata import read_metadata
from mmbench.data.adding.vectors import read_array, read_vector, read_vectors
from mmbench.data.preparing.media import BadFile
from mmbench.errors import UsageError

IDS = ["a", "b", "c"]
VALUES = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.fixture
def metadata(tmp_path):
    (tmp_path / "metadata.csv").write_text("id,x_0,x_1,x_10,flag\na,1,2,0.5,1\nb,3,4,0.5,\nc,,,,0\n")
    return read_metadata(tmp_path, ["metadata.csv"])


def read(metadata, **where):
    return read_vectors("emb", Modality(kind="features", **where), metadata, IDS)


def save(path, how):
    tensor = torch.from_numpy(VALUES)
    if how == "npy":
        np.save(path, VALUES)
    elif how == "npy float64, one step":
        np.save(path, VALUES.astype(float)[:, None])
    elif how == "pt":
        torch.save(tensor, path)
    elif how == "pt bfloat16 in a dictionary":
        torch.save({"features": tensor.bfloat16()}, path)
    elif how == "pt list":
        torch.save(list(tensor), path)
    elif how == "pt by id":
        torch.save({name: row for name, row in zip(reversed(IDS), reversed(tensor), strict=True)}, path)
    elif how == "safetensors":
        save_file({"x": tensor}, path)
    elif how == "safetensors by id":
        save_file({name: row.clone() for name, row in zip(IDS, tensor, strict=True)}, path)


@pytest.mark.parametrize(
    "how",
    [
        "npy",
        "npy float64, one step",
        "pt",
        "pt bfloat16 in a dictionary",
        "pt list",
        "pt by id",
        "safetensors",
        "safetensors by id",
    ],
)
def test_one_array_for_all(metadata, tmp_path, how):
    name = f"emb.{how.split()[0]}"
    save(tmp_path / name, how)
    vectors = read(metadata, array=name)
    np.testing.assert_array_equal(vectors.block(slice(0, 3)), VALUES)
    assert vectors.present.all()
    assert vectors.width == 2


def test_one_file_may_hold_several_arrays(metadata, tmp_path):
    torch.save({"a": torch.from_numpy(VALUES), "b": torch.zeros(3, 5), "y": torch.arange(3)}, tmp_path / "all.pt")
    np.testing.assert_array_equal(read(metadata, array="all.pt", key="a").block(slice(0, 3)), VALUES)
    assert read(metadata, array="all.pt", key="b").width == 5
    with pytest.raises(UsageError, match=r"all.pt: holds no array 'c'; "):
        read(metadata, array="all.pt", key="c")


def test_samples_without_a_vector_are_absent_and_told(metadata, tmp_path):
    torch.save({"b": torch.tensor([1.0, 2.0]), "d": torch.tensor([0.0, 0.0])}, tmp_path / "emb.pt")
    vectors = read(metadata, array="emb.pt")
    assert vectors.present.tolist() == [False, True, False]
    assert vectors.notes == [
        "emb.pt: 2 of 3 samples have no vector in it: absent there", "emb.pt: 1 vectors are of no sample: not used",
    ]  # fmt: skip
    np.save(tmp_path / "emb.npy", np.where([[True], [False], [True]], VALUES, np.nan))
    vectors = read(metadata, array="emb.npy")
    assert vectors.present.tolist() == [True, False, True]
    assert vectors.notes == ["emb.npy: 1 of 3 rows are NaN throughout: absent there"]
    assert vectors.block(slice(0, 3))[1].tolist() == [0, 0]


def test_columns(metadata):
    vectors = read(metadata, columns=["x_*"])
    np.testing.assert_array_equal(
        vectors.block(slice(0, 3)), np.array([[1, 2, 0.5], [3, 4, 0.5], [0, 0, 0]], np.float32)
    )
    assert vectors.present.tolist() == [True, True, False]
    with pytest.raises(UsageError, match=r"row 3, column 'flag': is empty, while other columns of 'emb' have a number"):
        read(metadata, columns=["x_0", "flag"])
    with pytest.raises(UsageError, match="no columns y_0, y_1"):
        read(metadata, columns=["y_*"])
    with pytest.raises(UsageError, match="has no column 'x_2'; did you mean 'x_"):
        read(metadata, columns=["x_2"])


def test_lists_in_a_column(tmp_path):
    (tmp_path / "metadata.csv").write_text('v\n"[1, 2]"\n\n"[3, 4]"\n'.replace("\n\n", '\n""\n'))
    metadata = read_metadata(tmp_path, ["metadata.csv"])
    assert read(metadata, column="v").present.tolist() == [True, False, True]
    (tmp_path / "metadata.csv").write_text('v\n"[1, 2]"\n"[3]"\n')
    with pytest.raises(UsageError, match="row 3, column 'v': has 1 numbers, the rows before have 2"):
        read(read_metadata(tmp_path, ["metadata.csv"]), column="v")
    (tmp_path / "metadata.csv").write_text('v\n"[1, 2]"\n"[3, ""x""]"\n'.replace('""x""', '[""x""]'))
    with pytest.raises(UsageError, match="row 3, column 'v': expected a list of numbers"):
        read(read_metadata(tmp_path, ["metadata.csv"]), column="v")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.zeros((4, 2)), "has 4 rows, .* has 3 samples"),
        (np.zeros((3, 5, 2)), "has 5 steps of 2 numbers a sample; average over time"),
        (np.array(["a", "b", "c"]), "expected numbers, got <U1 values"),
        (np.array([1 + 2j] * 3), "expected numbers, got complex128"),
        (np.array([[1, 2], [3, np.inf], [5, 6]]), "metadata.csv, row 3 has a value that is NaN, infinite or too large"),
        (np.array([[1, 2], [3, 1e300], [5, 6]]), "row 3 has a value that is NaN, infinite or too large"),
        (np.array([{"a": 1}] * 3, object), "expected vectors of numbers in a .npy file"),
    ],
)
def test_arrays_that_do_not_fit(metadata, tmp_path, value, told):
    np.save(tmp_path / "emb.npy", value, allow_pickle=True)
    with pytest.raises(UsageError, match=told):
        read(metadata, array="emb.npy")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, r"vectors are of different widths \(a: 2, b: 3\)"),
        (
            {"x": torch.zeros(2), "y": torch.zeros(2)},
            "none of its 2 names, such as 'x', is the id of a sample, such as 'a'",
        ),
        ({"a": torch.zeros(4, 2), "b": torch.zeros(5, 2)}, "'a': has 4 steps of 2 numbers; average over time"),
        ({"a": "text", "b": "text"}, "'a': expected numbers, got a str"),
        (torch.zeros(1).expand(3, 1 << 40), "repeats the bytes|repeats"),
        (torch.zeros(3, 2).to_sparse(), "expected (a plain tensor|vectors) of numbers"),
    ],
)
def test_tensors_that_do_not_fit(metadata, tmp_path, content, told):
    torch.save(content, tmp_path / "emb.pt")
    with pytest.raises(UsageError, match=told):
        read(metadata, array="emb.pt")


def test_no_pickle_is_executed(metadata, tmp_path):
    for name in ("emb.pt", "emb.npy"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    torch.save({"a": Evil(), "b": Evil()}, tmp_path / "more.pt")
    np.save(tmp_path / "more.npy", np.array([Evil()] * 3, object), allow_pickle=True)
    for name in ("emb.pt", "emb.npy", "more.pt", "more.npy"):
        with pytest.raises(UsageError, match=f"{name}: expected vectors of numbers"):
            read(metadata, array=name)
        with pytest.raises(BadFile, match="holds no vector"):
            read_vector(tmp_path / name, 2)


def test_a_head_that_lies_takes_no_memory(tmp_path):
    np.save(tmp_path / "emb.npy", VALUES)
    lying = (tmp_path / "emb.npy").read_bytes().replace(b"(3, 2), }         ", b"(3000000000000, 2)")
    assert len(lying) == (tmp_path / "emb.npy").stat().st_size
    (tmp_path / "emb.npy").write_bytes(lying.replace(b"2) ", b"2),}", 1))
    with pytest.raises(UsageError, match="expected vectors of numbers"):
        read_array(tmp_path / "emb.npy")


def test_a_file_a_sample(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(3)[None])
    torch.save(torch.arange(3.0), tmp_path / "one.pt")
    assert read_vector(tmp_path / "one.npy", 3).tolist() == read_vector(tmp_path / "one.pt", None).tolist() == [0, 1, 2]
    with pytest.raises(BadFile, match="has 3 numbers, expected 4, as others have"):
        read_vector(tmp_path / "one.npy", 4)
    np.save(tmp_path / "two.npy", np.zeros((5, 3)))
    with pytest.raises(BadFile, match="has 5 steps of 3 numbers; average over time first"):
        read_vector(tmp_path / "two.npy", 3)
    np.save(tmp_path / "nan.npy", np.array([1, np.nan, 3]))
    with pytest.raises(BadFile, match="NaN, infinite"):
        read_vector(tmp_path / "nan.npy", 3)
    with pytest.raises(BadFile, match="is missing"):
        read_vector(tmp_path / "none.npy", 3)
