"""What help says besides options: the tasks that ``mmbench`` alone prints, an example for every command, the version."""

from __future__ import annotations

import argparse
import shlex

import pytest

from mmbench.cli import main, parser
from mmbench.guide import EXAMPLES, HEAD, PAGES, TASKS, parsers
from mmbench.machine import installed_version
from mmbench.pages import more

COMMANDS = dict(parsers(parser()))


def commands_in(text: str) -> list[list[str]]:
    """The arguments of the commands that a text has, each at the end of its line."""
    lines = [line[line.index("mmbench ") :] for line in text.splitlines() if "  mmbench " in line]
    return [shlex.split(line)[1:] for line in lines]


def test_mmbench_alone_prints_five_tasks_with_commands_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    assert told == f"{TASKS}\n{more(PAGES)}\n"
    for task in ("Compare methods", "My data", "My method", "Many GPUs", "A paper's tables"):
        assert f"\n{task} " in told
    assert "mmbench --help" in told
    found = commands_in(told)
    assert len(found) >= 6
    for arguments in found:
        parser().parse_args(arguments)


def test_every_command_has_an_example_and_every_example_a_command() -> None:
    without = [name for name in COMMANDS if not EXAMPLES.get(name)]
    assert not without, f"commands without an example in mmbench.guide: {without}"
    assert not set(EXAMPLES) - set(COMMANDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_parse_and_are_of_their_command(name: str) -> None:
    for line in EXAMPLES[name]:
        words = shlex.split(line)
        assert words[0] == "mmbench"
        parser().parse_args(words[1:])
        if name:
            assert f" {name}" in f" {' '.join(words)}", f"{line} is no example of {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_the_examples_line_by_line_and_wraps_the_rest(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = COMMANDS[name].format_help()
    assert told.endswith("\n".join([HEAD, *(f"  {line}" for line in EXAMPLES[name])]) + "\n")
    assert max(map(len, told.partition(HEAD)[0].splitlines())) <= 80


def test_what_else_stands_below_the_options_stays() -> None:
    told = " ".join(COMMANDS["compare"].format_help().split())
    assert "2 where one is not there or is damaged. examples: mmbench compare " in told


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mmbench {installed_version('mmbench')}\n"


def test_the_walk_finds_commands_below_commands() -> None:
    top = argparse.ArgumentParser()
    top.add_subparsers().add_parser("a").add_subparsers().add_parser("b")
    assert [name for name, _ in parsers(top)] == ["", "a", "a b"]
