"""Which modalities a model is allowed to see: presence patterns, and the masks that draw one for every sample.

Everything the suite reports is an evaluation over patterns: multimodal accuracy is the pattern with every modality, the
unimodal accuracy of a modality is the pattern with only that one, accuracy at a missing rate is a mixture of patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import combinations
from math import factorial
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmbench.errors import UsageError, did_you_mean

Pattern = tuple[str, ...]

MOST_MODALITIES = 16
"""Every pattern of M modalities is fused and its predictions kept: 65,535 of them with 16."""
ANCHOR_SLACK = 0.05
"""How far a rate may lie above what an anchor mask can realise: the papers ask three modalities for 0.7 and get 0.667."""


def patterns(modalities: Sequence[str]) -> list[Pattern]:
    """All 2^M − 1 non-empty patterns: single modalities first, the complete pattern last.

    >>> [pattern_name(p) for p in patterns(["image", "title"])]
    ['image', 'title', 'image+title']

    Raises:
        UsageError: there are more than ``MOST_MODALITIES``.
    """
    if len(modalities) > MOST_MODALITIES:
        raise UsageError(f"expected at most {MOST_MODALITIES} modalities, got {len(modalities)}")
    return [p for size in range(1, len(modalities) + 1) for p in combinations(modalities, size)]


def pattern_name(pattern: Pattern) -> str:
    """The name by which tables and records call a pattern: modality names joined by ``+``."""
    return "+".join(pattern)


def pattern_matrix(modalities: Sequence[str]) -> list[list[bool]]:
    """The patterns as rows of a (2^M − 1, M) matrix; True: the pattern shows the modality.

    >>> pattern_matrix(["image", "title"])
    [[True, False], [False, True], [True, True]]
    """
    return [[modality in pattern for modality in modalities] for pattern in patterns(modalities)]


def pattern_numbers(mask: np.ndarray) -> np.ndarray:
    """The number of each mask row among ``patterns``; −1 where a row shows nothing.

    Args:
        mask: (…, M) bool.

    >>> pattern_numbers(np.array([[True, False], [True, True], [False, False]]))
    array([ 0,  2, -1])
    """
    modalities = mask.shape[-1]
    weights = 2 ** np.arange(modalities)
    numbers = np.full(2**modalities, -1)
    rows = np.array(pattern_matrix([str(m) for m in range(modalities)]))
    numbers[rows @ weights] = np.arange(len(rows))
    return numbers[mask @ weights]


@cache
def shapley(modalities: int) -> np.ndarray:
    """The matrix (M, P + 1) that makes Shapley values of the values of the P patterns and, last, of showing nothing.

    That is what each modality contributes, on average over all orders in which they may come. The contributions add up to the value
    of everything minus that of nothing.

    >>> shapley(2) @ [30, 20, 60, 10]  # the first alone, the second alone, both, nothing
    array([30., 20.])
    """
    shows = np.array([*pattern_matrix([str(m) for m in range(modalities)]), [False] * modalities])  # (P + 1, M)
    sizes = shows.sum(axis=1)
    orders = [factorial(n) * factorial(modalities - n - 1) / factorial(modalities) for n in range(modalities)]
    joined = np.array([orders[n - 1] if n else 0.0 for n in sizes])  # with the modality: it was the last of n to come
    alone = np.array([orders[n] if n < modalities else 0.0 for n in sizes])  # without: it is the next
    return np.where(shows, joined[:, None], -alone[:, None]).T


class Missing(BaseModel):
    """Which cells (a sample's modality) are taken away from a data set, beside those that it lacks by nature.

    A mask is drawn once and is a function of data set, split, fold, kind, rate and ``seed`` alone: all methods and training seeds meet
    the same one, and what is missing at one rate is missing at every higher one.

    The kinds, for M modalities and the missing rate η:

    - anchor: every sample keeps one modality, chosen uniformly, and each other one with q = (M (1 − η) − 1) / (M − 1), so that a
      share η of all cells is missing and no sample loses everything (what the released code of this line of work does, without its
      rejection loop). It can realise rates up to (M − 1) / M; one that is at most 0.05 above is taken for that.
    - bernoulli: every cell is missing with probability η (as the MLA paper's text says); a sample may lose everything.
    - per_modality: modality m is missing with probability ``rates[m]``, those not named never.

    Attributes:
        kind: how cells are chosen, as above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["anchor", "bernoulli", "per_modality"] = "anchor"
    rate: float | None = Field(None, ge=0, le=1, description="η, the share of missing cells (anchor, bernoulli)")
    rates: dict[str, float] | None = Field(None, description="modality -> its missing rate (per_modality)")
    train_only: bool = Field(False, description="mask the training split alone; otherwise also where epochs are chosen")
    redraw: bool = Field(False, description="modality dropout: a new mask every time that a training sample is seen")
    seed: int = Field(0, ge=0, lt=2**32, description="of the mask; a training seed does not change it")

    @model_validator(mode="after")
    def _consistent(self) -> Missing:
        if self.kind == "per_modality":
            if self.rate is not None or not self.rates:
                raise ValueError("kind per_modality takes rates, such as {audio: 0.5}, and no rate")
            if wrong := {m: r for m, r in self.rates.items() if not 0 <= r <= 1}:
                raise ValueError(f"rates must lie between 0 and 1, got {wrong}")
        elif self.rate is None or self.rates is not None:
            raise ValueError(f"kind {self.kind} takes a rate between 0 and 1, and no rates")
        if self.redraw and not self.train_only:
            raise ValueError("redraw is modality dropout in training: it needs train_only: true")
        return self

    def __hash__(self) -> int:
        """Equal settings are one; ``rates`` is a dictionary."""
        rates = frozenset((self.rates or {}).items())
        return hash((self.kind, self.rate, rates, self.train_only, self.redraw, self.seed))

    def __str__(self) -> str:
        """How tables and logs call it: ``anchor 0.3``, ``title 0.5 in training``."""
        rates = " ".join(f"{m} {r:g}" for m, r in (self.rates or {}).items())
        name = rates if self.kind == "per_modality" else f"{self.kind} {self.rate:g}"
        name += " redrawn" if self.redraw else " in training" if self.train_only else ""
        return name + (f" (mask {self.seed})" if self.seed else "")

    @property
    def family(self) -> str:
        """What settings that differ by their rate alone have in common: kind and mask seed; for rates by modality, everything."""
        if self.kind == "per_modality":
            return str(self)
        return self.kind + (f" (mask {self.seed})" if self.seed else "")

    def share(self, modalities: int) -> float:
        """The nominal share of missing cells of M modalities: η, or the mean of the modalities' rates."""
        return sum((self.rates or {}).values()) / max(1, modalities) if self.rate is None else self.rate

    def check(self, modalities: Sequence[str]) -> None:
        """Refuse what cannot be realised on these modalities.

        Raises:
            UsageError: fewer than two modalities, an anchor rate far above (M − 1) / M, or a modality that the data set has not.
        """
        if len(modalities) < 2:
            raise UsageError(f"missing modalities need at least two of them, got {list(modalities)}")
        for name in self.rates or {}:
            if name not in modalities:
                raise UsageError(f"missing rates: unknown modality '{name}'; {did_you_mean(name, modalities)}")
        highest = (len(modalities) - 1) / len(modalities)
        if self.kind == "anchor" and self.rate is not None and self.rate > highest + ANCHOR_SLACK:
            raise UsageError(
                f"an anchor mask keeps one of {len(modalities)} modalities, so at most {highest:.3f} of the cells can be "
                f"missing; got the rate {self.rate:g}, which is more than {ANCHOR_SLACK:g} above. Kind bernoulli can realise it"
            )

    def draw(self, modalities: Sequence[str], size: int, generator: np.random.Generator) -> np.ndarray:
        """Draw a mask: (size, M) bool, True where the sample keeps the modality."""
        self.check(modalities)
        count = len(modalities)
        anchor = generator.integers(0, count, size)
        uniform = generator.random((size, count))
        if self.kind == "per_modality":
            rates = self.rates or {}
            return uniform >= np.array([rates.get(m, 0.0) for m in modalities])
        rate = self.rate or 0.0
        if self.kind == "bernoulli":
            return uniform >= rate
        others = max(0.0, (count * (1 - rate) - 1) / (count - 1))
        return (np.arange(count) == anchor[:, None]) | (uniform < others)

    def mask(self, dataset: str, split: str, modalities: Sequence[str], size: int) -> np.ndarray:
        """The fixed mask of a split (``split_name``) of a data set: (size, M) bool, True where the sample keeps the modality."""
        return self.draw(modalities, size, mask_generator(dataset, split, self.seed))


def training_name(missing: Missing | None) -> str:
    """What a training split lacks, in words: ``complete``, ``anchor 0.3``."""
    return str(missing) if missing else "complete"


def split_name(split: str, fold: int | None) -> str:
    """What the masks of a split are drawn for: each fold's have random numbers of their own.

    >>> split_name("test", None), split_name("test", 3)
    ('test', 'test/3')
    """
    return split if fold is None else f"{split}/{fold}"


def mask_generator(dataset: str, split: str, seed: int) -> np.random.Generator:
    """The random numbers of a split's masks; the same for every kind and rate, so that masks of rising rates are nested."""
    digest = sha256(f"{dataset}/{split}/{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def realised(mask: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """What a mask comes to on a split.

    Args:
        mask: (N, M) bool, what the mask keeps.
        present: (N, M) bool, what the samples have by nature.

    Returns:
        Shares: ``masked``, of the cells by the mask alone; ``missing``, of the cells by the mask or by nature; ``empty``, of the
        samples with nothing left.
    """
    left = mask & present
    return {
        "masked": float(1 - mask.mean()),
        "missing": float(1 - left.mean()),
        "empty": float(1 - left.any(axis=1).mean()),
    }
