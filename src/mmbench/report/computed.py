"""On what the trials of a table were computed, and the line of a table whose trials differ in that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mmbench.record import Record
from mmbench.report.rows import Row

PRECISIONS = {"32-true": "float32", "tf32": "TF32", "bf16": "bfloat16"}
TF32_SINCE = 8.0
"""The compute capability from which on a GPU has TF32."""


def computed_on(record: Record) -> str:
    """The device of a trial, how many, and its precision: ``CPU, float32``, ``2 × NVIDIA L4, TF32``; nothing if that is not known.

    Any CPU is the same device here, and TF32 is float32 where there is none.
    """
    environment = record.environment
    if "device" not in environment:
        return ""
    on_cpu = environment["device"] == "cpu"
    devices, precision = record.devices, record.trial.recipe.precision
    if precision == "tf32" and (on_cpu or _capability(environment) < TF32_SINCE):
        precision = "32-true"
    name = "CPU" if on_cpu else environment.get("gpu", "a GPU without a name")
    return f"{f'{devices} × ' if devices > 1 else ''}{name}, {PRECISIONS[precision]}"


def _capability(environment: dict[str, Any]) -> float:
    """Of the GPU; a record that does not say is of one that is taken to have TF32, as all of the last years have."""
    try:
        return float(environment.get("compute_capability", TF32_SINCE))
    except (TypeError, ValueError):
        return TF32_SINCE


def device_notes(rows: Iterable[Row]) -> list[str]:
    """A line if the trials of a table were not all computed on the same device, on as many of it, and in the same precision."""
    found = {record.key: computed_on(record) for row in rows for record in row.records}
    counts = Counter(filter(None, found.values()))
    if len(counts) < 2:
        return []
    told = "; ".join(f"{count} trial{'s' * (count > 1)} on {what}" for what, count in counts.most_common())
    return [f"Mixed devices: {told}. They round differently, so that equal trials may differ as other seeds do."]
