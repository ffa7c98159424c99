"""The house: which floor a file is on, and that imports run downwards only."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"mmbench": ROOT / "src/mmbench", "mmbench.baselines": ROOT / "baselines"}

# From the ground up; a file may import what stands on its own floor or below. The longest name that fits decides.
FLOORS = [
    "errors files locks npz machine gpus precision options places pages lightning "
    "presence batch ranks recipe protocol missing metrics registry arguments experiment.settings "
    "durations generators packing",
    "trial record",
    "store index",
    "encoders",
    "data.ahead data.split data.folds data.augment data.cache data.checks data.preparing.raw data.preparing.lists data.preparing.media "
    "data.preparing.pictures data.preparing.frames data.preparing.sound data.preparing.audio "
    "data.preparing.texts data.preparing.video data.preparing.vouching",
    "data.adding.declaration data.adding.parquet data.adding.tables data.adding.metadata "
    "data.adding.vectors data.adding.decoding data.adding.samples",
    "data.base",
    "data.prepared",
    "data data.sets data.found",
    "data.preparing data.adding data.demo",
    "task encoding fixed optimised patience curves checkpoint lean watch best_epoch training_state resuming",
    "baselines",
    "models",
    "training testing elsewhere",
    "experiment",
    "provenance tracking tracked_trial tracked_report runner",
    "evidence",
    "tuning",
    "report",
    "done",
    "running submitted bundles",
    "regression dashboard where new experiment_commands opening report_commands commands status bundles.commands demo "
    "guide completion cli from_python __main__",
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names.split()}


def floor_of(module: str) -> int:
    """The number of a module's floor: of the longest name that it begins with."""
    parts = module.removeprefix("mmbench.").split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    found = next((name for name in names if name in FLOOR_OF), None)
    assert found is not None, f"{module} is on no floor: give it one in {Path(__file__).name}"
    return FLOOR_OF[found]


def sources() -> dict[str, Path]:
    """Module -> file, of the package and the methods."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


SOURCES = sources()


def imports(tree: ast.AST) -> Iterator[str]:
    """What a file imports of the package, wherever in it: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "relative imports hide where they lead"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else node.module


def graph() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports."""
    trees = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
    return {name: {target for target in imports(tree) if target in SOURCES} for name, tree in trees.items()}


GRAPH = graph()


def test_the_reader_of_imports_sees_them_all():
    code = "import mmbench.task\nif TYPE_CHECKING:\n    from mmbench import store\ndef f():\n    from mmbench.data.base import x"
    assert list(imports(ast.parse(code))) == ["mmbench.task", "mmbench.store", "mmbench.data.base"]
    assert len(GRAPH) > 100
    assert {"mmbench.task", "mmbench.recipe"} <= GRAPH["mmbench.baselines.sum"]


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"mmbench"}))
def test_imports_run_downwards_only(name):
    upwards = [target for target in sorted(GRAPH[name] - {"mmbench"}) if floor_of(target) > floor_of(name)]
    assert not upwards, f"{SOURCES[name].relative_to(ROOT)} imports from a floor above its own: {', '.join(upwards)}"


BUILDING_BLOCKS = {
    "arguments",
    "batch",
    "data.split",
    "errors",
    "fixed",
    "missing",
    "presence",
    "recipe",
    "registry",
    "task",
}


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("mmbench.baselines")])
def test_methods_import_only_building_blocks(name):
    imported = {target.removeprefix("mmbench.") for target in GRAPH[name]}
    others = {target for target in imported - BUILDING_BLOCKS if not target.startswith(("baselines", "encoders."))}
    assert not others, f"{SOURCES[name].relative_to(ROOT)} imports {others}: a method is made of building blocks alone"


def test_no_circle_of_imports():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other in a circle: {' -> '.join(error.args[1])}")
