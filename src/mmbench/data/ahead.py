"""Batches that are gathered while a GPU works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mmbench.batch import Batch


def gathered_ahead(gather: Callable[[Any], Batch], rows: Iterable[Any]) -> Iterator[Batch]:
    """What ``map(gather, rows)`` gives, each batch made by a thread, one ahead, and in pinned memory.

    The rows themselves are taken in the caller's thread, so that nothing is drawn at another time than without. The thread ends before
    the last batch is given, and with this iterator. What goes wrong in it is raised here, where its batch would have come.
    """

    def pinned(these: Any) -> Batch:
        return gather(these).pin_memory()

    coming: Future[Batch] | None = None
    with ThreadPoolExecutor(1, "batches") as thread:
        for these in rows:
            ready, coming = coming, thread.submit(pinned, these)
            if ready is not None:
                yield ready.result()
    if coming is not None:
        yield coming.result()
