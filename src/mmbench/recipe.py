"""How a model is trained: the settings that are not the method's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Precision = Annotated[Literal["32", "bf16"], BeforeValidator(str)]  # YAML reads 32 as a number


class Recipe(BaseModel):
    """Stochastic gradient descent with momentum, or Adam, with step decay; the defaults are the papers' setting.

    The MLA paper (arXiv 2311.10707, appendix) and OGM-GE's release train by SGD with momentum 0.9, learning rate 0.001,
    decayed by 0.1 after 70 of 100 epochs, in batches of 64; the weight decay of 1e-4 is the releases'.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(100, ge=1, description="passes over the training split")
    batch_size: int = Field(64, ge=2, description="samples a step")
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(1e-3, gt=0, description="initial learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD; Adam's first beta")
    weight_decay: float = Field(1e-4, ge=0)
    step_size: int = Field(70, ge=1, description="epochs after which the learning rate is decayed")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of the decay")
    precision: Precision = Field(
        "32", description="bf16: encoders compute in bfloat16; their weights, and everything else, stay in float32"
    )
    compile: bool = Field(False, description="compile the encoders by torch.compile")
