"""A kept model, to be asked about new samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, overload

import torch
from torch import Tensor, nn

from mmbench.batch import Batch
from mmbench.data.augment import Resize
from mmbench.data.base import transformed
from mmbench.data.cache import ROWS
from mmbench.data.split import EVALUATION_BATCH, Split
from mmbench.errors import UsageError
from mmbench.files import user_path
from mmbench.models.card import Card
from mmbench.models.inputs import Inputs
from mmbench.models.loading import Restored
from mmbench.models.values import is_sound
from mmbench.precision import computing

SHOWN = 10
"""Classes that the representation of a model names."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of a sample.

    Attributes:
        label: the most probable class.
        probabilities: of every class.
        seen: the modalities that the sample has. Where it has none, the answer is the class frequencies of the training split.
    """

    label: str
    probabilities: dict[str, float]
    seen: tuple[str, ...]


class Model:
    """A model as it was trained, in evaluation mode. ``mmbench.load_model`` reads one.

    Predictions are the same as those that the trial stored, to the last bit, for the same samples in the same order on the same
    machine, if the trial ran on the CPU and without ``recipe.compile``.

    Attributes:
        card: what is known of it: the trial, class names, accuracy, versions.
        task: the method with its encoders, a ``torch.nn.Module``.
        threads: CPU threads that it computes with; by default those of the training.
    """

    def __init__(self, restored: Restored, device: str = "cpu") -> None:
        self.card: Card = restored.card
        self.device = device_of(device)
        self.task = restored.task.to(self.device)
        self.frozen: dict[str, nn.Module] = {m: encoder.to(self.device) for m, encoder in restored.frozen.items()}
        self.resizing = {modality: Resize(side) for modality, side in self.card.sizes.items()}
        self.inputs = Inputs(restored)
        self.threads = self.card.threads

    def __repr__(self) -> str:
        trial, classes = self.card.trial, self.classes
        more = f", … ({len(classes)})" if len(classes) > SHOWN else ""
        return (
            f"<Model {trial.describe(trial.dataset, trial.method)}: of {', '.join(self.modalities)}; "
            f"classes {', '.join(classes[:SHOWN])}{more}>"
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names."""
        return self.card.modalities

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, by number."""
        return tuple(self.card.classes)

    @overload
    def predict(self, samples: Mapping[str, Any]) -> Any: ...

    @overload
    def predict(self, samples: Sequence[Mapping[str, Any]]) -> list[Prediction]: ...

    def predict(self, samples: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Prediction | list[Prediction]:
        """Ask about one sample, or several.

        Args:
            samples: modality -> value, a list of such, or modality -> list of values. What is left out, or None, is absent. A value is

                of a picture, a path, a picture of PIL, or an array (H, W, 3) uint8;
                of sound, a path, or one channel with its samples a second: (array, rate), {"array": …, "sampling_rate": …};
                of a video, a path;
                of a text, a string;
                of a feature vector, its numbers, or the path of an ``.npy`` file; a plain number is a vector of one;
                of any of them but texts, an array as the data set holds it.

        Returns:
            A prediction of one sample, a list of them otherwise.

        Raises:
            UsageError: a value is not what the modality is, or a file cannot be read.
        """
        one = isinstance(samples, Mapping) and not is_columns(samples)
        if isinstance(samples, Mapping):
            rows: list[Mapping[str, Any]] = [samples] if one else rows_of(samples)
        else:
            if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
                raise UsageError(
                    f"expected a sample, modality: value, or a list of samples, got {type(samples).__name__} {str(samples)[:60]!r}"
                )
            rows = list(samples)
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise UsageError(f"sample {number}: expected a mapping, modality: value, got {type(row).__name__}")
        split = self.inputs.split(rows, lambda number, name: name if one else f"sample {number}, {name}")
        found = self.answers(split, self.log_probs(split))
        return found[0] if one else found

    def answers(self, split: Split, log_probs: Tensor) -> list[Prediction]:
        """Log-probabilities (N, C) of a split that ``inputs`` made, as predictions."""
        seen = [
            tuple(m for m, here in zip(self.modalities, row, strict=True) if here) for row in split.present.tolist()
        ]
        chosen = log_probs.argmax(dim=1).tolist()
        return [
            Prediction(self.classes[best], dict(zip(self.classes, row, strict=True)), names)
            for best, row, names in zip(chosen, log_probs.double().exp().tolist(), seen, strict=True)
        ]

    def log_probs(self, split: Split, every_pattern: bool = False) -> Tensor:
        """Log-probabilities (N, C) float32 by what each sample has; or under every presence pattern, (P, N, C)."""
        answer = self.task.predict_step if every_pattern else self._answer
        resizing = {m: resize for m, resize in self.resizing.items() if m not in self.frozen}
        if not len(split):
            return torch.zeros(*([len(self.task.pattern_masks)] if every_pattern else []), 0, len(self.classes))
        with self._computing():
            split = self._encoded(split)
            batches = torch.arange(len(split)).split(EVALUATION_BATCH)
            found = [answer(self._prepared(split, rows, resizing)).float().cpu() for rows in batches]
        if not all(part.isfinite().all() for part in found):
            raise UsageError(
                "the model's answer is not a finite number: are the features of another scale than training's?"
            )
        return torch.cat(found, dim=1 if every_pattern else 0)

    def _answer(self, batch: Batch) -> Tensor:
        logits = self.task.answer(self.task.encode(batch), batch.present)
        return logits.to(torch.promote_types(logits.dtype, torch.float)).log_softmax(dim=-1)

    def _prepared(self, split: Split, rows: Tensor, resizing: Mapping[str, Resize]) -> Batch:
        """A batch as evaluation gets it."""
        batch = split.__getitems__(rows).to(self.device)  # type: ignore[arg-type]
        batch.inputs = transformed(batch.inputs, resizing)
        return batch

    def _encoded(self, split: Split) -> Split:
        """The split with features in the place of what frozen encoders see, in the steps in which the cache makes them."""
        inputs = dict(split.inputs)
        for modality, encoder in self.frozen.items():
            column = self.modalities.index(modality)
            alone = Split({modality: split.inputs[modality]}, split.present, split.label, split.group)
            features = torch.zeros(len(split), self.card.cached[modality])
            with computing("32-true"):  # as the cache does
                for rows in split.present[:, column].nonzero().squeeze(1).split(ROWS):
                    features[rows] = encoder(self._prepared(alone, rows, self.resizing).inputs[modality]).float().cpu()
            inputs[modality] = features
        return Split(inputs, split.present, split.label, split.group)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Without gradients, with the threads of the training and in its precision."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode(), computing(self.task.recipe.precision):
                yield
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"the model cannot compute with these inputs: {str(error)[:500]}") from error
        finally:
            torch.set_num_threads(before)


def is_columns(samples: Mapping[str, Any]) -> bool:
    """Whether a mapping holds lists of values, and not the values of one sample: a list of numbers is a vector.

    >>> is_columns({"title": ["a cat", None]}), is_columns({"size": [1.5, 2]}), is_columns({"size": [[1.5, 2], [3, 4]]})
    (True, False, True)
    """
    given = [value for value in samples.values() if value is not None]

    def is_list(value: Any) -> bool:
        vector = isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)
        return isinstance(value, list | tuple) and not vector and not is_sound(value)

    return bool(given) and all(map(is_list, given))


def rows_of(columns: Mapping[str, Sequence[Any] | None]) -> list[Mapping[str, Any]]:
    """Lists of values as samples.

    Raises:
        UsageError: they are of different lengths.
    """
    there = {name: values for name, values in columns.items() if values is not None}
    lengths = {name: len(values) for name, values in there.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise UsageError(f"expected as many values of each modality, {told}; give None where a sample lacks one")
    return [dict(zip(there, values, strict=True)) for values in zip(*there.values(), strict=True)]


def device_of(name: str) -> torch.device:
    """The device of this name.

    Raises:
        UsageError: there is none here.
    """
    if not isinstance(name, str) or not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", name):
        raise UsageError(f"device {str(name)[:60]!r}: expected cpu, cuda, cuda:N with the number of a GPU, or mps")
    try:
        return torch.zeros(1, device=name).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device '{name}': expected cpu, or cuda where there is a GPU; {reason}") from error


def load(path: str | PathLike[str], device: str = "cpu") -> Model:
    """Read a model.

    Args:
        path: its folder.
        device: where it computes: "cpu", "cuda", "cuda:1".

    Raises:
        UsageError: there is none, or it was tampered with.
    """
    return Model(Restored(user_path(path)), device)
