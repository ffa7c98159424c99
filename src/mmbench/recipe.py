"""How a model is trained: the settings that are not the method's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from mmbench.errors import UsageError

if TYPE_CHECKING:
    import pytorch_lightning as pl


def _named(precision: object) -> object:
    """32, as the first records have it and YAML reads it as a number, is 32-true."""
    return "32-true" if str(precision) == "32" else precision


Precision = Annotated[Literal["32-true", "tf32", "bf16"], BeforeValidator(_named)]


class Recipe(BaseModel):
    """How a model is trained; the defaults are the papers' setting.

    The MLA paper (arXiv 2311.10707, appendix) and OGM-GE's release train by SGD with momentum 0.9, learning rate 0.001,
    decayed by 0.1 after 70 of 100 epochs, in batches of 64; the weight decay of 1e-4 is the releases'.

    The learning rate of epoch e, counted from 0, is ``lr`` times ``lr_factor(e)``, with E epochs of which W warm up::

        (e + 1) / (W + 1)                        e < W: it rises by equal steps, and is all of lr from epoch W on
        gamma ** (e // step_size)                schedule "step"; epochs count from the beginning of training, warm-up or not
        (1 + cos(π (e − W) / (E − W))) / 2       schedule "cosine": it falls to zero, which is reached when training is over
        1                                        schedule "constant"

    All parameters share that factor, also those of encoders that have another learning rate.

    ``precision`` is in a trial's key unless it is 32-true. bf16 changes numbers everywhere, tf32 on a GPU that has it (compute
    capability 8.0 or later) and nowhere else: on a CPU such a trial gives what 32-true gives, under another key, since a key does not
    depend on where a trial runs. A trial's process sets it (``precision.computing``); a fit with a trainer of one's own is within
    ``with computing(recipe.precision):``, or has what torch has by itself, float32 products and TF32 convolutions.

    Attributes:
        weight_decay: the factor of the weights that is added to the gradient; of adamw, the share of them, times the learning rate,
            that a step takes away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(100, ge=1, le=100_000, description="passes over the training split")
    batch_size: int = Field(64, ge=2, le=1_000_000, description="samples a step")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="adamw: weight decay apart from the gradient")
    lr: float = Field(1e-3, gt=0, le=1000, description="initial learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD; Adam's first beta")
    weight_decay: float = Field(1e-4, ge=0, le=1000)
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="what the learning rate does by epoch")
    step_size: int = Field(70, ge=1, le=1_000_000, description="epochs after which the learning rate is decayed")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the decay")
    warmup: int = Field(0, ge=0, description="epochs at the beginning in which the learning rate rises")
    clip_norm: float | None = Field(
        None, gt=0, description="the norm to which an optimiser's gradient, as the method made it, is cut back"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without a new best on the selection split after which training stops"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: cross-entropies weigh classes against their frequency in the training split"
    )
    precision: Precision = Field(
        "32-true",
        description="what a GPU computes in. 32-true: float32; tf32: products and convolutions in TF32, whose factors have 10 bits "
        "behind the point; bf16: encoders in bfloat16, while their weights, and everything else, stay in float32",
    )
    compile: bool = Field(False, description="compile the encoders by torch.compile")
    head_init: Literal["pytorch", "xavier"] = Field(
        "pytorch",
        description="what the layers behind the encoders start from; xavier: Xavier's normal distribution and zero biases, as in "
        "the releases of OGM-GE, MLA and DMRNet. For methods with linear layers alone; the others refuse it",
    )

    @field_validator("step_size", "gamma")
    @classmethod
    def _of_step(cls, value: float, info: ValidationInfo) -> float:
        """A stored recipe has all its settings: one at its default says nothing."""
        schedule = info.data.get("schedule", "step")
        if schedule != "step" and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError(f"is a setting of schedule: step, and the schedule is {schedule}; leave it out")
        return value

    @field_validator("warmup")
    @classmethod
    def _leaves_epochs(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("epochs", math.inf):
            raise ValueError(f"must be less than epochs, of which there are {info.data['epochs']}")
        return value

    def lr_factor(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0, as a share of ``lr``."""
        if epoch < self.warmup:
            return (epoch + 1) / (self.warmup + 1)
        if self.schedule == "step":
            return self.gamma ** (epoch // self.step_size)
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * (epoch - self.warmup) / (self.epochs - self.warmup))) / 2
        return 1.0


def check_trainer(trainer: pl.Trainer, recipe: Recipe) -> None:
    """Refuse a trainer, or a data module of its, that has another length, other batches or another norm of gradients than the recipe.

    Learning rates decay, and stages are planned, by the recipe's epochs. A run that only tries whether everything fits
    (``fast_dev_run``), fewer batches an epoch, and what ends training before its time (early stopping, ``max_time``) are allowed.

    Raises:
        UsageError: they differ.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if trainer.max_epochs != recipe.epochs or trainer.max_steps != -1:
        steps = f" and max_steps={trainer.max_steps}" if trainer.max_steps != -1 else ""
        raise UsageError(
            f"the trainer has max_epochs={trainer.max_epochs}{steps}, but the recipe has {recipe.epochs} epochs, by which the "
            "learning rate decays and stages are planned; say how many in the recipe, Recipe(epochs=10), and take them from there, "
            "Trainer(max_epochs=task.recipe.epochs), without max_steps"
        )
    if recipe.clip_norm is not None and trainer.gradient_clip_val is not None:
        raise UsageError(
            f"the trainer has gradient_clip_val={trainer.gradient_clip_val}, and the recipe clip_norm={recipe.clip_norm}; leave it to "
            "the recipe"
        )
    if recipe.patience is not None and not trainer.enable_validation:
        raise UsageError(
            f"recipe.patience is {recipe.patience}, but the trainer does not validate, so that no epoch is better than another; give "
            "it the split on which the epoch is chosen, or leave patience out"
        )
    given = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if given is not None and given * trainer.accumulate_grad_batches != recipe.batch_size:
        gathered = trainer.accumulate_grad_batches
        times = f" × accumulate_grad_batches={gathered}" if gathered > 1 else ""
        raise UsageError(
            f"a step has the data module's batch_size={given}{times}, but the recipe has batch_size={recipe.batch_size}; build the "
            "data module with batch_size=recipe.batch_size, or say in the recipe what is meant, Recipe(batch_size=16)"
        )
