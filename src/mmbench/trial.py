"""A trial: one method, on one data set, with one seed; as a description, and run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from mmbench.missing import Missing, training_name
from mmbench.recipe import Recipe

SCHEMA = 2
"""Raised when the meaning of a trial changes without its description changing: older results are then not re-used."""
LATER, LATER_IN_RECIPE = (
    ("views", "weights", "cached", "spec_augment", "fold", "tuning"),
    ("precision", "compile", "head_init", "schedule", "warmup", "clip_norm", "patience", "class_weights"),
)
"""Settings that were added without raising it."""


class Parts(NamedTuple):
    """The names of what a trial runs; its encoders' in alphabetical order, each once."""

    method: str
    dataset: str
    encoders: tuple[str, ...]


class Trial(BaseModel):
    """Everything that a result depends on, and nothing else: no paths, devices or worker counts.

    Defaults are resolved: ``params`` and ``encoders`` hold every argument, so that changing a default in the code is a new trial.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    data: str = Field(description="hash of the data set's manifest")
    protocol: str
    missing: Missing | None = Field(None, description="what is taken away in training; None: nothing")
    method: str
    seed: int = Field(ge=0)
    encoders: dict[str, dict[str, Any]] = Field(description="modality -> {name: encoder, and its arguments}")
    params: dict[str, Any] = Field(description="the method's own arguments")
    recipe: Recipe
    views: dict[str, str] = Field(
        {}, description="modality -> the prepared field it is read from; none where data are not prepared"
    )
    weights: dict[str, str] = Field({}, description="modality -> hash of the files that its encoder reads")
    spec_augment: dict[str, dict[str, int]] = Field(
        {}, description="modality -> limits of SpecAugment's spans in training"
    )
    fold: int | None = Field(None, ge=0, description="which fold is tested; None: the data set's one split")
    tuning: bool = Field(False, description="to choose a setting by: validation alone is read, and nothing is tested")
    cached: bool = Field(False, description="frozen encoders ran once, before training, on data that are not augmented")

    @cached_property
    def key(self) -> str:
        """The trial's name in the store: a hash of its canonical JSON and the schema version.

        Settings that came later than the schema count only where they are not at their defaults, so older results keep their names.
        """
        content = {"schema": SCHEMA, **self.model_dump(mode="json")}
        for place, model, later in ((content, Trial, LATER), (content["recipe"], Recipe, LATER_IN_RECIPE)):
            for name in later:
                if place[name] == model.model_fields[name].default:
                    del place[name]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    @property
    def parts(self) -> Parts:
        """The names of what it runs."""
        names = {str(choice["name"]) for choice in self.encoders.values()}
        return Parts(self.method, self.dataset, tuple(sorted(names)))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with changes, and with the key that these give it."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("key", None)
        return copy

    @property
    def training(self) -> str:
        """What the training split lacks, in words: ``complete``, ``anchor 0.3``."""
        return training_name(self.missing)

    @property
    def label(self) -> str:
        """The trial in a line of a log."""
        return self.describe(self.dataset, self.method)

    def describe(self, dataset: str, method: str) -> str:
        """The trial in a line of a log, with names for its data set and its method."""
        missing = f" {self.training}" if self.missing else ""
        track = " cached" if self.cached else ""
        fold = "" if self.fold is None else f" fold {self.fold}"
        tuning = " tuning" if self.tuning else ""
        return f"{dataset} {self.protocol}{track}{missing} {method}{tuning}{fold} seed {self.seed}"
