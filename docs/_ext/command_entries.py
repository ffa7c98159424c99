"""Every command with its usage, options and examples, from the parser."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from unittest.mock import patch

from mmbench.cli import parser
from mmbench.options import places

COMMANDS = """# Commands

For whoever types `mmbench`; made from the parser, so this is what `mmbench COMMAND --help` says.

Exit codes and folders are in [Environment](environment.md).

## Options of every command

They may stand before the command or after it.

"""
WIDTH = 78


def commands_page() -> str:
    """Every command."""
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("MMBENCH_")]:
            del os.environ[name]  # a default that is this machine's alone
        text = COMMANDS + entries(places(top=True)._actions)
        return text + "".join(command_entry(name, sub) for name, sub in commands())


def commands(
    of: argparse.ArgumentParser | None = None, name: str = "mmbench"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command, each before those below it: its full name and its parser."""
    for action in (of or parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield f"{name} {word}", sub
                yield from commands(sub, f"{name} {word}")


def command_entry(name: str, sub: argparse.ArgumentParser) -> str:
    """The section of a command."""
    level = "#" * len(name.split())
    below = [f"{name} {word}" for word in subcommands(sub)]
    text = f"{level} `{name}`\n\n{sub.description or ''}\n\n"
    if below:
        return text + "".join(f"- [`{one}`](#{one.replace(' ', '-')})\n" for one in below) + "\n" + epilog(sub)
    return f"{text}```text\nusage: {usage(name, own(sub))}\n```\n\n{epilog(sub)}{entries(own(sub))}"


def usage(name: str, actions: list[argparse.Action]) -> str:
    """A command with what it cannot do without, in a line: its options are listed below it."""
    options = [action for action in actions if action.option_strings]
    needed = [signature(action) for action in options if action.required]
    positional = [signature(action) for action in actions if not action.option_strings]
    return " ".join([name, *["[options]"] * (len(options) > len(needed)), *needed, *positional])


def subcommands(sub: argparse.ArgumentParser) -> list[str]:
    """The words that may follow."""
    return [word for a in sub._actions if isinstance(a, argparse._SubParsersAction) for word in a.choices]


def own(sub: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes that not every command does."""
    common = {option for action in places()._actions for option in action.option_strings} | {"--help"}
    return [a for a in sub._actions if not common & set(a.option_strings) and a.help != argparse.SUPPRESS]


def entries(actions: list[argparse.Action]) -> str:
    """A definition a positional argument or option."""
    return "".join(f"`{signature(action)}`\n: {told(action)}\n\n" for action in actions)


def signature(action: argparse.Action) -> str:
    """How an argument is written: ``--jobs N``, ``KEY``."""
    formatter = argparse.HelpFormatter("", width=WIDTH)
    value = (
        "" if action.nargs == 0 else formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    )
    if not action.option_strings:
        return formatter._format_args(action, action.dest)
    return " ".join(filter(None, [", ".join(action.option_strings), value]))


def told(action: argparse.Action) -> str:
    """The help of an argument as Markdown: what stands in angle brackets or asterisks is no markup."""
    text = argparse.HelpFormatter("")._expand_help(action) if action.help else ""
    return re.sub(r"([<>*|])", r"\\\1", text)


def epilog(sub: argparse.ArgumentParser) -> str:
    """The end of a command's help: what is indented is code, the rest prose."""
    lines = (sub.epilog or "").splitlines()
    code = [line.strip() for line in lines if line.startswith(" ")]
    prose = [line for line in lines if line.strip() and not line.startswith(" ") and line != "examples:"]
    return "".join(f"{line}\n\n" for line in prose) + ("\n".join(["```", *code, "```", "", ""]) if code else "")
