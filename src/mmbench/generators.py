"""Random generators: what they will draw, as plain values and tensors, so that a trial can go on drawing where it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
"""The generators whose state can be taken."""


def state_of(generator: Any) -> Any:
    """The state of a generator of one of ``KINDS``."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return without_arrays(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return without_arrays(generator.get_state(legacy=False))
    return generator.getstate()


def set_state(generator: Any, state: Any) -> None:
    """Bring a generator of the same kind to a state that was taken."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


def without_arrays(state: Any) -> Any:
    """NumPy's state of a generator, its arrays as lists, which it takes as well."""
    if isinstance(state, dict):
        return {name: without_arrays(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def global_states() -> dict[str, Any]:
    """What torch, on the CPU and on the GPUs that are visible, NumPy and Python will draw in this process."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": without_arrays(np.random.get_state(legacy=False)),
        "python": random.getstate(),
    }


def set_global_states(states: dict[str, Any]) -> None:
    """Let this process draw what another would have drawn, of which these are the states."""
    torch.set_rng_state(states["torch"])
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
