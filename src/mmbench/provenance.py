"""What code ran: for records, and to tell results of other code."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mmbench.baselines


def source_state() -> dict[str, Any]:
    """What code this is: version, a hash of its files, and the commit if it is run from its repository."""
    here, files = Path(__file__).parent, source_files()
    state: dict[str, Any] = {
        "mmbench": version("mmbench"),
        "code": sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16],
    }

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent.parent:
            return state  # installed somewhere inside another repository
        changed = bool(git("status", "--porcelain", "--", *map(str, files)))
        return {**state, "commit": git("rev-parse", "--short=10", "HEAD"), "dirty": changed}
    except (OSError, subprocess.CalledProcessError):
        return state


def source_files() -> list[Path]:
    """The Python files of the package and its methods."""
    folders = [Path(__file__).parent, Path(mmbench.baselines.__file__).parent]
    return sorted({file for folder in folders for file in folder.rglob("*.py")})
