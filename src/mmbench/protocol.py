"""Protocols: which splits are used, and on which of them the best epoch is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SELECTION_METRIC = "validation/accuracy"
"""What the best epoch is chosen by: accuracy with all that is there, on the split that the protocol names."""


@dataclass(frozen=True)
class Protocol:
    """A named way of evaluating, printed with every result.

    Attributes:
        name: the key in experiments and tables.
        selection: the split on which the best epoch is chosen.
        disjoint: whether it promises that no group is in two splits; data modules are held to it.
        description: one sentence for the reader of a table.
    """

    name: str
    selection: Literal["validation", "test"]
    disjoint: bool
    description: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "clean",
            "validation",
            True,
            "splits disjoint by group, the epoch chosen on a validation split, the test split read once",
        ),
        Protocol(
            "legacy",
            "test",
            False,
            "the field's habit: a split that ignores groups, the best epoch chosen on the test split itself",
        ),
    )
}
