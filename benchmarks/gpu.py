"""What the suite does on a GPU, in at most six minutes: ``make gpu``, or ``python benchmarks/gpu.py [--device cpu] [--tiny]``.

Checks and timings, in parts: methods in deterministic mode and against the CPU, precisions, encoders, compiled ones, how a GPU is
fed, trials that share one, a trial that is killed, a trial on two of them. Each part has a process and a time of its own: one that
breaks off, hangs or has no memory is a row that says so, and the others go on. Nothing is downloaded; weights are random. Where there
is no network, ``pip install --no-deps --no-build-isolation --editable .`` is enough beside torch, Lightning, timm and what they need,
transformers, pandas, pyarrow, scikit-learn, pydantic and rich.

Prints a table, and writes it to ``results/gpu/<card>.md`` if it is of a GPU. Exits with 1 if a check failed (timings have goals, and
are no checks), with 2 if there is no GPU. ``--device cpu --tiny`` runs what needs no GPU, on small shapes, in about two minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LONGEST = 350.0
"""Seconds for all parts together; what is left then is not run."""
GRACE = 5
"""Seconds for a part that has to end."""
SLOW = 4
"""How many times as long all may take that is tiny: it runs on machines that have other things to do."""


@dataclass(frozen=True)
class Machine:
    """Where the parts run: on "cuda" or the "cpu", and whether on small shapes."""

    device: str
    tiny: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device == "cuda"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: was looked at.
        figure: what came of it.
        goal: what was to come of it; a timing's is no check.
        ok: whether a check held; None: there was nothing to check.
        part: whose it is.
    """

    what: str
    figure: str
    goal: str = ""
    ok: bool | None = None
    part: str = ""


NO_GPU = Row("no GPU", "torch sees none; --device cpu --tiny tries the script without one", ok=False, part="card")


@dataclass(frozen=True)
class Part:
    """A part: ``module:function``, from a machine to rows; its seconds; whether it checks anything, and so fails if it breaks off."""

    function: str
    seconds: float
    checks: bool = True


PARTS = {
    "card": Part("gpu_parts:card", 40, checks=False),
    "methods": Part("gpu_parts:methods", 90),
    "precision": Part("gpu_parts:precisions", 25),
    "encoders": Part("gpu_steps:encoders", 90),
    "packing": Part("gpu_trials:packing", 75),
    "resume": Part("gpu_trials:resume", 75),
    "ranks": Part("gpu_trials:ranks", 60),
    "feeding": Part("gpu_steps:feeding", 75, checks=False),
    "compile": Part("gpu_steps:compiled", 90, checks=False),
}
"""By name, in their order: the last ones are what can be done without, if time is short. Most need a half of their seconds."""
PRELOADED = ["mmbench.runner.preload", "mmbench.testing", "gpu_parts", "gpu_steps", "gpu_trials"]


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; the exit code."""
    asked = options().parse_args(arguments)
    machine, began = Machine(asked.device, asked.tiny), time.monotonic()
    # The fork server finds the parts by it.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    rows: list[Row] = []
    patience = SLOW if machine.tiny else 1
    for name in asked.only or PARTS:
        part, left = PARTS[name], patience * LONGEST - (time.monotonic() - began)
        rows += told(run(name, part, machine, min(patience * part.seconds, left), context))
        if rows[0] == NO_GPU:
            return 2
    text = markdown(rows, machine, time.monotonic() - began)
    print(f"\n{text}")
    folder = asked.out or (ROOT / "results/gpu" if machine.on_gpu and not machine.tiny else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{slug(rows[0].figure)}.md").write_text(text)
        print(f"wrote {folder / slug(rows[0].figure)}.md", file=sys.stderr)
    return 1 if any(row.ok is False for row in rows) else 0


def options() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the table is written (default: results/gpu)")
    return parser


def told(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, printed as they come."""
    for row in rows:
        print(" | ".join(cells(row)), flush=True)
        yield row


# A part


def run(name: str, part: Part, machine: Machine, seconds: float, context: Any) -> Iterator[Row]:
    """The rows of a part, as they come out of its process, which gets so many seconds."""
    if seconds <= 0:
        yield broken(name, part, f"not run: {LONGEST:.0f} s are over")
        return
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(part.function, machine, there))
    process.start()
    there.close()
    until, ended = time.monotonic() + seconds, False
    try:
        while here.poll(max(0.0, until - time.monotonic())):
            row = here.recv()
            if row is None:
                ended = True
                break
            yield replace(row, part=name)
    except EOFError:
        process.join(5)
        yield broken(name, part, f"broke off with exit code {process.exitcode}")
        ended = True
    if not ended:
        yield broken(name, part, f"not over after {seconds:.0f} s")
        process.terminate()
        process.join(GRACE)
    kill(process.pid)
    process.join()
    here.close()


def broken(name: str, part: Part, why: str) -> Row:
    """The row of a part, or what is left of it, that came to nothing."""
    return Row(name, why, ok=False if part.checks else None, part=name)


def kill(pid: int) -> None:
    """End a part's process with all that it has started."""
    for group in (True, False):  # it may not have come to lead a group yet
        try:
            os.killpg(pid, signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return


def serve(function: str, machine: Machine, rows: Connection) -> None:
    """A part's process: sends rows, and None when there are no more."""
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # on the way out, what the part has started is ended
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as deterministic products need it
    if not machine.on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import torch

        torch.set_num_threads(1)
    module, _, name = function.partition(":")
    make: Callable[[Machine], Iterator[Row]] = getattr(import_module(module), name)
    try:
        for row in make(machine):
            rows.send(row)
    except Exception as error:
        traceback.print_exc()
        rows.send(Row(name, f"{type(error).__name__}: {first_line(error)}", ok=False))
    rows.send(None)


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    return str(error).strip().partition("\n")[0][:160]


# The table


def cells(row: Row) -> list[str]:
    """A row's texts."""
    return [row.part, row.what, row.figure, row.goal, {True: "ok", False: "FAILED", None: ""}[row.ok]]


def markdown(rows: list[Row], machine: Machine, seconds: float) -> str:
    """The table."""
    failed, held = (sum(row.ok is ok for row in rows) for ok in (False, True))
    how = "python benchmarks/gpu.py" + ("" if machine.on_gpu else " --device cpu") + (" --tiny" if machine.tiny else "")
    lines = [
        f"# {rows[0].figure}",
        "",
        f"`{how}`, {datetime.now(UTC):%Y-%m-%d}, {seconds:.0f} s: {held} checks held, {failed} failed. Goals of timings are no checks.",
        "",
        "| part | what | figure | goal | |",
        "| --- | --- | --- | --- | --- |",
        *("| " + " | ".join(text.replace("|", "\\|") for text in cells(row)) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def slug(name: str) -> str:
    """A file's name for a card's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


if __name__ == "__main__":
    import gpu  # the module that the parts know, and not a second one under another name

    sys.exit(gpu.main())
