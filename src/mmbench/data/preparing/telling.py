"""What ``mmbench data list`` and ``info`` print: which data sets there are, what each is made of, and what is there of it."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbench.errors import UsageError

if TYPE_CHECKING:
    from mmbench.data.base import MultimodalDataModule
    from mmbench.data.prepared import PreparedDataModule


def is_demo(data: type[MultimodalDataModule]) -> bool:
    """Whether what is prepared is a made-up copy."""
    from mmbench.data.prepared import PreparedDataModule

    return issubclass(data, PreparedDataModule) and bool(peek(data.folder() / "manifest.json", "made_up"))


def is_real(data: type[PreparedDataModule]) -> bool:
    """Whether there are prepared data, or the beginning of them, that are not known to be a made-up copy."""
    begun = peek(data.folder().with_name(f"{data.name}.partial") / "plan.json", "made_up") is False
    return begun or (data.folder().exists() and not is_demo(data))


def peek(path: Path, key: str) -> Any:
    """A value of a JSON file, None if there is none, whatever state the file is in."""
    try:
        return json.loads(path.read_bytes())[key]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def list_data(arguments: argparse.Namespace) -> int:
    """``mmbench data list``."""
    from mmbench.data import DATASETS
    from mmbench.data.prepared import PreparedDataModule

    width = max(map(len, DATASETS))
    for name in DATASETS:
        try:
            data = DATASETS[name]
        except UsageError as error:
            print(f"{name:{width}}  {error}")
            continue
        state = "ready: a made-up demo copy" if is_demo(data) else "ready"
        if data.prepared() is not None:
            state = f"not prepared: mmbench data info {name}"
        count = len(data.class_names() if issubclass(data, PreparedDataModule) else data.classes)
        folds = f"{data.folds} folds" if data.folds > 1 else "1 split"
        print(f"{name:{width}} {count:4} classes  {folds:7}  {', '.join(data.modalities):22}  {state}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    """``mmbench data info``."""
    from mmbench.data import DATASETS
    from mmbench.data.prepared import PreparedDataModule

    data = DATASETS[arguments.name]
    prepared = issubclass(data, PreparedDataModule)
    if home := getattr(data, "home", None):
        print((home / "README.md").read_text(encoding="utf-8").rstrip())
    elif prepared:
        print_source(data)
    else:
        print(inspect.cleandoc(data.__doc__ or ""))
    classes = data.class_names() if prepared else data.classes
    print(f"\nclasses ({len(classes)}): {', '.join(classes)}")
    for protocol, counts in getattr(data, "published", {}).items():
        print(f"published, {protocol}: {', '.join(f'{split} {count}' for split, count in counts.items())}")
    print_folds(data)
    print_encoders(data)
    if prepared:
        if home:
            print(f"\nit comes with mmbench, in {home}")
        else:
            how = f"prepare {data.name} --raw <raw folder>" if data.declaration() is None else "add <raw folder>"
            print(f"\nmmbench data {how}\nputs it into {data.folder()}")
    state, done = data.prepared(), "prepared" if prepared else "ready"
    print(f"It is {done}{', as a made-up demo copy' * is_demo(data)}." if state is None else f"It is not {done}.")
    if state and (not prepared or (data.folder() / "manifest.json").exists()):
        print(state)
    return 0


def print_source(data: type[PreparedDataModule]) -> None:
    """Print where a data set that is prepared comes from, and its layout."""
    from mmbench.data.preparing.media import FRAME_PIXELS
    from mmbench.data.preparing.pictures import PIXELS
    from mmbench.data.preparing.sound import CHANNELS, LONGEST

    text = data.info
    print(f"{text.title}\n\nsource   {text.source}\nlicence  {text.licence}\ndisk     {text.disk}\n\nraw folder:")
    width = max(len(path) for path, _ in text.layout)
    for path, what in text.layout:
        print(f"  {path:{width}}  {what}")
    print(
        "Links may lead to files elsewhere, if `--also-from DIR` names the folder that holds them. Files whose names begin with a dot "
        "are left out, and so are Thumbs.db, desktop.ini and __MACOSX.\n"
        f"Not decoded, and counted as files that cannot be used: pictures of more than {PIXELS / 1e6:.0f} million pixels, videos with "
        f"frames of more than {FRAME_PIXELS / 1e6:.0f} million, sound of more than {LONGEST / 60:.0f} minutes or {CHANNELS} channels."
    )


def print_folds(data: type[MultimodalDataModule]) -> None:
    """Print how many folds a data set has, and by which hash they are published."""
    if data.folds == 1:
        print("folds: none, it has one split")
        return
    ready = data.prepared() is None
    print(
        f"folds: {data.folds}, by {data.folded_by}{'' if ready else '; the hash of their lists is told once the data are there'}"
    )
    if ready and (parts := data.parts()):
        for split in ("clean", "legacy"):
            print(f"  {split}: SHA-256 {parts.hash_of(split)} of the sorted lines '<sample> <part>'")


def print_encoders(data: type[MultimodalDataModule]) -> None:
    """Print the encoders of a data set, and the files that they read."""
    print("encoders, unless an experiment names others, and what they read from the folder of weights:")
    for modality, name, files in encoders_of(data):
        print(f"  {modality}: {name}, {' and '.join(files) or 'nothing: trained from scratch'}")


def encoders_of(data: type[MultimodalDataModule]) -> Iterator[tuple[str, str, list[str]]]:
    """Each modality, its encoder unless an experiment names another, and what that reads from the folder of weights."""
    from mmbench.arguments import resolve_arguments
    from mmbench.encoders import ENCODERS

    for modality, choice in data.encoders.items():
        given = {"name": choice} if isinstance(choice, str) else dict(choice)
        name = given.pop("name")
        resolved = resolve_arguments(ENCODERS[name], given)[0]
        yield modality, name, [str(resolved[key]) for key in ("weights", "tokenizer") if resolved.get(key)]
