"""``mmbench predict``: a kept model is asked about the samples of a table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.errors import NeedsLightning, UsageError, counted, printable
from mmbench.files import atomic_write, user_path
from mmbench.options import given_path, positive

if TYPE_CHECKING:
    from mmbench.models.model import Prediction
    from mmbench.models.tables import Asked
    from mmbench.store import Store

ENDINGS = (".csv", ".parquet", ".jsonl")
SHOWN = 4
"""Classes of a sample that are printed, the most probable first."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    sub.add_argument("model", metavar="MODEL", help="the folder of a model, or the beginning of its trial's key")
    text = "metadata.csv, .tsv, .parquet or .jsonl, or the folder that holds it; any of the modalities, labels or none"
    sub.add_argument("input", metavar="INPUT", help=text)
    text = "a .csv, .parquet or .jsonl to write (default: a table is printed)"
    sub.add_argument("-o", "--output", type=given_path, metavar="FILE", help=text)
    sub.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: those of the training)")
    sub.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where the model computes (default: cpu)")


def predict(arguments: argparse.Namespace, store: Store) -> int:
    """Ask the model; the exit code."""
    from mmbench import machine

    try:
        return ask(arguments, store)
    except (UsageError, NeedsLightning):
        raise
    except AttributeError as error:
        if machine.plans_only():
            raise NeedsLightning from error  # the stand-ins may lack what the method asks for
        raise


def ask(arguments: argparse.Namespace, store: Store) -> int:
    """Read the model and the table, predict, and write or print what comes of it."""
    output, given = arguments.output, user_path(arguments.input)
    check_output(output)
    folder = find_model(arguments.model, store)
    import numpy as np

    from mmbench.models.loading import Restored
    from mmbench.models.model import Model
    from mmbench.models.tables import UNKNOWN, read_asked

    model = Model(Restored(folder), arguments.device)
    model.threads = arguments.threads or model.threads
    asked = read_asked(given, model.inputs)
    if output and any((asked.metadata.root / path).resolve() == output.resolve() for path in asked.metadata.paths):
        raise UsageError(f"--output {output} is the table that is read; name another file")
    for note in asked.metadata.notes:
        print(printable(note), file=sys.stderr)
    split = model.inputs.split(asked.samples, asked.where)
    log_probs = model.log_probs(split)
    predictions = model.answers(split, log_probs)
    if output is None:
        print_table(asked, predictions)
    else:
        atomic_write(output, as_bytes(output.suffix.lower(), asked, predictions, model.classes))
        print(f"{counted(len(predictions), 'prediction')}: {output}", file=sys.stderr)
    if nothing := sum(not prediction.seen for prediction in predictions):
        has = f"{counted(nothing, 'sample')} {'has' if nothing == 1 else 'have'}"
        print(f"{has} no modality: answered by how frequent classes were in training", file=sys.stderr)
    if asked.labels is not None and (known := asked.labels != UNKNOWN).any():
        from mmbench.metrics import summary

        rows = log_probs.numpy()[known]
        values = summary(asked.labels[known], np.asarray(rows.argmax(axis=1)), rows)
        print(
            f"accuracy {values['accuracy']:.1f} %, macro F1 {values['macro_f1']:.1f} %, calibration error {values['ece']:.1f} %, of "
            f"{counted(int(known.sum()), 'sample')} with a label",
            file=sys.stderr,
        )
    return 0


def check_output(output: Path | None) -> None:
    """Refuse, before any work is done, a file that cannot be written."""
    if output is None:
        return
    if output.suffix.lower() not in ENDINGS:
        raise UsageError(f"--output {output}: expected a name that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.absolute().parent}")


def find_model(name: str, store: Store) -> Path:
    """The folder of a model: given by its path, or as the beginning of a trial's key.

    Raises:
        UsageError: there is none, or more than one.
    """
    from mmbench.store import CorruptRecord

    if (path := user_path(name)).is_dir():
        return path
    keys = store.find(name)
    if len(keys) != 1:
        found = "no trial" if not keys else f"{len(keys)} trials ({', '.join(keys[:5])} …)"
        raise UsageError(f"{name}: no such folder, and {found} in {store.root} with a key that begins so")
    try:
        record = store.record(keys[0])
        folder = store.model(record) if record is not None else None
    except CorruptRecord as error:
        raise UsageError(f"damaged: {error}") from error
    if folder is None:
        raise UsageError(f"trial {keys[0]} was run without keeping its model; run it again with --keep-models")
    return folder


def print_table(asked: Asked, predictions: Sequence[Prediction]) -> None:
    """A line a sample: its id, the most probable classes, and the modalities seen."""
    rows = [["id", "class", "probability", "others", "seen"]]
    for name, prediction in zip(asked.ids, predictions, strict=True):
        order = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
        others = ", ".join(f"{label} {probability:.2f}" for label, probability in order[1:SHOWN])
        top = prediction.probabilities[prediction.label]
        rows.append([name, prediction.label, f"{top:.3f}", others, "+".join(prediction.seen) or "nothing"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        print("".join(c if c.isprintable() else "\ufffd" for c in line))  # names of classes may come from others


def as_bytes(ending: str, asked: Asked, predictions: Sequence[Prediction], classes: Sequence[str]) -> bytes:
    """The predictions as a file: ``id``, ``class``, ``seen``, and the probability of each class, ``p_<class>``."""
    if ending == ".jsonl":
        lines = (
            {"id": name, "class": p.label, "seen": list(p.seen), "probabilities": p.probabilities}
            for name, p in zip(asked.ids, predictions, strict=True)
        )
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    import pandas as pd

    columns: dict[str, Any] = {
        "id": asked.ids,
        "class": [prediction.label for prediction in predictions],
        "seen": ["+".join(prediction.seen) for prediction in predictions],
    }
    columns |= {f"p_{name}": [prediction.probabilities[name] for prediction in predictions] for name in classes}
    frame = pd.DataFrame(columns)
    if ending == ".parquet":
        buffer = BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
    text = StringIO()
    frame.to_csv(text, index=False)
    return text.getvalue().encode()
