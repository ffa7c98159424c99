"""Names for methods, data sets and encoders, resolved only when used.

A registry maps a name to ``"module:Class"``, so that listing the names imports nothing heavy. Packages outside this
repository add to a registry through an entry-point group (``mmbench.methods``, ``mmbench.datasets``, ``mmbench.encoders``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from mmbench.errors import UsageError, did_you_mean

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from names to classes, imported on look-up.

    Args:
        kind: what the entries are, for messages ("method").
        group: the entry-point group through which other packages add entries.
        entries: name -> ``"module:Class"``.
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._own = dict(entries)

    @cached_property
    def _targets(self) -> dict[str, str]:
        targets = dict(self._own)
        for point in entry_points(group=self.group):
            if targets.setdefault(point.name, point.value) != point.value:
                raise UsageError(
                    f"{self.kind} '{point.name}' is registered twice: as {targets[point.name]} and, through the entry-point "
                    f"group {self.group}, as {point.value}; rename one of them"
                )
        return targets

    def __getitem__(self, name: str) -> T:
        self.check(name)
        module, _, attribute = self._targets[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.kind} '{name}', registered as {self._targets[name]}, cannot be imported: {error}"
            ) from error

    def target(self, name: str) -> str:
        """The entry as it is registered, ``"module:Class"``; nothing is imported."""
        self.check(name)
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, name: object) -> bool:  # Mapping's own would import the entry
        return name in self._targets

    def name_of(self, entry: type) -> str | None:
        """The name that a class is registered under, without importing any other; None if it is not."""
        target = f"{entry.__module__}:{entry.__qualname__}"
        return next((name for name, one in self._targets.items() if one == target), None)

    def check(self, name: str) -> None:
        """Raise a UsageError that names the nearest entry if there is no entry of this name."""
        if name not in self._targets:
            raise UsageError(f"unknown {self.kind} '{name}': {did_you_mean(name, self)}")
