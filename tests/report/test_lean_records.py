"""Records as a report keeps them: the same rows in a tenth of the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmbench.record import Code
from mmbench.report.lean import Curves, Lean, column, rows_with
from mmbench.store import Store
from test_store import make_predictions, make_record

NAN = float("nan")
CURVES = [
    {"train/loss": 1.5, "train/pretraining": 1.0},
    {"train/loss": NAN, "validation/accuracy": 0.1},
    {"validation/accuracy": 1e-300, "train/loss": float("-inf")},
]


@pytest.mark.parametrize("rows", [CURVES, CURVES[:1], [], [{}, {"x": 2.0}]], ids=["all", "one", "none", "empty"])
def test_the_rows_are_those_that_it_was_made_of(rows: list[dict[str, float]]) -> None:
    curves, plain = Curves(rows, {}), make_record(curves=rows)
    kept = plain.model_copy(update={"curves": curves})
    assert repr([*map(sorted, map(dict.items, curves))]) == repr([*map(sorted, map(dict.items, rows))])
    assert repr([*map(len, (curves, curves[1:]))]) == repr([*map(len, (rows, rows[1:]))])
    for name in ("train/loss", "validation/accuracy", "train/pretraining", "nowhere"):
        assert repr(column(kept, name)) == repr(column(plain, name))
    for names in (["train/loss"], ["train/loss", "validation/accuracy"], ["nowhere", "x"]):
        assert repr(rows_with(kept, names)) == repr(rows_with(plain, names))


def test_epochs_are_counted_as_in_a_list() -> None:
    curves = Curves(CURVES, {})
    assert curves[-1] == CURVES[-1]
    with pytest.raises(IndexError):
        curves[3]


def test_records_share_what_is_equal_and_nothing_else_changes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(3):
        code = Code(core="c", method={"m": str(seed // 2)}, data={}, encoders={})
        store.write(
            make_record(seed, curves=CURVES[:seed], code=code, environment={"device": "cpu"}), make_predictions()
        )
    lean = Lean(tmp_path)
    kept = [record for seed in range(3) if (record := lean.record(make_record(seed).key))]
    for record in kept:
        plain = store.record(record.key)
        assert plain is not None
        assert repr(record.model_copy(update={"curves": [*record.curves]})) == repr(plain)
        assert record.epochs == plain.epochs
    assert kept[0].environment is kept[1].environment is kept[2].environment
    assert kept[0].code is kept[1].code is not kept[2].code
    assert lean.record("feedbeef") is None
