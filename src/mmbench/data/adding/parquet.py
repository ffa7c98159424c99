"""Parquet tables, within bounds of what they unpack to: a few bytes of such a file may stand for gigabytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_COLUMNS = 100_000
AT_ONCE = 1 << 18
"""Cells that are Python objects at one time."""


def check_width(path: Path, columns: int) -> None:
    """Refuse a table of too many columns."""
    if columns > MOST_COLUMNS:
        raise UsageError(
            f"{path}: has {columns:,} columns, expected at most {MOST_COLUMNS:,}; keep vectors in .npy files"
        )


def unpacked_table(path: Path, most_bytes: int, most_rows: int) -> pa.Table:
    """A Parquet file, read in pieces and in this thread: a small file may say the same long text a million times.

    Args:
        path: of the file.
        most_bytes: that it may unpack to.
        most_rows: that it may have.

    Raises:
        UsageError: it is damaged or too large, or a text is not UTF-8.
    """
    import pyarrow as pa
    from pyarrow import parquet

    batches: list[list[pa.Array]] = []
    size = rows = 0
    try:
        with parquet.ParquetFile(path) as file:
            head, schema, kinds = file.metadata, file.schema, file.schema_arrow
        leaves = [schema.column(i) for i in range(len(schema))]
        groups = [head.row_group(i) for i in range(head.num_row_groups)]
        check_width(path, len(leaves))
        packed = sum(group.total_byte_size for group in groups)
        if packed > most_bytes or head.num_rows > most_rows:
            raise UsageError(
                f"{path}: has {head.num_rows:,} rows of {packed:,} bytes in all, expected at most {most_rows:,} and {most_bytes:,}"
            )
        values = sum(group.column(i).num_values for group in groups for i in range(len(leaves)))
        at_once = max(1, min(1 << 16, (AT_ONCE << 3) * head.num_rows // max(1, values)))
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with parquet.ParquetFile(path, metadata=head, read_dictionary=texts) as file:
            for batch in file.iter_batches(at_once, use_threads=False):
                size += sum(unpacked_bytes(column) for column in batch.columns)
                if size > most_bytes:
                    raise UsageError(
                        f"{path}: its first {rows + len(batch):,} rows unpack to {size:,} bytes, expected at most {most_bytes:,} in all"
                    )
                columns = [plain_column(c, field.type) for c, field in zip(batch.columns, kinds, strict=True)]
                for name, column in zip(kinds.names, columns, strict=True):
                    check_texts(column, path, f"column '{name[:60]}'", rows + 1)
                batches.append(columns)
                rows += len(batch)
        names = list(kinds.names)
    except UsageError:
        raise
    except Exception as error:  # of a damaged file, pyarrow's errors are of many kinds
        raise UsageError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from error
    if not batches:
        return pa.Table.from_arrays([pa.nulls(0, pa.string()) for _ in names], names)
    return pa.Table.from_arrays([pa.chunked_array(chunks) for chunks in zip(*batches, strict=True)], names)


def unpacked_bytes(values: pa.Array) -> int:
    """How many bytes a column takes once each of its cells has a text of its own, where it is a dictionary now."""
    import pyarrow as pa
    from pyarrow import compute

    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return unpacked_bytes(values.storage)
    if pa.types.is_dictionary(kind):
        words = values.dictionary
        if not (
            pa.types.is_string(words.type) or pa.types.is_large_string(words.type) or pa.types.is_binary(words.type)
        ):
            return len(values) * max(1, words.nbytes // max(1, len(words)))
        lengths = compute.binary_length(words).cast(pa.int64())
        return (compute.sum(lengths.take(values.indices)).as_py() or 0) + 4 * len(values)
    if pa.types.is_struct(kind):
        return sum(unpacked_bytes(values.field(i)) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return unpacked_bytes(values.keys) + unpacked_bytes(values.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return unpacked_bytes(values.flatten()) + 4 * len(values)
    return values.nbytes


def check_texts(values: pa.Array, path: Path, column: str, first: int) -> None:
    """Refuse texts that are not UTF-8; ``first`` is the number of the first row."""
    import pyarrow as pa

    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        cells = values.cast(pa.binary()).to_pylist() if pa.types.is_string(values.type) else []
        for row, cell in enumerate(cells, start=first):
            if cell is not None and cell.decode(errors="replace").encode() != cell:
                raise UsageError(
                    f"{path}, row {row}, {column}: got {cell[:40]!r}, which is no UTF-8; write it as text"
                ) from error
        raise UsageError(f"{path}, rows from {first}, {column}: damaged ({error})") from error


def plain_column(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as texts, numbers or lists of numbers, where it is any of these in another clothing; ``kind`` is what the file says."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if values.type != kind:
        values = values.cast(kind)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string()).fill_null("")
    if pa.types.is_string(kind):
        return values.fill_null("")
    if pa.types.is_decimal(kind):
        return values.cast(pa.float64())
    return values
