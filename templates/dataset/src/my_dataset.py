"""MyDataset: curves, and what somebody noted of them."""

from __future__ import annotations

import numpy as np
import torch

from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split

POINTS = 32
RECORDERS, CURVES = 10, 12  # so many people, and so many curves of each


class MyDataset(MultimodalDataModule):
    """Slow and fast curves with noise, and notes of which some are missing. Made up: put the reading of your files into ``read``.

    ``clean`` tests two recorders, chooses the epoch on two others and trains on the rest: no recorder is in two splits. ``legacy``
    splits at random, 80/20.

    Inputs: ``curve`` (B, 32) float32; ``note``, texts as the tokenizer of their encoder gives them. Groups are recorders.
    """

    name = "my_dataset"  # as it is registered
    modalities = ("curve", "note")
    text_modalities = ("note",)
    classes = ("slow", "fast")
    conditioning = "note"  # what steers the others, in methods such as FiLM
    encoders = {"curve": {"name": "mlp", "in_dim": POINTS, "width": 64}, "note": "hashed_text"}  # by default
    feature_dims = {"curve": POINTS}  # of modalities that are vectors of numbers

    @classmethod
    def manifest(cls) -> str:
        """What the data are: part of every trial's key, so raise it when samples, splits or inputs change, or hash your files."""
        return "1"

    @staticmethod
    def read() -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
        """Curves (N, 32) float32, notes ("": there is none), numbers of classes (N,) and of recorders (N,)."""
        generator = np.random.default_rng(0)
        recorder = np.repeat(np.arange(RECORDERS), CURVES)
        label = np.arange(len(recorder)) % 2
        phase = generator.uniform(0, 2 * np.pi, (len(recorder), 1))
        angle = (2 + 2 * label[:, None]) * np.linspace(0, 2 * np.pi, POINTS) + phase
        curves = np.sin(angle) + generator.normal(0, 0.7, angle.shape)
        words = (("calm", "long", "even"), ("quick", "short", "even"))
        notes = [" ".join(generator.choice(words[y], 2)) if generator.random() > 0.2 else "" for y in label]
        return curves.astype(np.float32), notes, label, recorder

    def load(self) -> Loaded:
        """Read all samples, and cut them as the protocol says."""
        curves, notes, label, recorder = self.read()
        present = np.array([[True, note != ""] for note in notes])  # (N, M), in the order of the modalities
        whole = Split(
            inputs={"curve": torch.from_numpy(curves), "note": self.tokenizers["note"](notes)},
            present=torch.from_numpy(present),
            label=torch.from_numpy(label),
            group=torch.from_numpy(recorder),
        )
        rows = self.cut(recorder)
        return Loaded(whole.rows(rows[0]), whole.rows(rows[1]) if len(rows[1]) else None, whole.rows(rows[2]))

    def cut(self, recorder: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers of the samples of training, validation (none under ``legacy``) and test."""
        if self.protocol.split == "clean":
            test, validation = recorder >= RECORDERS - 2, recorder < 2
            return np.flatnonzero(~test & ~validation), np.flatnonzero(validation), np.flatnonzero(test)
        order = np.random.default_rng(1).permutation(len(recorder))
        return order[: len(order) * 8 // 10], order[:0], order[len(order) * 8 // 10 :]

    @classmethod
    def split_ids(cls, protocol: str = "clean", fold: int | None = None) -> dict[str, list[str]]:
        """Split -> the ids of its samples, in the order of ``load``, for `mmbench data split`."""
        recorder = cls.read()[3]
        rows = zip(("train", "validation", "test"), cls.textless(protocol, fold).cut(recorder), strict=True)
        return {split: [f"r{recorder[row]}-{row}" for row in own] for split, own in rows if len(own)}
