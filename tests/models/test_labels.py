"""Labels beside samples that a model is asked about are read as ``data add`` reads them."""

from pathlib import Path

import pyarrow as pa
import pytest

from mmbench.data.adding.metadata import Metadata
from mmbench.errors import UsageError
from mmbench.models.tables import labels_of


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
