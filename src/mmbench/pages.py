"""The page of the documentation that explains an error: by the part of the code that it comes from, else by the command."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from mmbench.errors import UsageError
from mmbench.places import PACKAGE

ORIGINS = {
    "mmbench.experiment": "reference/experiment",
    "mmbench.data.adding": "how_to/my_data",
    "mmbench.data.sets.added": "how_to/my_data",
    "mmbench.data.prepared": "how_to/gated_data",
    "mmbench.data.preparing": "how_to/gated_data",
    "mmbench.encoders": "how_to/offline",
    "mmbench.elsewhere": "how_to/my_predictions",
    "mmbench.runner": "how_to/many_gpus",
    "mmbench.models": "how_to/models",
    "mmbench.tracking": "how_to/wandb",
    "mmbench.dashboard": "how_to/wandb",
    "mmbench.report": "how_to/paper_tables",
    "mmbench.store": "reference/environment",
    "mmbench.index": "reference/environment",
    "mmbench.bundles": "how_to/many_gpus",
}
"""A module, or the package that it is in -> the page; of the frames of an error the innermost that has one decides."""
COMMANDS = {
    "run": "reference/experiment",
    "data": "how_to/my_data",
    "new": "how_to/my_method",
    "convert": "how_to/offline",
    "predict": "how_to/models",
    "report": "how_to/paper_tables",
    "dashboard": "how_to/wandb",
    "add-predictions": "how_to/my_predictions",
}
"""A command -> the page, where no frame has one."""
ANY = "reference/commands"
NOT_HERE, NO_WEIGHTS = "how_to/gated_data", "how_to/offline"
"""The pages of data that are not prepared on this machine, and of weights that are not on it."""


def explained(error: UsageError, page: str) -> UsageError:
    """The error with a page of its own, which comes before that of the code that it comes from."""
    error.add_note(page)
    return error


def page_of(error: BaseException, command: str) -> str:
    """The page that explains an error of a command: its path below ``docs``, without suffix."""
    if own := getattr(error, "__notes__", []):
        return own[0]
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for module in reversed(frames):
        parts = module.split(".")
        for length in range(len(parts), 1, -1):
            if page := ORIGINS.get(".".join(parts[:length])):
                return page
    return COMMANDS.get(command, ANY)


def more(page: str) -> str:
    """The line that names a page: its file, where there is one, as seen from the current folder."""
    file = docs() / f"{page}.md"
    if not file.is_file():
        return f"more: the page {page} of the documentation"
    seen = Path(os.path.relpath(file))
    return f"more: {file if seen.parts[0] == '..' else seen}"


def docs() -> Path:
    """Where the documentation is in a checkout; a wheel has none."""
    return PACKAGE.parents[1] / "docs"
