"""A data set of two modalities, three classes and two folds of six samples, whose splits tests can know by heart."""

import numpy as np
import pandas as pd
import torch

from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split
from mmbench.missing import pattern_name, patterns

NAMES = [f"s{i:02}" for i in range(18)]


class Small(MultimodalDataModule):
    """Six samples each of training, validation and test; fold 1 tests what fold 0 validates on."""

    name = "small"
    modalities = ("one", "other")
    classes = ("a", "b", "c d")
    conditioning = "one"
    encoders = {"one": "mlp", "other": "mlp"}
    feature_dims = {"one": 2, "other": 2}
    folds = 2

    @classmethod
    def manifest(cls) -> str:
        return "data"

    @classmethod
    def rows(cls, fold):
        order = {None: (0, 1, 2), 0: (0, 1, 2), 1: (0, 2, 1)}[fold]
        return [np.arange(18).reshape(3, 6)[i][::-1].copy() for i in order]  # not in the order of names

    @classmethod
    def split_ids(cls, protocol="clean", fold=None):
        named = zip(("train", "validation", "test"), cls(protocol, fold=fold).rows(fold), strict=True)
        return {split: [NAMES[i] for i in rows] for split, rows in named}

    def load(self) -> Loaded:
        assert self.protocol.split == "clean"
        present = torch.ones(18, 2, dtype=torch.bool)
        inputs = {m: torch.randn(18, 2) for m in self.modalities}
        whole = Split(inputs, present, torch.arange(18) % 3, torch.arange(18) // 2)
        return Loaded(*(whole.rows(rows) for rows in self.rows(self.fold)))


def rows_of(fold=None, names=("one", "other", "one+other"), seed=0) -> pd.DataFrame:
    """Probabilities of the test split, in an order of their own, as a user would have them."""
    generator, lines = np.random.default_rng(seed), []
    for name in names:
        for sample in sorted(Small.split_ids("clean", fold)["test"]):
            p = generator.dirichlet(np.ones(3))
            lines.append({"id": sample, "pattern": name, "fold": "" if fold is None else str(fold)})
            lines[-1] |= dict(zip(Small.classes, p, strict=True))
    return pd.DataFrame(lines)


def every_pattern() -> list[str]:
    return [pattern_name(pattern) for pattern in patterns(Small.modalities)]
