"""A page for every method, and their index: from its docstring, the registry, ``about/methods.yaml``, reports and tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from method_diagram import draw
from method_docstring import Docstring, markdown, parse
from method_facts import arguments, mechanisms, planted
from method_numbers import NONE, numbers, parameters
from mmbench.baselines import METHODS
from mmbench.report.latex import METHOD_NAMES

DOCS = Path(__file__).parents[1]
INERT = re.compile(
    r"never (runs|used|stepped|applied|true)|do(es)? nothing|trains? neither|does not use it|assigns it to nothing|is not there\.|"
    r"looks for a parameter by the wrong name|literal_hard_loss"
)
"""What a departure says where it tells of a part of the release that has no effect, or another one."""


HEAD = "| protocol, missing | accuracy | − late fusion | data | experiment |\n| --- | ---: | ---: | --- | --- |"
LETTERS = """Where nothing else is said, h\\_m is what the encoder makes of modality m, of M; z are the logits, before the softmax;
CE and ℓ are the cross-entropy with the label. What ends in \\_m is there once for each modality."""
NOTE = """Accuracy in percent with everything that is there, ± the deviation over seeds where there are several;
[protocols](../ideas/protocols.md) are how it was tested. The difference to late fusion is in points, on the same samples and seeds,
with its 95 % [interval](../ideas/intervals.md), bold where that leaves out zero (not corrected for the number of methods). Models of
a missing rate were trained and tested at it. Read from `results/<experiment>/` when this page is built."""
PLANTED = """`tests/baselines/test_planted_answers.py` trains it on three modalities, `a`, `b` and `c`, of which theory tells what can
be learnt; `c` is noise. There are two classes of equal size, so a guess is right in half of the cases."""


@cache
def about() -> dict[str, dict[str, str]]:
    """What ``about/methods.yaml`` says: method -> idea, diagram, citation."""
    return yaml.safe_load((DOCS / "about/methods.yaml").read_text())


@cache
def own() -> dict[str, type]:
    """The methods of this package that are told of in ``about/methods.yaml``: registered name -> class.

    One that is new works without; ``make checklist`` asks for its entry.
    """
    ours = (name for name in METHODS if METHODS.target(name).startswith("mmbench.baselines."))
    return {name: METHODS[name] for name in ours if name in about()}


def name_of(method: str) -> str:
    """A method as papers write it."""
    return METHOD_NAMES.get(method, method)


def page(method: str) -> str:
    """The page of a method."""
    said, entry = parse(own()[method]), about()[method]
    classes = {one.__name__: name for name, one in own().items()}

    def text(block: str) -> str:
        return markdown(block, set(own()) - {method}, classes)

    parts = [
        f"# {name_of(method)} (`{method}`)",
        f"For whoever wants to run or change {name_of(method)}: what it does, where it departs from its paper, what came of it.",
        "## The idea",
        entry["idea"].strip(),
        _raw(draw(entry["diagram"], f"How {name_of(method)} works, drawn for two modalities")),
        "Drawn for two modalities; the method takes any number. Dashed: where a gradient takes a path of its own."
        if "..>" in entry["diagram"]
        else "Drawn for two modalities; the method takes any number.",
        *_outcome(method),
        "## Run it",
        *_command(method),
        "## Paper and code",
        *_sources(method, said, text),
        "## Equations",
        LETTERS,
        *map(text, said.body),
        *map(text, said.notes),
        "## Cost",
        " ".join(filter(None, [_capital(text(said.cost)), parameters(method)]))
        or "Not said, and no committed report has it yet.",
        "## Departures",
        "How this implementation departs from the paper, and from the code that its authors released:",
        "\n".join(f"{i + 1}. {_indented(text(item), 3)}" for i, item in enumerate(said.departures)),
        "## What the release does not do",
        *_released(method, said, text),
        "## Arguments",
        *_arguments(method, said, text),
        "## Numbers",
        *_numbers(method),
        "## Planted answers",
        *_planted(method),
        "## Source",
        *_source(method),
        "## Cite",
        f"```bibtex\n{entry['citation'].strip()}\n```" if entry["citation"].startswith("@") else entry["citation"],
    ]
    return "\n\n".join(parts) + "\n"


def _raw(html: str) -> str:
    """HTML as it is."""
    return f"```{{raw}} html\n{html}\n```"


def _capital(text: str) -> str:
    """Text as a sentence begins."""
    return text[:1].upper() + text[1:]


def _indented(text: str, by: int) -> str:
    """Text of an item of a list: lines after the first stand below it."""
    return text.replace("\n", "\n" + " " * by)


def _outcome(method: str) -> Iterator[str]:
    """The first of its numbers, in a sentence."""
    for one in numbers(method)[:1]:
        apart = "told apart from it" if one.difference.startswith("**") else "not told apart from it"
        against = "" if one.difference == NONE else f", {one.difference} points from late fusion: {apart}"
        yield f"On [`{one.dataset}`](../datasets/{one.dataset}.md): {one.accuracy} % right{against}. All [numbers](#numbers)."


def _sources(method: str, said: Docstring, text: Any) -> Iterator[str]:
    """The paper, by its BibTeX, and the code that was read."""
    fields = dict(re.findall(r"(\w+) = \{(.*)\},?$", about()[method]["citation"], flags=re.MULTILINE))
    lines = [text(said.summary)]
    if fields:
        title = re.sub(r"[{}]", "", fields["title"])
        authors = [" ".join(reversed(one.split(", "))) for one in fields["author"].split(" and ")]
        where = fields.get("booktitle", fields.get("journal", "arXiv"))
        link = f" [arXiv {fields['eprint']}](https://arxiv.org/abs/{fields['eprint']})" if "eprint" in fields else ""
        lines.append(f"- Paper: *{title}*. {', '.join(authors)}. {where}, {fields['year']}.{link}")
    code = dict.fromkeys(
        re.findall(r"https?://[^\s,;)]+[\w/]", "\n".join([said.summary, *said.body, *said.departures]))
    )
    lines += [f"- Code that was read: <{url}>" for url in code]
    yield lines[0]
    yield "\n".join(lines[1:]) or "There is neither a paper nor a release of its own."


def _released(method: str, said: Docstring, text: Any) -> Iterator[str]:
    """What of the release has no effect, or another one: of the docstring, and of the page that has the lines."""
    yield from map(text, said.released)
    told = [str(i + 1) for i, item in enumerate(said.departures) if INERT.search(" ".join(item.split()))]
    if told:
        yield f"Told above: departure{'s' * (len(told) > 1)} {', '.join(told)}."
    rows = mechanisms(method, name_of(method))
    for row in rows:
        anchor = row.heading.lower().replace(" ", "-")
        words = f"Meant: {row.meant}. Released: {row.does}. Here: {_linked(row.here, method)}."
        yield f"- [{row.heading}](../released_mechanisms.md#{anchor}). {words}"
    if rows:
        yield "[Released mechanisms](../released_mechanisms.md) has the lines in the code."
    elif not (said.released or told):
        yield "[Released mechanisms](../released_mechanisms.md) has no row for it."


def _linked(text: str, method: str) -> str:
    """Text in which the names of other methods lead to their pages, as their departures do not stand on this one."""
    others = set(own()) - {method}
    return re.sub(r"`(\w+)`", lambda found: f"[{found[0]}]({found[1]}.md)" if found[1] in others else found[0], text)


def _arguments(method: str, said: Docstring, text: Any) -> Iterator[str]:
    """Every argument: type, default, bounds, the range of tuning, and what the docstring says."""
    found = arguments(own()[method])
    if not found:
        yield "None of its own. Encoders and recipe are those of the experiment."
        return
    example = next((f"--set methods.{method}.{one.name}={one.default}" for one in found if one.default != "None"), "")
    command = f"; in a command, `{example}` sets one" if example else ""
    yield f"In an experiment's file they stand below the method's name{command}."
    if any(one.tuned for one in found):
        yield "Tuning draws from the range that is given, where there is one."
    for one in found:
        facts = [f"`{one.kind}`, default `{one.default}`", one.bounds, f"tuned over {one.tuned}" if one.tuned else ""]
        yield f"`{one.name}`\n: {'; '.join(filter(None, facts))}.\n\n  {_indented(text(said.arguments.get(one.name, '')), 2)}"
    for error, when in said.raises.items():
        yield f"`{error}` is raised if: {text(when)}"


def _numbers(method: str) -> Iterator[str]:
    """What reports have of it."""
    lines = numbers(method)
    if not lines:
        yield "No committed report has it yet."
        return
    rows = [
        f"| {one.how} | {one.accuracy} | {one.difference} | `{one.dataset}` | {_experiments(one.experiments, one.label)} |"
        for one in lines
    ]
    yield "\n".join([HEAD, *rows])
    yield NOTE


def _experiments(names: tuple[str, ...], label: str) -> str:
    """The experiments that have a number, and what they call the method if not by its name."""
    return ", ".join(f"`{name}`" for name in names) + (f": {label}" if label else "")


def _planted(method: str) -> Iterator[str]:
    """What it can and cannot learn on data of which theory knows the answer."""
    if (one := planted().get(method)) is None:
        yield "It has no row in `tests/baselines/test_planted_answers.py` yet."
        return
    blind = ", ".join(f"`{pattern}`" for pattern in one.blind)
    yield PLANTED
    yield "\n".join(
        [
            "- **`a` carries the class**: solved under every pattern that shows `a`.",
            "- **`a` and `b` both carry it**: "
            + (f"solved but for {blind}." if blind else "solved under every pattern that shows one of them."),
            "- **The same, four in ten cells missing in training**: solved under every pattern that shows one of them.",
            "- **The class is whether the bits of `a` and `b` differ (XOR)**: "
            + ("solved from both." if one.xor else "**not solved**, and theory says that it cannot be."),
        ]
    )
    yield "Why: " + markdown(one.reason.rstrip("."), set(own()) - {method}) + "."


def _command(method: str) -> Iterator[str]:
    """A command that runs it beside the reference."""
    other = "unimodal" if method == "late_fusion" else "late_fusion"
    command = f"--filter dataset=openclipart_features \\\n    method={other} method={method}"
    yield f"Beside `{other}`, on data that come with the package: one fold, complete and with four in ten cells missing;"
    yield f"```\nmmbench run grid --quick {command}\n```"
    yield "and five folds, complete and at three missing rates:"
    yield f"```\nmmbench run grid {command}\n```"
    yield """`--dry-run` lists the trials; [commands](../reference/commands.md) has the rest. The same
[from Python](../examples/compare_two_methods.rst)."""


def _source(method: str) -> Iterator[str]:
    """The file, folded away."""
    file = METHODS.target(method).partition(":")[0].rpartition(".")[2]
    yield f"The method is one file, `baselines/{file}.py`."
    yield _raw(f"<details><summary>baselines/{file}.py</summary>")
    yield f"```{{literalinclude}} ../../baselines/{file}.py\n:language: python\n```"
    yield _raw("</details>")
