"""What a command costs before any trial runs: CPU time, as a ratio to that of ``import torch`` on the same machine."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

TURNS = 5
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "mmbench --help": ["-m", "mmbench", "--help"],
    "an unknown method": ["-m", "mmbench", "run", "table1", "--set", "methods.summ="],
    "an unknown argument": ["-m", "mmbench", "run", "table1", "--set", "methods.mla.alfa=1"],
    "an encoder that does not fit": [
        "-m",
        "mmbench",
        "run",
        "table1",
        "--set",
        "datasets.openclipart.encoders.image=mlp",
    ],
    "run table1 --dry-run": ["-m", "mmbench", "run", "table1", "--dry-run"],
}


def main() -> None:
    """Print the median of each command; they take turns, so that all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(TURNS):
        for name, arguments in COMMANDS.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    torch = statistics.median(seconds["import torch"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:30} {median:5.2f} s of CPU, {median / torch:4.2f} × import torch")


if __name__ == "__main__":
    main()
