"""The fork server that these tests start sees the plugin; the one of other tests, and this process's own tables, do not."""

from __future__ import annotations

import multiprocessing.forkserver
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmbench.recipe import Recipe
from mmbench.trial import Trial

PLUGIN = str(Path(__file__).parents[1] / "plugin")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, set[int | None]]]:
    """Where the plugin's methods leave their marks, and the processes of the fork servers that know it."""
    yield str(tmp_path_factory.mktemp("plugin") / "marker"), set()
    fork_server()._stop()


@pytest.fixture(scope="module", autouse=True)
def plugin(servers: tuple[str, set[int | None]]) -> Iterator[None]:
    """Children take over ``sys.path`` when they start; their environment is the one that the server was started with.

    A server that knows the plugin serves all of these files; what other tests start in between does not see it.
    """
    marker, know_it = servers
    if fork_server()._forkserver_pid not in know_it:
        fork_server()._stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        patch.setenv("PYTHONPATH", PLUGIN, prepend=os.pathsep)
        patch.setenv("MMBENCH_TESTING_MARKER", marker)
        patch.setenv("MMBENCH_TESTING_SLEEP", "0.05")
        yield
    know_it.add(fork_server()._forkserver_pid)


def fork_server() -> Any:
    """Multiprocessing's, of this process."""
    return multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Trial]:
    """Makes a trial on the plugin's data set, without the registry: this process does not know the plugin's names."""

    def make(method: str = "tiny_good", seed: int = 0, protocol: str = "clean", epochs: int = 2) -> Trial:
        encoders = {m: {"name": "tiny_linear", "width": 8} for m in ("left", "right")}
        return Trial(
            dataset="tiny",
            data="tiny-1",
            protocol=protocol,
            method=method,
            seed=seed,
            encoders=encoders,
            params={},
            recipe=Recipe(epochs=epochs, batch_size=16, lr=0.1),
        )

    return make
