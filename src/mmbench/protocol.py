"""Protocols: a split, and where on it the best epoch is chosen."""

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
        split: how the data are cut: "clean", disjoint by group, or "legacy", as published or at random.
        selection: the part on which the best epoch is chosen.
        description: one sentence for the reader of a table.
    """

    name: str
    split: Literal["clean", "legacy"]
    selection: Literal["validation", "test"]
    description: str

    @property
    def disjoint(self) -> bool:
        """Whether it promises that no group is in two parts; data modules are held to it."""
        return self.split == "clean"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "clean",
            "clean",
            "validation",
            "splits disjoint by group, the epoch chosen on a validation split, the test split read once",
        ),
        Protocol(
            "peek",
            "clean",
            "test",
            "clean's splits, and the same training, but the best epoch chosen on the test split itself",
        ),
        Protocol(
            "legacy",
            "legacy",
            "test",
            "the field's habit: a split that ignores groups, the best epoch chosen on the test split itself",
        ),
    )
}
