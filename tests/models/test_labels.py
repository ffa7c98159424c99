"""Labels beside samples that a model is asked about are read as ``data add`` reads them."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mmbench.data.adding.declaration import Modality
from mmbench.data.adding.metadata import Metadata
from mmbench.errors import UsageError
from mmbench.models.tables import expected_of, labels_of


@pytest.mark.parametrize(
    ("classes", "cells", "expected"),
    [
        (["v1.0", "v2.0"], ["v2.0", "", "v1.0"], [1, -1, 0]),
        (["nan", "none"], ["none", "nan"], [1, 0]),
        (["hats", "shoes"], ["1", "", "0"], [1, -1, 0]),
        (["hats", "shoes"], [1.0, None, 0.0], [1, -1, 0]),
        (["3", "7"], [7.0, float("nan"), 3.0], [1, -1, 0]),
        (["3", "7"], [7, 3], [1, 0]),
    ],
)
def test_labels_are_read_by_name_and_by_number(classes, cells, expected):
    table = Metadata(Path(), ["metadata.csv"], [len(cells)], [2], pa.table({"label": cells}), [])
    assert labels_of(table, "label", classes).tolist() == expected


@pytest.mark.parametrize("cells", [["v1"], ["2"], ["nan"]])
def test_what_is_no_class_is_refused(cells):
    table = Metadata(Path(), ["metadata.csv"], [1], [2], pa.table({"label": cells}), [])
    with pytest.raises(UsageError, match=r"metadata\.csv, row 2, column 'label': the model knows no class"):
        labels_of(table, "label", ["v1.0", "v2.0"])


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"kind": "numbers", "columns": ["age", "height"]}, "'age', 'height' (numbers)"),
        ({"kind": "text", "column": "review"}, "'review' (texts)"),
        ({"kind": "picture", "file": "photo", "size": 32}, "'photo' (paths)"),
        ({"kind": "features", "file": "path"}, "'path' (files of vectors)"),
        ({"kind": "features", "column": "list"}, "'list' (lists of numbers)"),
        ({"kind": "features", "array": "emb.npy"}, "a file emb.npy, or 'm' (lists of numbers)"),
    ],
)
def test_the_columns_that_the_data_were_added_by_are_expected(declared, expected):
    data = SimpleNamespace(declared=SimpleNamespace(modalities={"m": Modality(**declared)}))
    assert expected_of("m", SimpleNamespace(data=data)) == expected
