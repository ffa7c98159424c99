"""Values that are given from Python: what they are in words, and sound as a file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mmbench.data.preparing.sound import LONGEST, RATES
from mmbench.errors import UsageError


class Sound(NamedTuple):
    """A waveform that is given with its rate.

    Attributes:
        values: what is to be (L,): float in [-1, 1], or int16.
        rate: samples a second.
    """

    values: Any
    rate: Any


def as_sound(value: Any) -> Any:
    """``(array, rate)``, or ``{"array": …, "sampling_rate": …}`` as Hugging Face's datasets have it, as sound; else the value."""
    if is_sound(value):
        return Sound(*value)
    if isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys():
        return Sound(value["array"], value["sampling_rate"])
    return value


def is_sound(value: Any) -> bool:
    """Whether a value is ``(array, rate)``."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], np.ndarray | Tensor | list)
        and isinstance(value[1], int | np.integer)
    )


def wav(sound: Sound, where: str) -> bytes:
    """Sound as a wave file, its values as they are.

    Raises:
        UsageError: it is none.
    """
    values = np.asarray(sound.values.detach().cpu() if isinstance(sound.values, Tensor) else sound.values)
    expected = f"{where}: expected sound as (array, rate): one channel (L,) of floats from -1 to 1, or of int16,"
    if values.ndim != 1 or not (values.dtype.kind == "f" or values.dtype == np.int16):
        raise UsageError(f"{expected} got {kind_of(values)}")
    if not isinstance(sound.rate, int | np.integer) or not RATES[0] <= sound.rate <= RATES[1]:
        raise UsageError(f"{expected} and a rate from {RATES[0]:,} to {RATES[1]:,}, got the rate {kind_of(sound.rate)}")
    if len(values) > LONGEST * sound.rate:
        raise UsageError(
            f"{where}: {len(values):,} samples last more than {LONGEST:g} s, which is the most that is taken"
        )
    values = values.astype("<i2" if values.dtype == np.int16 else "<f4")
    data, size, rate = values.tobytes(), values.itemsize, int(sound.rate)
    kind = 3 if size == 4 else 1  # floats, whole numbers
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, 1, rate, rate * size, size, 8 * size)
    return (
        struct.pack("<4sI4s", b"RIFF", 12 + len(head) + len(data), b"WAVE")
        + head
        + struct.pack("<4sI", b"data", len(data))
        + data
    )


def is_number(text: str) -> bool:
    """Whether a text is a number, and not the name of a file."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_absent(value: Any) -> bool:
    """Whether a value says that the sample lacks the modality: None, an empty text, or the NaN of an empty cell."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def kind_of(value: Any) -> str:
    """What a value is, in a message."""
    if isinstance(value, np.ndarray | Tensor):
        return f"an array of {value.dtype} of shape {tuple(value.shape)}"
    said = str(value)[:80]
    return type(value).__name__ if " at 0x" in said else f"{type(value).__name__} {said!r}"
