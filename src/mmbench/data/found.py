"""The table of data sets: those of this package and of others, and those that were added without code, found by their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmbench.errors import UsageError
from mmbench.files import data_root
from mmbench.registry import Registry

EMBEDDED = Path(__file__).parent / "sets" / "embedded"
"""Prepared folders that come with the package."""
ADDED = "mmbench.data.sets.added:AddedDataModule"
MOST_BYTES = 1 << 28
"""Of a manifest."""


class Datasets(Registry):
    """Names of data sets -> their classes. A name of a class in a package comes before one that was added; that is refused anyway."""

    def __getitem__(self, name: str) -> Any:
        """The class of a data set; of one that was added, made anew of its manifest."""
        if name in self._targets or (folder := folder_of(name)) is None:
            return super().__getitem__(name)
        from mmbench.data.adding.declaration import declared
        from mmbench.data.sets.added import added_class

        path = folder / "manifest.json"
        content = declared(declaration_of(path), f"{path}: declaration")
        if content.name != name:
            raise UsageError(f"{path} is of the data set '{content.name}'; expected it in a folder of this name")
        return added_class(content, folder if folder.parent == EMBEDDED else None)

    def target(self, name: str) -> str:
        """The entry as it is registered; of all that were added, the class that they are made of."""
        return super().target(name) if name in self._targets or folder_of(name) is None else ADDED

    def __iter__(self) -> Iterator[str]:
        return iter([*self._targets, *(name for name in added() if name not in self._targets)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._targets or (isinstance(name, str) and folder_of(name) is not None)

    def check(self, name: str) -> None:
        """Raise a UsageError that names the nearest entry if there is no entry of this name."""
        if name not in self:
            super().check(name)

    @property
    def registered(self) -> Mapping[str, str]:
        """Those that have a class of their own."""
        return dict(self._targets)


def folder_of(name: str) -> Path | None:
    """The prepared folder of a data set that was added; None if there is none."""
    if Path(name).name != name:
        return None
    folders = (root / name for root in (EMBEDDED, data_root()))
    return next((folder for folder in folders if declaration_of(folder / "manifest.json") is not None), None)


def added() -> list[str]:
    """The names of the data sets that were added, those that come with the package first."""
    found: dict[str, None] = {}
    for root in (EMBEDDED, data_root()):
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        found |= {
            n: None for n in names if not n.startswith(".") and not n.endswith((".partial", ".old")) and folder_of(n)
        }
    return list(found)


def declaration_of(path: Path) -> Any:
    """What a manifest declares of a data set; None if there is no manifest, it is damaged, or that of a data set with its own class."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _read(path, found.st_mtime_ns, found.st_size) if found.st_size <= MOST_BYTES else None


@lru_cache(256)
def _read(path: Path, changed: int, size: int) -> Any:
    """What a manifest declares, read anew when its file has changed."""
    try:
        return json.loads(path.read_bytes()).get("declaration")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
