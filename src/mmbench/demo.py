"""``mmbench demo``: a first result, in sentences. Imports that take time stay inside the functions that need them."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmbench.errors import counted
from mmbench.opening import OK, load_experiment, open_store
from mmbench.places import carried

if TYPE_CHECKING:
    from mmbench.report.collect import Results
    from mmbench.report.comparison_tables import Pair

NEXT = """\
Next:
  mmbench run table1 --dry-run   what a whole comparison runs: eight methods, three protocols; without --dry-run it runs
  mmbench data add DIR           your own data, from a folder with a table of samples
  mmbench                        what else there is to do"""


def add_options(sub: argparse.ArgumentParser, run: argparse.ArgumentParser) -> None:
    """The options of the command.

    Args:
        sub: its parser.
        run: that of ``mmbench run``, whose defaults are the demo's.
    """
    sub.add_argument("--open", action="store_true", help="open the report's page, where there is a display")
    sub.set_defaults(run=run)


def demo(arguments: argparse.Namespace) -> int:
    """``mmbench demo``: run ``experiments/demo.yaml`` as ``mmbench run`` does, and say what came of it."""
    from mmbench.commands import run_experiment
    from mmbench.provenance import Codes
    from mmbench.report_commands import write_report

    file = str(carried("experiments") / "demo.yaml")
    places = argparse.Namespace(results=arguments.results, data_dir=arguments.data_dir, argv=arguments.argv)
    run = arguments.run.parse_args([file, "--no-report"], places)
    if failed := run_experiment(run):
        return failed
    experiment, store = load_experiment(run), open_store(run, write=True)
    results = write_report(experiment, store, run.results, Codes(), keep=True)
    folder = run.results / "local" / experiment.name
    print(
        f"\n{told(results)}\n\nFigure: {folder}/figure.png\nPage:   {folder}/table.html, with every table and figure\n"
    )
    print(NEXT)
    if arguments.open:
        show(folder / "table.html")
    return OK


def told(results: Results) -> str:
    """What came of an experiment of two methods on one data set, in sentences and two small tables."""
    from mmbench.missing import pattern_name, patterns
    from mmbench.report.comparison_tables import Pairs

    one, other = (row for row in results.rows if not row.elsewhere)
    modalities = results.modalities[one.dataset]
    every, means = pattern_name(patterns(modalities)[-1]), {}
    for line in results.table[results.table.metric == "accuracy"].itertuples():
        means[line.method, line.pattern] = line.mean
    pairs = Pairs(results, one.dataset, one.protocol)
    facts = results.tests[one.dataset, one.protocol]
    width = max(len(one.method), len(other.method))
    lines = [
        f"{one.method} and {other.method}, {counted(len(one.seeds), 'seed')} on each of {one.folds} folds of {one.dataset}, tested on",
        f"{facts.size} drawings with {listed(modalities)} by {facts.groups} artists, by models that had not seen these artists.",
        "",
        "Accuracy with every modality:",
        *(f"  {row.method:{width}}  {means[row.method, every]:5.1f} %" for row in (one, other)),
        "",
        *compared(one.method, other.method, pairs.between(one, other, every)),
        "",
        "Accuracy of the same models with one modality alone:",
        f"  {'':{width}}" + "".join(f"  {name:>7}" for name in modalities),
    ]
    for row in (one, other):
        cells = "".join(f"  {means[row.method, name]:5.1f} %" for name in modalities)
        lines.append(f"  {row.method:{width}}{cells}")
    lines += ["", *alone(one.method, other.method, {name: pairs.between(one, other, name) for name in modalities})]
    return "\n".join(lines)


def compared(one: str, other: str, pair: Pair | None) -> Iterator[str]:
    """The difference of two methods, and whether they can be told apart."""
    assert pair is not None, "both methods ran the same seeds"
    d = pair.difference
    interval = f"95 % interval [{signed(d.low)}, {signed(d.high)}]"
    yield f"{one} minus {other}: {signed(d.mean)} points, {interval}, on the same samples and seeds."
    if d.separable:
        better = one if d.mean > 0 else other
        yield f"The interval leaves out zero: the two can be told apart, and {better} is the more accurate on these data."
    else:
        yield "The interval holds zero: from these runs the two cannot be told apart."


def alone(one: str, other: str, pairs: dict[str, Pair | None]) -> Iterator[str]:
    """By which modalities alone the first method, which trains each by itself, is told from the second."""
    behind = [name for name, pair in pairs.items() if pair is not None and pair.difference.low > 0]
    if behind:
        yield f"{one} trains each modality by itself. {other} trains them together, and can be told to answer less well"
        yield f"from {listed(behind)} alone. Neither is tuned here; `mmbench run tuned` tunes eight methods with equal budgets."
    else:
        yield f"{one} trains each modality by itself. From these runs {other} cannot be said to answer less well from any."


def signed(points: float) -> str:
    """With its sign.

    >>> signed(4.13), signed(-0.72)
    ('+4.1', '−0.7')
    """
    return f"{points:+.1f}".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["image"]), listed(["image", "title", "tags"])
    ('image', 'image, title and tags')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def show(page: Path) -> None:
    """Open a page in a browser; says so where there is none to be seen."""
    seen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not seen or not webbrowser.open(page.resolve().as_uri()):
        print(f"no display here: open {page} where there is one", file=sys.stderr)
