"""A tiny IEMOCAP for six emotions."""

from __future__ import annotations

from pathlib import Path

from mmbench.data.demo import iemocap
from mmbench.data.sets.iemocap import Iemocap6


def write(raw: Path) -> None:
    """Write the copy into a folder."""
    iemocap.write(raw, Iemocap6)
