"""Encoders that know what they were built with, so that a checkpoint can say how to build them again."""

from __future__ import annotations

import inspect
from typing import Any, Self


class Rebuildable:
    """To be the first base of an encoder: keeps the arguments of its constructor, as they were given, in ``built_with``."""

    built_with: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments by name; copying, which gives none, takes the notes over."""
        encoder = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        noted = dict(signature.bind_partial(encoder, *args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                noted |= noted.pop(name, {})
        noted.pop(next(iter(signature.parameters)))  # the encoder itself
        encoder.__dict__["built_with"] = noted
        return encoder
