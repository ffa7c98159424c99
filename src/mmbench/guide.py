"""What help says besides options: what ``mmbench`` alone prints, and an example for every command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mmbench.pages import more

TASKS = """\
mmbench compares methods that fuse modalities (pictures, texts, sound, numbers), also where some are missing.

A first result    mmbench demo
                  Two methods on data that come with mmbench, in about a minute.
Compare methods   mmbench run table1
                  Eight methods under three protocols; kill it, and the same command goes on. --dry-run first tells what it runs.
My data           mmbench data add DIR
                  mmbench run table1 --dataset NAME
                  A folder with a table of samples becomes a data set, NAME by its folder; then any experiment runs on it.
My method         mmbench new method my_fusion
                  A package with a method that works and a test that passes, to be changed.
Many GPUs         mmbench run table1 --jobs 8
                  On all GPUs of this machine; started on others that share the folder of results, they share the trials.
A paper's tables  mmbench report table1
                  Tables in LaTeX, Markdown and CSV, and figures, of what is done so far.

Every command: mmbench --help. One of them, with examples: mmbench run --help."""

EXAMPLES = {
    "": ["mmbench demo", "mmbench run table1"],
    "run": [
        "mmbench run table1 --dry-run",
        "mmbench run table1 --filter method=mla protocol=clean seed=0",
        "mmbench run table1 --set datasets.openclipart.recipe.epochs=2",
        "mmbench run table1 --dataset products",
        "mmbench run grid --quick --jobs 4",
        "mmbench run table1 --backend slurm --time 12:00:00 --array 8",
    ],
    "demo": ["mmbench demo", "mmbench demo --open"],
    "status": ["mmbench status", "mmbench status table1"],
    "report": ["mmbench report table1", "mmbench report table1 --quick --set seeds=[0]"],
    "dashboard": ["mmbench dashboard table1 --print"],
    "compare": ["mmbench compare results/local/table1 table1"],
    "ledger": ["mmbench ledger"],
    "export": ["mmbench export table1 -o table1.zip"],
    "import": ["mmbench import table1.zip", "mmbench import table1.zip --keep"],
    "add-predictions": [
        "mmbench add-predictions predictions.csv --dataset openclipart --method theirs --seed 0",
        "mmbench add-predictions --list",
        "mmbench add-predictions --remove theirs",
    ],
    "check": ["mmbench check", "mmbench check regression_missing --update"],
    "data": ["mmbench data list"],
    "data list": ["mmbench data list"],
    "data info": ["mmbench data info crema_d"],
    "data prepare": ["mmbench data prepare crema_d --raw ~/CREMA-D"],
    "data add": [
        "mmbench data add ~/products --dry-run",
        "mmbench data add ~/products --label category --group seller",
    ],
    "data verify": ["mmbench data verify crema_d"],
    "data audit": ["mmbench data audit openclipart --protocol legacy"],
    "data split": ["mmbench data split openclipart --fold all -o split.csv"],
    "data demo": ["mmbench --data-dir /tmp/made_up data demo crema_d"],
    "convert": ["mmbench convert m3ae_small.pkl m3ae_small.safetensors"],
    "experiments": ["mmbench experiments list"],
    "experiments list": ["mmbench experiments list"],
    "experiments show": ["mmbench experiments show table1"],
    "experiments copy": ["mmbench experiments copy table1 experiments/mine.yaml"],
    "where": ["mmbench where"],
    "new": ["mmbench new method my_fusion", "mmbench new dataset my_data --into ~/packages"],
    "predict": ["mmbench predict results/runs/0123456789abcdef samples.csv -o answers.csv"],
    "list": ["mmbench list methods", "mmbench list experiments --names"],
    "show": ["mmbench show 0123abcd"],
    "completion": ["mmbench completion bash", "mmbench completion zsh", "mmbench completion tcsh"],
}
"""A command -> how it may be called."""
HEAD = "examples:"
PAGES = "how_to/index"
"""The page that leads to one for each task."""


def print_tasks(arguments: argparse.Namespace) -> int:
    """``mmbench``: the tasks that it is for, with their commands."""
    print(TASKS)
    print(more(PAGES))
    return 0


class HelpFormatter(argparse.HelpFormatter):
    """Leaves the lines of examples as they are; all else is wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(part if part.startswith(HEAD) else fill(part, width, indent) for part in text.split("\n\n"))


def parsers(top: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and all below it, each with the words that lead to it: "", "run", "data", "data info"."""
    yield name, top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield from parsers(sub, f"{name} {word}".strip())


def add_examples(top: argparse.ArgumentParser) -> None:
    """Put the examples of every command below its options."""
    for name, parser in parsers(top):
        lines = "\n".join([HEAD, *(f"  {line}" for line in EXAMPLES.get(name, []))])
        parser.epilog = f"{parser.epilog}\n\n{lines}" if parser.epilog else lines
        parser.formatter_class = HelpFormatter
