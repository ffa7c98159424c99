"""Presence patterns: which modalities a model is allowed to see.

Everything the suite reports is an evaluation over patterns: multimodal accuracy is the pattern with every modality, the
unimodal accuracy of a modality is the pattern with only that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Pattern = tuple[str, ...]


def patterns(modalities: Sequence[str]) -> list[Pattern]:
    """All 2^M − 1 non-empty patterns: single modalities first, the complete pattern last.

    >>> [pattern_name(p) for p in patterns(["image", "title"])]
    ['image', 'title', 'image+title']
    """
    return [p for size in range(1, len(modalities) + 1) for p in combinations(modalities, size)]


def pattern_name(pattern: Pattern) -> str:
    """The name by which tables and records call a pattern: modality names joined by ``+``."""
    return "+".join(pattern)


def pattern_matrix(modalities: Sequence[str]) -> list[list[bool]]:
    """The patterns as rows of a (2^M − 1, M) matrix; True: the pattern shows the modality.

    >>> pattern_matrix(["image", "title"])
    [[True, False], [False, True], [True, True]]
    """
    return [[modality in pattern for modality in modalities] for pattern in patterns(modalities)]
