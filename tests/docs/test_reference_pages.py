"""The reference tells every key, command, variable and public name, and what it shows runs."""

import argparse
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, Field

from api_pages import PAGES, public, shown
from command_entries import commands, commands_page, epilog, own, signature
from experiment_keys import attributes, blocks, default, in_words, meaning
from mmbench.cli import parser
from mmbench.experiment.grid import Grid
from mmbench.experiment.plan import expand, load
from mmbench.experiment.settings import apply_setting
from reference_pages import anchor, experiment_page, reports_page

ROOT = Path(__file__).parents[2]
EXAMPLES = [ROOT / "docs/reference" / name for name in ("example.yaml", "example_media.yaml")]


@pytest.fixture(scope="module")
def page():
    return experiment_page()


def test_every_key_has_its_entry_and_says_what_it_means(page):
    untold, seen = [], set()
    for block in blocks():
        here = f"({anchor(block.place, 'block')})="
        untold += [block.place] if here not in page else []
        if block.model not in seen:
            untold += [f"{block.place}.{key}" for key in block.fields if not meaning(block.model, key)]
            untold += [
                f"{block.place}.{key}" for key in block.fields if f"{{#{anchor(f'{block.place}.{key}')}}}\n" not in page
            ]
        seen.add(block.model)
    assert untold == []


def test_the_blocks_are_all_that_a_file_can_hold():
    """A model that is a part of the file, and is not reached, would have no section."""
    reached = {block.model.__name__ for block in blocks()}
    assert reached == {"Grid", "DatasetGrid", "Recipe", "MethodGrid", "MissingGrid", "Tune", "Dimension"}
    assert set(Grid.model_json_schema()["$defs"]) <= reached
    places = [block.place for block in blocks()]
    assert len(set(places)) == len(places) == 9


def test_bounds_and_defaults_are_the_models():
    entries = {
        f"{block.place}.{key}": (block.model, key, field) for block in blocks() for key, field in block.fields.items()
    }

    def told(place):
        model, key, field = entries[place]
        return in_words(field.annotation, tuple(field.metadata)), default(model, key, field)

    assert told("datasets.<data set>.recipe.lr") == ("number (above 0, at most 1,000)", "default `0.001`")
    assert told("datasets.<data set>.recipe.precision") == ("one of `32-true`, `tf32`, `bf16`", "default `32-true`")
    assert told(".seeds") == ("list of whole numbers (1 or more, each from 0 to 2³² − 1, none twice)", "required")
    assert told("missing.<name>.rate") == ("number, or list of numbers (1 or more, none twice)", "")
    assert told("tune.recipe.<key>.low") == ("number", "required")


def test_a_key_without_a_word_is_found():
    class Bare(BaseModel):
        """A model.

        Attributes:
            told: in the docstring,
                on two lines.
        """

        told: int = 0
        described: int = Field(0, description="in the field")
        untold: int = 0

    assert attributes(Bare) == {"told": "in the docstring, on two lines."}
    assert [meaning(Bare, key) for key in Bare.model_fields] == ["in the docstring, on two lines.", "in the field", ""]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_experiments(path, page):
    assert f"```yaml\n{path.read_text()}```" in page
    content = yaml.safe_load(path.read_text())
    experiment = expand(content)
    run = {experiment.labels_of(trial).dataset for trial in experiment.trials}
    assert run | set(experiment.unprepared) >= set(content["datasets"])
    if "quick" in content:
        assert 0 < len(load(path, quick=True).trials) < len(experiment.trials)


def test_the_examples_have_every_key_of_their_blocks():
    one, other = (yaml.safe_load(path.read_text()) for path in EXAMPLES)
    datasets = [*one["datasets"].values(), *other["datasets"].values()]
    missing = [entry for entry in one["missing"].values() if entry]
    given = {
        "": set(one),
        "datasets.<data set>": {key for entry in datasets for key in entry},
        "methods.<method>": {key for entry in one["methods"].values() for key in entry or {}},
        "missing.<name>": {key for entry in missing for key in entry},
        "tune": set(one["tune"]),
    }
    keys = {block.place: set(block.fields) for block in blocks()}
    assert {place: keys[place] - given[place] for place in given} == {place: set() for place in given}


def test_places_are_what_set_takes():
    raw = yaml.safe_load(EXAMPLES[0].read_text())
    apply_setting(raw, "datasets.openclipart.recipe.epochs=2")
    assert raw["datasets"]["openclipart"]["recipe"]["epochs"] == 2


def test_every_command_and_option_has_its_entry():
    text = commands_page()
    names = [name for name, _ in commands()]
    assert {"mmbench run", "mmbench data prepare", "mmbench experiments copy"} <= set(names)
    assert [name for name in names if not re.search(rf"^#+ `{name}`$", text, flags=re.MULTILINE)] == []
    sections = dict(re.findall(r"^#+ `(mmbench [^`\n]+)`\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL))
    missing = [
        f"{name} {signature(action)}"
        for name, sub in commands()
        for action in own(sub)
        if action.option_strings and f"`{signature(action)}`\n: {(action.help or '')[:9]}" not in sections[name]
    ]
    assert missing == []
    assert [name for name in names if "\n```\nmmbench " not in sections[name]] == []


def test_examples_of_a_commands_help_are_code():
    sub = argparse.ArgumentParser()
    sub.epilog = "Exits with 1.\n\nexamples:\n  mmbench run table1\n  eval it"
    assert epilog(sub) == "Exits with 1.\n\n```\nmmbench run table1\neval it\n```\n\n"
    sub.epilog = None
    assert epilog(sub) == ""


def test_every_option_says_what_it_does():
    silent = [f"{name} {signature(a)}" for name, sub in commands() for a in own(sub) if a.option_strings and not a.help]
    assert silent == []


def test_the_commands_page_tells_no_folder_of_this_machine(monkeypatch):
    monkeypatch.setenv("MMBENCH_RESULTS", "/somewhere/else")
    assert "/somewhere" not in commands_page()
    assert str(parser().parse_args(["list", "methods"]).results) == "/somewhere/else"  # restored


def test_the_variables_are_those_of_the_code():
    code = [path.read_text() for folder in ("src", "baselines") for path in (ROOT / folder).rglob("*.py")]
    read = {name for text in code for name in re.findall(r"\bMMBENCH_[A-Z_]+\b", text)}
    text = (ROOT / "docs/reference/environment.md").read_text()
    assert set(re.findall(r"\bMMBENCH_[A-Z_]+\b", text)) == read


def test_the_exit_codes_are_those_of_the_code():
    from signal import SIGINT, SIGTERM, SIGUSR1

    from mmbench.opening import FAILED, OK, USAGE

    text = (ROOT / "docs/reference/environment.md").read_text()
    assert [f"| {code} | " in text for code in (OK, FAILED, USAGE)] == [True] * 3
    assert f"{128 + SIGINT} Ctrl-C, {128 + SIGUSR1} SIGUSR1, {128 + SIGTERM} SIGTERM" in text


@pytest.mark.parametrize("name", PAGES)
def test_public_names_are_documented(name):
    untold = [module for module in PAGES[name].modules if not inspect.getdoc(import_module(module))]
    for module in PAGES[name].modules:
        for shown_name in shown(PAGES[name], module):
            thing = getattr(import_module(module), shown_name)
            untold += [] if thing.__doc__ else [f"{module}.{shown_name}"]
            members = vars(thing).items() if inspect.isclass(thing) else ()
            untold += [
                f"{module}.{shown_name}.{member}"
                for member, value in members
                if not member.startswith("_")
                and inspect.isfunction(getattr(value, "__func__", value))
                and not inspect.getdoc(getattr(thing, member))
            ]
    assert untold == []


def test_what_a_user_imports_is_on_a_page():
    modules = {module for page in PAGES.values() for module in page.modules}
    assert {"mmbench", "mmbench.batch", "mmbench.task", "mmbench.missing", "mmbench.data.base"} <= modules
    evidence = {f"mmbench.evidence.{path.stem}" for path in (ROOT / "src/mmbench/evidence").glob("[a-z]*.py")}
    assert evidence <= modules
    assert public("mmbench") == ["run", "load_model"]


def test_reports_are_told_of_where_they_lie():
    text = reports_page()
    assert "## table.csv" in text
    assert "| `ci_low`, `ci_high` |" in text
    assert re.findall(r"\]\((?!http)", text) == []
