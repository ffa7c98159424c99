"""One line a trial: what each seed and fold came to, by itself."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mmbench.metrics import METRICS
from mmbench.missing import pattern_name, patterns
from mmbench.report.computed import computed_on
from mmbench.report.rows import Row, Tried, commit_of

WHERE = ("dataset", "protocol", "training", "method", "fold", "seed", "key", "status", "reason")
HOW = ("best_epoch", "epochs", "stopped_epoch", "samples", "parameters", "commit", "device")
COST = ("seconds/build", "seconds/fit", "seconds/test", "memory_mb", "gpu_memory_mb")
"""What differs every time that a trial is run; in no file that git keeps."""
WHOLE = ("fold", "seed", "best_epoch", "epochs", "stopped_epoch", "samples", "parameters")


def trials_of(rows: Sequence[Row]) -> pd.DataFrame:
    """A line a trial of the rows, in their order.

    Returns:
        The columns ``WHERE``; metrics in percent, of every modality by their names (accuracy, macro_f1, ece, …), then accuracy by the
        other patterns (``accuracy/image``); ``HOW``, epochs counted from 0; and ``COST``. Empty where a trial is not done.
    """
    lines = [line_of(row, tried) for row in rows for tried in row.trials]
    named = (key for line in lines for key in line if key not in (*WHERE, *HOW, *COST))
    metrics = dict.fromkeys([*METRICS, *named])
    by_pattern = sorted(metrics, key=lambda name: "/" in name)  # those of every modality first
    frame = pd.DataFrame(lines, columns=[*WHERE, *by_pattern, *HOW, *COST])
    return frame.astype({name: "Int64" for name in WHOLE} | {name: float for name in (*by_pattern, *COST)})


def line_of(row: Row, tried: Tried) -> dict[str, object]:
    """A trial by the names of its columns; those that it has nothing for are left out."""
    trial, record = tried.trial, tried.record
    line: dict[str, object] = dict(zip(WHERE, (row.dataset, row.protocol, row.training, row.method), strict=False))
    line |= {"fold": trial.fold, "seed": trial.seed, "key": trial.key, "status": tried.status, "reason": tried.reason}
    line["key"] = line["key"] if not row.elsewhere else ""
    *names, every = [pattern_name(pattern) for pattern in patterns(tuple(trial.encoders))]
    line |= dict.fromkeys(f"accuracy/{name}" for name in names)
    if record is None:
        return line
    if row.elsewhere:
        line |= record.metrics.get(every, {})
        line |= {f"accuracy/{name}": record.metrics[name]["accuracy"] for name in names if name in record.metrics}
        return line | {"samples": tried.samples}
    on_cpu = record.environment.get("device") == "cpu"
    line |= {"commit": commit_of(record), "device": "cpu" if on_cpu else computed_on(record) or None}
    if record.status != "done":
        return line
    line |= record.metrics.get(every, {})
    line |= {f"accuracy/{name}": record.metrics[name]["accuracy"] for name in names if name in record.metrics}
    line |= {"best_epoch": record.best_epoch, "epochs": len(record.curves), "stopped_epoch": record.stopped_epoch}
    line |= {"samples": tried.samples, "parameters": record.parameters, "memory_mb": record.memory_mb}
    line["gpu_memory_mb"] = record.gpu_memory_mb
    return line | {f"seconds/{part}": seconds for part, seconds in record.seconds.items()}
