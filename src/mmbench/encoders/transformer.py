"""What encoders through the package transformers share: models and tokenizers from local folders, nothing fetched or executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmbench.encoders.pretrained import (
    Pretrained,
    find_weights,
    read_tensors,
    refuse_misfits,
    weights_path,
    without_memory,
)
from mmbench.errors import UsageError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip

MOST_LAYERS = 1000

LEADS_ELSEWHERE = {
    "configuration_files", "fast_tokenizer_files", "init_inputs", "vocab", "merges",  # other files than those that are read
    "auto_map", "fusion_config", "quantization_config",  # other code than the classes here
}  # fmt: skip
"""Settings of config.json and tokenizer_config.json by which transformers would read files that a trial does not know of."""


class Transformer(Pretrained):
    """An encoder whose network, ``model``, is a class of transformers.

    Its weights are a folder in the weights folder with the files of the model's page on the Hugging Face hub.
    """

    model: Any
    #: What ``model_type`` in config.json may say.
    model_types: ClassVar[tuple[str, ...]]
    #: The files that may hold the weights; the first that is there is read.
    weight_names: ClassVar[tuple[str, ...]] = ("model.safetensors",)
    #: Beginnings of the names of tensors that the published files hold beside the encoder.
    unused: ClassVar[tuple[str, ...]]
    #: The settings of ``size="tiny"``.
    tiny: ClassVar[dict[str, Any]]

    def build(self, kind: Any, weights: str | None, size: str, **settings: Any) -> None:
        """Make ``model``, from a folder's configuration and weights, or with random weights.

        On the meta device, the default configuration stands in for that of a folder that is not there.

        Args:
            kind: the model's class.
            weights: name of the folder; None: random weights.
            size: "base", the default configuration, or "tiny", which is for trying things out.
            settings: of the configuration, whatever the folder's says.

        Raises:
            UsageError: the folder or a file of it is missing, is of another model, or does not fit.
        """
        if weights is not None and size == "tiny":
            raise UsageError("size: tiny has no published weights; set weights to null")
        if weights is None or (without_memory() and not weights_path(weights).exists()):
            own = self.tiny if size == "tiny" else {}
            self.model = kind(kind.config_class(**own, **settings))
        else:
            self.model = self.load(kind, weights, settings)
        if self.gradient_checkpointing and not self.freeze:  # it has the embeddings require gradients
            self.model.activation_checkpointing_enable()

    @classmethod
    def load(cls, kind: Any, name: str, settings: Mapping[str, Any]) -> Any:
        """The model in float32, every parameter of it from the folder's file; on the meta device, without their values."""
        configuration, weights = cls.model_files(name)
        with understandable(configuration.parent):
            found = read_settings(configuration)
            if (other := found.get("transformers_weights", weights.name)) != weights.name:
                raise UsageError(f"{configuration} names the weights '{other}'; expected them in {weights.name}")
            if found.get("model_type") not in cls.model_types:
                raise UsageError(
                    f"{configuration}: expected model_type {' or '.join(cls.model_types)}, got {found.get('model_type')}"
                )
            config = kind.config_class.from_pretrained(configuration.parent, local_files_only=True, **settings)
            config._attn_implementation = "sdpa"  # the file could name code on the hub
            if config.num_hidden_layers > MOST_LAYERS:
                raise UsageError(f"{configuration} describes a model of {config.num_hidden_layers:,} layers")
            if without_memory():
                return kind(config)
            tensors = read_tensors(weights)
            refuse_larger_model(kind, config, configuration, tensors)
            model, info = kind.from_pretrained(
                None,  # no folder: these tensors are all that is read
                config=config,
                state_dict=tensors,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # so that they are reported
                output_loading_info=True,
            )
        missing, unknown = (
            sorted(key for key in info[listed] if not key.startswith(cls.unused))
            for listed in ("missing_keys", "unexpected_keys")
        )
        refuse_misfits(weights, missing, unknown, sorted(info["mismatched_keys"]))
        return model

    @classmethod
    def model_files(cls, weights: str) -> list[Path]:
        """The configuration and the weights in a folder."""
        folder = find_weights(weights, f"a folder with config.json and {cls.weight_names[0]}{cls.tokenizer_hint()}")
        present = [folder / name for name in cls.weight_names if (folder / name).is_file()]
        for name, there in [("config.json", (folder / "config.json").is_file()), (cls.weight_names[0], present)]:
            if not there:
                raise UsageError(f"{folder / name} is missing; take it from the model's page on the Hugging Face hub")
        return [folder / "config.json", present[0]]

    @classmethod
    def tokenizer_hint(cls) -> str:
        """What a folder has to hold beside the model, for the message if it is missing."""
        return ", as on the model's page on the Hugging Face hub"

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The configuration and the weights, if any are to be loaded."""
        weights = arguments.get("weights")
        return [] if weights is None else cls.model_files(weights)


class TextTransformer(Transformer):
    """A Transformer with the tokenizer of its folder or of another one, which is read when it is first used."""

    #: Name of the tokenizer's class in transformers.
    tokenizer_class: ClassVar[str]
    #: What a folder holds where it has no tokenizer.json.
    vocabulary: ClassVar[tuple[str, ...]]

    max_length: int
    tokenizer_folder: str

    @staticmethod
    def choose_tokenizer(weights: str | None, tokenizer: str | None) -> str:
        """The name of the tokenizer's folder, by default that of the weights."""
        chosen = tokenizer or weights
        if chosen is None:
            raise UsageError("without weights, tokenizer has to name a folder with a tokenizer's files")
        return chosen

    @classmethod
    def tokenizer_hint(cls) -> str:
        """What a folder has to hold beside the model, for the message if it is missing."""
        return f", and with tokenizer.json or {' and '.join(cls.vocabulary)}" + super().tokenizer_hint()

    @classmethod
    def tokenizer_files(cls, name: str) -> list[Path]:
        """The tokenizer's files in a folder."""
        folder = find_weights(name, f"a folder with tokenizer.json or {' and '.join(cls.vocabulary)}")
        files = [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]
        names = {file.name for file in files}
        if "tokenizer.json" not in names and not names.issuperset(cls.vocabulary):
            raise UsageError(f"{folder} has no tokenizer; expected tokenizer.json or {' and '.join(cls.vocabulary)}")
        return files

    @classmethod
    def weight_files(cls, arguments: dict[str, Any]) -> list[Path]:
        """The files of the model, if its weights are to be loaded, and those of the tokenizer."""
        chosen = cls.choose_tokenizer(arguments.get("weights"), arguments.get("tokenizer"))
        return [*super().weight_files(arguments), *cls.tokenizer_files(chosen)]

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            UsageError: its files are missing or damaged, or it does not fit the model.
        """
        import transformers

        files = self.tokenizer_files(self.tokenizer_folder)
        folder = files[0].parent
        with understandable(folder), TemporaryDirectory() as alone:  # beside other files, transformers might read those
            for file in files:
                if file.name == "tokenizer_config.json":
                    read_settings(file)
                shutil.copyfile(file, Path(alone, file.name))
            tokenizer = getattr(transformers, self.tokenizer_class).from_pretrained(alone, local_files_only=True)
        if len(tokenizer) > self.model.config.vocab_size:
            raise UsageError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {self.model.config.vocab_size}; name the tokenizer "
                "that belongs to the weights"
            )
        return tokenizer

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Turn texts into token numbers, cut after ``max_length`` of them, special tokens included.

        Args:
            texts: N texts.

        Returns:
            ``token`` (N, L) int32, L the length of the longest; ``mask`` (N, L) int32, 1 for tokens and 0 for padding.
        """
        if not texts:
            return {name: torch.zeros(0, 1, dtype=torch.int32) for name in ("token", "mask")}
        found = self.tokenizer(
            list(texts),
            padding="longest",
            padding_side="right",
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        return {"token": found["input_ids"].int(), "mask": found["attention_mask"].int()}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a JSON file, in which no other file and no code may be named.

    Raises:
        UsageError: one is named.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    for part in (found, *(value for value in found.values() if isinstance(value, dict))):
        if named := sorted(LEADS_ELSEWHERE & {key for key, value in part.items() if value is not None}):
            raise UsageError(
                f"{path} has the setting '{named[0]}', which names other files or code; only the files named "
                "as usual are read, and no code is run: take it out if they do without"
            )
    return found


def refuse_larger_model(kind: Any, config: Any, source: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a configuration that asks for much more memory than its weights fill, before it is asked for.

    Raises:
        UsageError: the model has more than twice as many parameters as there are weights.
    """
    held = sum(tensor.numel() for tensor in tensors.values())
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in kind(config).parameters())
    if wanted > 2 * held:
        raise UsageError(f"{source} describes a model of {wanted:,} parameters, the file of its weights has {held:,}")


@contextmanager
def understandable(folder: Path) -> Iterator[None]:
    """Turn whatever transformers raises about a folder into a UsageError; nothing is written to the terminal meanwhile."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise many kinds
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{folder} cannot be read: {reason}") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
