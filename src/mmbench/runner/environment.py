"""What a trial ran on, for its record."""

from __future__ import annotations

import platform
from typing import Any

from mmbench.gpus import describe_gpu
from mmbench.machine import host, installed_version

PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "numpy",
    "scipy",
    "scikit-learn",
    "timm",
    "transformers",
)
"""Whose versions a record has."""


def describe_environment(device: str, threads: int, devices: int, precision: str) -> dict[str, Any]:
    """Versions and machine; of a trial on a GPU also what GPU, what runs it and in what precision.

    Args:
        device: "cpu", or what CUDA_VISIBLE_DEVICES says.
        threads: of the CPU.
        devices: how many train the trial.
        precision: the recipe's.
    """
    return {
        "python": platform.python_version(),
        **{name: installed_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "host": host(),
        "cpu": _cpu_model(),
        "device": device,
        "threads": threads,
        **({"devices": devices} if devices > 1 else {}),
        **({} if device == "cpu" else {**describe_gpu(), "precision": precision}),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
