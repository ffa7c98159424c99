"""The pages of the public API: which modules are on which, and a small index before each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: its heading.
        who: whom it is for, in a sentence.
        modules: module -> the names of it that are shown; all that are public, where none are given.
        more: what is said below that sentence.
    """

    title: str
    who: str
    modules: Mapping[str, tuple[str, ...]]
    more: str = ""


PAGES = {
    "models": Page(
        "Run an experiment, ask a model",
        "For whoever runs an experiment from Python, or asks a model that was kept.",
        {"mmbench": (), "mmbench.models.model": ("Model", "Prediction")},
        "How to keep one: [Models](../../how_to/models.md).",
    ),
    "methods": Page(
        "Methods and tasks",
        "For whoever writes a method or trains one in code of their own.",
        {
            "mmbench.task": ("MultimodalTask", "DivergedError"),
            "mmbench.encoding": (),
            "mmbench.batch": (),
            "mmbench.presence": (),
            "mmbench.recipe": (),
            "mmbench.precision": (),
            "mmbench.arguments": ("Tunable",),
            "mmbench.registry": (),
        },
        "A method derives from `MultimodalTask`; [each of those that come with mmbench](../../methods/index.md) has a page. "
        "Shapes: B samples of a batch, M modalities, P = 2^M − 1 presence patterns, C classes, D the width of a feature.",
    ),
    "data": Page(
        "Data",
        "For whoever writes a data set's class or reads batches.",
        {
            "mmbench.data.base": (),
            "mmbench.data.split": ("DataSpec", "Split", "Loaded", "Mapped"),
            "mmbench.data.folds": (),
            "mmbench.missing": (),
            "mmbench.data.prepared": ("PreparedDataModule",),
            "mmbench.data.augment": ("RandomCropFlip", "RandomResizedCrop", "Resize", "SpecAugment", "WordDropout"),
        },
        "Data of your own need no class: [My data](../../how_to/my_data.md).",
    ),
    "encoders": Page(
        "Encoders",
        "For whoever chooses an encoder, sets its arguments or writes one.",
        {
            "mmbench.encoders": (),
            "mmbench.encoders.mlp": (),
            "mmbench.encoders.small_cnn": (),
            "mmbench.encoders.small_media": (),
            "mmbench.encoders.hashed_text": (),
            "mmbench.encoders.timm_image": ("TimmImage", "ResNet18", "ResNet18Audio"),
            "mmbench.encoders.bert": ("Bert",),
            "mmbench.encoders.clip": ("ClipImage", "ClipText"),
            "mmbench.encoders.m3ae": ("M3AEImage", "M3AEText"),
            "mmbench.encoders.cav_mae": ("CavMae",),
            "mmbench.encoders.wav2vec2": ("Wav2Vec2",),
            "mmbench.encoders.pretrained": ("Pretrained", "weights_folder", "find_weights"),
            "mmbench.encoders.building": (),
        },
    ),
    "experiments": Page(
        "Experiments, trials and the store",
        "For whoever plans trials in Python or reads what they left.",
        {
            "mmbench.experiment.plan": ("Experiment", "Labels", "load", "expand"),
            "mmbench.protocol": (),
            "mmbench.trial": ("Trial",),
            "mmbench.store": ("Store", "CorruptRecord"),
            "mmbench.record": ("Predictions", "Features", "Failure", "Resumed", "Code", "Record"),
        },
        "The keys of an experiment's file are on [a page of their own](../experiment.md).",
    ),
    "results": Page(
        "Results and evidence",
        "For whoever computes with stored predictions: accuracies, intervals, differences, diagnostics.",
        {
            "mmbench.report.collect": ("Results", "collect"),
            "mmbench.report.rates": ("Rates", "collect_rates"),
            "mmbench.evidence.accuracy": (),
            "mmbench.evidence.comparisons": (),
            "mmbench.evidence.resampling": (),
            "mmbench.evidence.rates": (),
            "mmbench.evidence.groups": (),
            "mmbench.evidence.calibration": (),
            "mmbench.evidence.diagnostics": (),
            "mmbench.evidence.information": (),
            "mmbench.evidence.ranks": (),
            "mmbench.evidence.tuning": (),
        },
        "The columns of the files that reports write are under [Reports](../reports.md).",
    ),
    "testing": Page(
        "Tests of your own code, and errors",
        "For whoever tests a method, data set or encoder of their own, or catches what mmbench raises.",
        {
            "mmbench.testing": (),
            "mmbench.testing.planted": (),
            "mmbench.errors": ("UsageError", "DataError", "StoreError", "RunnerError", "Interrupted"),
        },
    ),
}
INDEX = """# API

For whoever uses mmbench from Python. What is not on these pages may change at any time.

Types are in the signatures, shapes in the descriptions.

{entries}
```{{toctree}}
:hidden:

{names}
```
"""


def pages() -> dict[str, str]:
    """The pages."""
    entries = "".join(
        f"- [{page.title}]({name}.md): {page.who[0].lower()}{page.who[1:]}\n" for name, page in PAGES.items()
    )
    texts = {f"reference/api/{name}.md": text_of(page) for name, page in PAGES.items()}
    return {"reference/api/index.md": INDEX.format(entries=entries, names="\n".join(PAGES))} | texts


def text_of(page: Page) -> str:
    """A page's text."""
    text = f"# {page.title}\n\n{page.who} {page.more}".rstrip() + "\n\n"
    for module in page.modules:
        names = shown(page, module)
        index = "".join(f"- [`{name}`](#{module}.{name}): {first_sentence(module, name)}\n" for name in names)
        directive = f".. automodule:: {module}\n   :members: {', '.join(names)}\n   :exclude-members: model_config\n"
        text += f"## `{module}`\n\n{index}\n```{{eval-rst}}\n{directive}```\n\n"
    return text


def shown(page: Page, module: str) -> list[str]:
    """The classes and functions of a module that a page shows."""
    return list(page.modules[module]) or public(module)


def public(module: str) -> list[str]:
    """The classes and functions that a module defines, in the order of its file."""
    found = [
        name
        for name, value in vars(import_module(module)).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module
    ]
    return sorted(found, key=lambda name: inspect.getsourcelines(getattr(import_module(module), name))[1])


def first_sentence(module: str, name: str) -> str:
    """The first line of a docstring, as Markdown."""
    return (inspect.getdoc(getattr(import_module(module), name)) or "").partition("\n")[0].replace("``", "`")
