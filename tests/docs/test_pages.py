"""The documents say what is so: their commands parse, their experiments expand, their code runs, their links lead somewhere."""

import re
import runpy
import shlex
import socket
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import pytorch_lightning as pl
import yaml
from markdown_it import MarkdownIt

from made import WRITERS
from mmbench.baselines import METHODS
from mmbench.cli import parser
from mmbench.experiment.plan import expand

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
ELSEWHERE = [
    "*.md",
    ".github/**/*.md",
    "baselines/*.md",
    "results/*.md",
    "results/*/*.md",
    "src/**/*.md",
    "templates/**/*.md",
]
LINKED = sorted({*PAGES, *(str(path.relative_to(ROOT)) for glob in ELSEWHERE for path in ROOT.glob(glob))})
SLOW: set[str] = set()
"""Pages whose Python takes more than a few seconds."""
ENDS = {"&&", "||", "|", ";", "&", ">", ">>"}
MARKDOWN = MarkdownIt().enable("table")


class Block(NamedTuple):
    """A block of code: its language, its text, and the page's line on which the text begins, counted from 0."""

    language: str
    text: str
    line: int


def blocks(text, above=0):
    """The code blocks of a page, those inside of notes and tabs too, without those that say ``no-run``."""
    for token in MARKDOWN.parse(text):
        if token.type not in ("fence", "colon_fence"):
            continue
        directive = re.match(r"\{([\w-]+)\}\s*(\w*)", token.info)
        line = above + token.map[0] + 1
        if directive is None:
            yield Block(token.info.strip(), token.content, line)
        elif directive[1] == "code-block":
            options = re.match(r"(?:[ \t]*:[\w-]+:.*\n)*", token.content)[0]
            if "no-run" not in options:
                yield Block(directive[2], token.content[len(options) :], line + options.count("\n"))
        else:
            yield from blocks(token.content, line)


def read(page):
    return (ROOT / page).read_text()


def with_python(page):
    """A page as a parameter, marked if it is slow."""
    return pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())


def commands(page):
    """The lines of a page's code that start with ``mmbench ``, as the shell would hand them on: words of each command."""
    for block in blocks(read(page)):
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
            line = re.sub(r"^\$ ", "", line)
            if line.startswith("mmbench "):
                for command in re.split(r"\s{4,}(?=mmbench )", line):
                    words = shlex.split(command, comments=True)
                    yield from (list(part) for end, part in groupby(words, ENDS.__contains__) if not end)


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page, capsys):
    refused = []
    for name, *words in commands(page):
        if name != "mmbench":
            continue
        for choice in range(max((word.count("|") + 1 for word in words), default=1)):
            chosen = [word.split("|")[min(choice, word.count("|"))] for word in words]
            try:
                parser().parse_args(chosen)
            except SystemExit as end:
                if end.code:
                    refused.append(shlex.join(["mmbench", *chosen]) + "\n" + capsys.readouterr().err)
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_exist(page):
    named = [word for block in blocks(read(page)) for word in re.findall(r"^make ([\w-]+)", block.text, re.MULTILINE)]
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    assert [target for target in named if target not in targets] == []


@pytest.mark.parametrize("page", PAGES)
def test_experiments_expand(page):
    for block in blocks(read(page)):
        raw = yaml.safe_load(block.text) if block.language == "yaml" else None
        if not isinstance(raw, dict) or "methods" not in raw:
            continue
        experiment = expand(raw)
        labels = [experiment.labels_of(trial) for trial in experiment.trials]
        left_out = set(experiment.unprepared)
        assert {label.dataset for label in labels} | left_out == set(raw["datasets"]), f"line {block.line}"
        if left_out != set(raw["datasets"]):
            assert {label.method for label in labels} == set(raw["methods"]), f"line {block.line}"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A new folder with the results that git keeps, no network, and trainers without output and files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for path in (ROOT / "results").iterdir():
        if path.name not in ("runs", "local", "wandb"):
            (tmp_path / "results" / path.name).symlink_to(path)
    plain, quiet = pl.Trainer.__init__, dict(enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")

    def init(self, **options):
        plain(self, **{"enable_checkpointing": False} | options | quiet)

    def connect(self, address):
        raise OSError(f"a page of the documents asks for the network: {address}")

    monkeypatch.setattr(pl.Trainer, "__init__", init)
    monkeypatch.setattr(socket.socket, "connect", connect)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*checkpoint.*")
@pytest.mark.parametrize("page", [with_python(page) for page in PAGES])
def test_python_runs(page, folder):
    """All blocks of a page are one program, its lines where they are in the page."""
    program = ""
    for block in blocks(read(page)):
        if block.language == "python":
            program += "\n" * (block.line - program.count("\n")) + block.text
    if program:
        file = folder / f"{Path(page).stem}.py"
        file.write_text(program)
        runpy.run_path(str(file), run_name="__main__")


@pytest.fixture(scope="session")
def made():
    """The pages that the site's code writes, with their text, and those that sphinx-gallery makes of examples, without."""
    examples = {f"docs/examples/{path.stem}.rst" for path in (ROOT / "docs/gallery").glob("*.py")}
    pages = {f"docs/{path}": text for writer in WRITERS for path, text in writer().items()}
    return pages | dict.fromkeys(examples | {"docs/examples/index.rst"})


def test_every_page_says_who_it_is_for(made):
    pages = {page: read(page) for page in PAGES} | {page: text for page, text in made.items() if page.endswith(".md")}
    assert len(pages) > 80
    beginnings = {page: re.sub(r"\A(?:.*\n)*?# .*\n", "", text)[:400] for page, text in pages.items()}
    assert {page: words for page, words in beginnings.items() if not re.search(r"^For who", words, re.MULTILINE)} == {}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page, made):
    """To a file that git keeps or, from a page of the site, to one that is made with it."""
    spans = [span for token in MARKDOWN.parse(read(page)) for span in token.children or []]
    links = [span.attrGet("href") or span.attrGet("src") for span in spans if span.type in ("link_open", "image")]
    lost = []
    for link in links:
        parts = urlsplit(unquote(link))
        target = (ROOT / page).parent.joinpath(parts.path).resolve()
        name = str(target.relative_to(ROOT)) if target.is_relative_to(ROOT) else str(target)
        there = name in made if name in made or "docs/examples" in name else target.exists()
        from_site = page.startswith("docs/")
        if not parts.scheme and parts.path and (not there or (name in made and not from_site)):
            lost.append(link)
    assert lost == []


@pytest.mark.merged
def test_every_method_has_its_row():
    assert [name for name in METHODS if f"[`{name}`]({name}.py)" not in read("baselines/README.md")] == []
