"""Mutated experiment files and ``--set`` values: whatever they hold, the answer is a plan or a message, in bounded memory.

By hand, with more of them: ``MMBENCH_MUTATIONS=20000 python tests/robustness/test_experiments.py``.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COUNT = int(os.environ.get("MMBENCH_MUTATIONS", "2000"))
SECONDS = float(os.environ.get("MMBENCH_MUTATION_SECONDS", "100"))
MEMORY = 4 * 2**30
"""Bytes of address space above what the imports take."""

ODD = [
    "", "~", "true", "-1", "0", "1e23", "1.0e+23", ".inf", ".nan", "0x" + "f" * 40, "9" * 30, "2026-01-01", "1:2:3", "[", "{", "]",
    "}", "- ", ": ", "? ", "&a", "*a", "<<: *a", "!!bool x", "!!int ''", "!!float x", "!!timestamp x", "!!binary x", "!!set {a}",
    "!!omap [a: 1]", "!!python/object/apply:os.getcwd []", "!x y", "|", ">", "%YAML 9.9", "---", "...", "\0", "\t", "\ufeff", "\u2028",
    "😀", "'", '"', "#", "openclipart", "mla", "sum", "clean", "small_cnn", "mlp", "name", "image", "rates", "[0.1, 0.2]", "null",
    "{kind: per_modality, rates: {image: [0.1, 0.2]}}", "[[[[[[[[" * 8, "a" * 300, "1000000", "{}", "[]",
]  # fmt: skip


def mutate(text: str, rng: random.Random) -> bytes:
    """A file with one to four changes of bytes, tokens, lines or what stands behind a colon."""
    data = text.encode()
    for _ in range(rng.randint(1, 4)):
        at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        odd = rng.choice(ODD).encode()
        lines = data.split(b"\n")
        line = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + odd + data[at:]
            case 2:
                data = data[:at] + data[min(to, at + 40) :]
            case 3:
                lines.insert(rng.randrange(len(lines)), lines[line])
                data = b"\n".join(lines)
            case 4:
                lines[line] = lines[line].partition(b":")[0] + b": " + odd
                data = b"\n".join(lines)
            case 5:
                lines[line] = b" " * rng.randrange(8) + lines[line].lstrip()
                data = b"\n".join(lines)
            case 6:
                data = data[:at] + data[at : at + 60] * rng.randrange(2, 30) + data[at:]
    return data


def setting(keys: list[str], rng: random.Random) -> str:
    """A ``--set`` of a dotted key of the file, or nearly one, to something odd."""
    parts = rng.choice(keys).split(".")
    if rng.random() < 0.3:
        parts[rng.randrange(len(parts))] = rng.choice(ODD)
    return ".".join(parts) + rng.choice(["=", "=", "=", "", " = "]) + rng.choice(ODD)


def dotted(value: Any, above: str = "") -> list[str]:
    """The dotted keys of a parsed file."""
    if not isinstance(value, dict):
        return [above]
    return [key for k, v in value.items() for key in dotted(v, f"{above}.{k}" if above else str(k))] or [above]


def try_all(seed: int, count: int, seconds: float) -> dict[str, Any]:
    """Plan mutated files, in this process, under a limit of memory; what came of them, and what should not have."""
    from mmbench.errors import UsageError
    from mmbench.experiment.plan import load
    from mmbench.experiment.settings import read_yaml

    rng, outcomes, wrong = random.Random(seed), Counter[str](), []
    sources = sorted((ROOT / "experiments").glob("*.yaml"))
    small = "title: t\ndatasets: {openclipart: {recipe: {epochs: 2}}}\nmethods: {sum: , mla: }\nseeds: [0, 1]\n"
    load(sources[0].with_name("table1.yaml"))  # all that is imported is imported before the limit
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        for number in range(count):
            if time.monotonic() > end:
                break
            source = rng.choice(sources)
            text = source.read_text() if rng.random() < 0.7 else small
            settings = []
            if rng.random() < 0.6:
                path.write_bytes(mutate(text, rng))
            else:
                path.write_text(text)
                settings = [setting(dotted(read_yaml(path)), rng) for _ in range(rng.randint(1, 3))]
            try:
                load(path, settings, quick=rng.random() < 0.1)
                outcomes["a plan"] += 1
            except UsageError:
                outcomes["a message"] += 1
            except BaseException as error:
                wrong.append([number, f"{type(error).__name__}: {error}"[:300], settings])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tried": outcomes.total() + len(wrong), "outcomes": dict(outcomes), "wrong": wrong, "peak_mb": round(peak)}


def in_a_child(count: int, seconds: float) -> dict[str, Any]:
    """``try_all`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "child", str(count), str(seconds)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_mutated_experiment_is_answered_in_words_and_in_bounded_memory() -> None:
    found = in_a_child(COUNT, SECONDS)
    assert found["wrong"] == []
    assert found["tried"] >= 200, "it came to something in its time"
    assert found["outcomes"]["a plan"] > 0
    assert found["outcomes"]["a message"] > found["tried"] / 4


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(try_all(0, int(sys.argv[2]), float(sys.argv[3]))))
    else:
        print(json.dumps(in_a_child(COUNT, float(os.environ.get("MMBENCH_MUTATION_SECONDS", "3600"))), indent=1))
