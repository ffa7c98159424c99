"""Probabilities that others made, held to the published split, and turned into what a trial leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmbench.data.preparing.splitting import split_hash
from mmbench.elsewhere.files import Given, folds_of, read
from mmbench.errors import DataError, UsageError, counted, did_you_mean
from mmbench.missing import pattern_name, patterns
from mmbench.record import Predictions

if TYPE_CHECKING:
    from pathlib import Path

    from mmbench.data.base import MultimodalDataModule

ALL = "all"
"""Another name of the pattern with every modality."""
TOLERANCE = 1e-3
"""How far the sum of a row's probabilities may lie from 1."""


@dataclass(frozen=True)
class Checked:
    """The predictions of one fold, or of the one split.

    Attributes:
        fold: its number; None: the one split.
        split_sha256: ``split_hash`` of the fold.
        patterns: under which there are predictions; under the others they are NaN.
    """

    fold: int | None
    split_sha256: str
    patterns: list[str]
    predictions: Predictions


def check(path: Path, data: type[MultimodalDataModule], protocol: str) -> list[Checked]:
    """Read a file of probabilities and hold it to the test splits of a data set under a protocol.

    Returns:
        A part a fold that the file has, in their order.

    Raises:
        DataError: a row is not of the published test split, is missing or there twice, or holds no probabilities.
        UsageError: the data are not there, or their class does not tell the ids of its samples.
    """
    module = data.textless(protocol)
    classes, modalities = list(module.classes), tuple(module.modalities)
    names = [pattern_name(pattern) for pattern in patterns(modalities)]
    sizes = {fold: len(data.split_ids(protocol, fold)["test"]) for fold in _cuts(data, protocol)}
    given = read(path, classes, max(sum(sizes.values()), 1) * len(names))
    folds, pattern = folds_of(given), _patterns(given, modalities)
    _check_probabilities(given, classes)
    numbers = sorted(set(folds.tolist()))
    if -1 in numbers and len(numbers) > 1:
        row = int(np.flatnonzero(folds == -1)[0])
        raise DataError(f"{given.where(row)}: no fold, but other rows have one; give it in all rows, or in none")
    made = []
    for number in numbers:
        rows, fold = np.flatnonzero(folds == number), None if number < 0 else number
        if fold is not None and fold >= data.folds:
            has = "one split and no folds; leave the column out" if data.folds == 1 else f"folds 0 to {data.folds - 1}"
            raise DataError(f"{given.where(rows[0])}: fold {fold}: {data.name} has {has}")
        if fold is None and None not in sizes:
            raise DataError(f"{path}: no fold is given, but {data.name} has no split but its {data.folds} folds")
        made.append(_part(given, rows, pattern, data, protocol, fold))
    return made


def _cuts(data: type[MultimodalDataModule], protocol: str) -> list[int | None]:
    """The folds of a data set, and None where it has its one split as well."""
    folds: list[int | None] = list(range(data.folds)) if data.folds > 1 and data.lacks_folds() is None else []
    return folds if data.lacks(protocol) else [None, *folds]


def _patterns(given: Given, modalities: Sequence[str]) -> np.ndarray:
    """(R,) the number of each row's pattern; a file without any is of every modality."""
    numbers = {frozenset(pattern): number for number, pattern in enumerate(patterns(modalities))}
    texts = given.words.get("pattern")
    if texts is None:
        return np.full(len(given), len(numbers) - 1)
    known: dict[str, int] = {}
    for text in dict.fromkeys(texts.tolist()):
        parts = [part.strip() for part in text.split("+")]
        if text.strip() == ALL and ALL not in modalities:
            parts = list(modalities)
        wrong = [part for part in parts if part not in modalities]
        if wrong or len(set(parts)) < len(parts):
            row = texts.tolist().index(text)
            why = (
                f"no modality is called '{wrong[0]}'; {did_you_mean(wrong[0], modalities)}" if wrong else "one is twice"
            )
            raise DataError(
                f"{given.where(row)}: pattern '{text[:100]}': {why}; expected names joined by '+', such as "
                f"{pattern_name(tuple(modalities[:2]))}, or {ALL}"
            )
        known[text] = numbers[frozenset(parts)]
    return np.array([known[text] for text in texts.tolist()])


def _check_probabilities(given: Given, classes: Sequence[str]) -> None:
    p = given.probabilities
    if (wrong := ~((p >= 0) & (p <= 1))).any():  # NaN is neither
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{given.where(row)}: the probability of '{classes[column]}' is {p[row, column]:g}, expected a number from 0 to 1 "
            f"({int(wrong.any(axis=1).sum())} of {counted(len(p), 'row')}); of logits take the softmax first"
        )
    sums = p.sum(axis=1)
    if (wrong := np.abs(sums - 1) > TOLERANCE).any():
        row = int(wrong.argmax())
        raise DataError(
            f"{given.where(row)}: its probabilities add up to {sums[row]:.6g}, expected 1 within {TOLERANCE:g} "
            f"({int(wrong.sum())} of {counted(len(p), 'row')}); divide each row by its sum"
        )


def _part(
    given: Given,
    rows: np.ndarray,
    pattern: np.ndarray,
    data: type[MultimodalDataModule],
    protocol: str,
    fold: int | None,
) -> Checked:
    """The predictions of one fold."""
    import pandas as pd

    ids, module = data.split_ids(protocol, fold), data.textless(protocol, fold)
    digest, loaded = split_hash(ids), module.load()
    if (test := loaded.test) is None or len(test.label) != len(ids["test"]):
        raise UsageError(f"{data.name}: split_ids() and load() do not agree on the test split; mend {data.__module__}")
    _check_split(given, rows, digest, ids, fold)
    texts = given.words["id"][rows]
    places = pd.Index(ids["test"]).get_indexer(pd.Index(texts))
    if (unknown := rows[places < 0]).size:
        told = _unknown(given, unknown, ids, fold)
        if "fold" not in given.words and data.folds > 1:
            told += (
                f". The file has no column fold, so its rows are held to the one split; if they are of the {data.folds} folds of "
                f"{data.name}, add the column, with numbers from 0 to {data.folds - 1}"
            )
        raise DataError(told)
    label = test.label.long().numpy()
    _check_labels(given, rows, label[places], module.classes)
    names = [pattern_name(p) for p in patterns(module.modalities)]
    log_probs = np.full((len(names), len(label), given.probabilities.shape[1]), np.nan, np.float16)
    predicted = np.full(log_probs.shape[:2], -1, np.int16)
    for number in sorted(set(pattern[rows].tolist())):
        own = pattern[rows] == number
        _check_once(given, rows[own], places[own], ids["test"], names[number], fold)
        p = given.probabilities[rows[own]]
        predicted[number, places[own]] = p.argmax(axis=1)
        with np.errstate(divide="ignore"):
            log_probs[number, places[own]] = np.log(p)
    counts = np.bincount(loaded.train.label.long().numpy(), minlength=len(module.classes)).astype(np.float32)
    with np.errstate(divide="ignore"):
        log_prior = np.log(counts / counts.sum())
    predictions = Predictions(
        modalities=np.array(module.modalities),
        label=label,
        group=test.group.long().numpy(),
        present=test.present.numpy(),
        predicted=predicted,
        log_probs=log_probs,
        log_prior=log_prior,
        attack=np.empty(0, np.int16) if test.attack is None else test.attack.numpy().astype(np.int16),
    )
    held = [name for name, there in zip(names, predictions.given, strict=True) if there]
    return Checked(fold, digest, held, predictions)


def _of(fold: int | None) -> str:
    return "" if fold is None else f" of fold {fold}"


def _check_split(
    given: Given, rows: np.ndarray, digest: str, ids: Mapping[str, Sequence[str]], fold: int | None
) -> None:
    """Refuse rows of another split than the published one, as far as the file says of which they are."""
    for name, expected, what in (
        (
            "split_sha256",
            digest,
            "made for another version of the splits; write them anew (mmbench data split), and train anew",
        ),
        ("split", "test", "leave out what is not of the test split"),
    ):
        texts = given.words.get(name)
        if texts is not None and (wrong := rows[(texts[rows] != expected) & (texts[rows] != "")]).size:
            raise DataError(
                f"{given.where(wrong[0])}: {name} is '{texts[wrong[0]][:80]}', expected '{expected}'{_of(fold)} ({wrong.size} rows): "
                f"{what}"
            )


def _unknown(given: Given, rows: np.ndarray, ids: Mapping[str, Sequence[str]], fold: int | None) -> str:
    """That ids are not of the test split, and of which they are if that is known."""
    name = given.words["id"][rows[0]]
    split = next((split for split, names in ids.items() if name in names), None)
    why = f"it is in the {split} split" if split else f"there is no such sample; {did_you_mean_one(name, ids['test'])}"
    return (
        f"{given.where(rows[0])}: id '{name[:100]}' is not in the test split{_of(fold)}: {why} ({counted(rows.size, 'such row')}); "
        "mmbench data split writes the ids"
    )


def did_you_mean_one(name: str, ids: Sequence[str]) -> str:
    """An id as it looks like, of which there may be very many."""
    if padded := next((one for one in ids if one != name and one.lstrip("0") == (name.lstrip("0") or "")), None):
        return f"ids are texts, and this one is '{padded}', with its zeros: read the column as texts"
    near = did_you_mean(name, ids[:1000])
    return near if near.startswith("did") else f"the first one is '{ids[0]}'"


def _check_labels(given: Given, rows: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse labels, where the file has some, that are not those of the data set."""
    if (texts := given.words.get("label")) is None:
        return
    expected = np.array(classes, object)[label]
    if (wrong := np.flatnonzero((texts[rows] != expected) & (texts[rows] != ""))).size:
        row = rows[wrong[0]]
        raise DataError(
            f"{given.where(row)}: label is '{texts[row][:80]}', but '{given.words['id'][row]}' is '{expected[wrong[0]]}' ({wrong.size} "
            "rows); leave the column out, or make sure that ids and rows belong together"
        )


def _check_once(
    given: Given, rows: np.ndarray, places: np.ndarray, ids: Sequence[str], name: str, fold: int | None
) -> None:
    """Refuse ids that are there twice or not at all under a pattern."""
    counts = np.bincount(places, minlength=len(ids))
    if (counts > 1).any():
        order = np.argsort(places, kind="stable")
        again = order[1:][places[order[1:]] == places[order[:-1]]]
        row = rows[again.min()]
        whole = f"; all of them: is {f'fold {fold}' if fold is not None else 'the split'} in the file twice?" * bool(
            (counts > 1).all()
        )
        raise DataError(
            f"{given.where(row)}: id '{ids[places[again.min()]]}' is there twice{_of(fold)} under {name} ({(counts > 1).sum()} ids "
            f"are{whole}); expected each once"
        )
    if (missing := np.flatnonzero(counts == 0)).size:
        raise DataError(
            f"{given.source}: {missing.size} of the {len(ids)} ids of the test split{_of(fold)} are missing under {name}, the first of "
            f"them '{ids[missing[0]]}'; expected each once (mmbench data split writes them)"
        )
