"""Building the encoders that a trial names, and what their weights are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mmbench.encoders import ENCODERS
from mmbench.encoders.pretrained import Pretrained, fingerprint


def build_encoder(choice: dict[str, Any]) -> nn.Module:
    """Build the encoder that a trial names: ``{name: encoder, and its arguments}``."""
    arguments = {k: v for k, v in choice.items() if k != "name"}
    encoder = ENCODERS[choice["name"]](**arguments)
    encoder.__dict__.setdefault(
        "built_with", arguments
    )  # a checkpoint says it, of encoders that do not note it themselves too
    return encoder


def weights_of(encoders: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Modality -> the hash of the files that its encoder reads, for those that read any; each file is hashed once."""
    known: dict[tuple[Path, ...], str] = {}
    found = {}
    for modality, choice in encoders.items():
        encoder = ENCODERS[choice["name"]]
        if issubclass(encoder, Pretrained) and (files := tuple(encoder.weight_files(choice))):
            found[modality] = known[files] if files in known else known.setdefault(files, fingerprint(files))
    return found
