"""What GPU a process computes on, and what it takes of it."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

MEGABYTE = 2**20


def describe_gpu() -> dict[str, Any]:
    """The first GPU that this process sees and the software that runs it; nothing where there is none, or it does not answer.

    CUDA is initialised by it, so no process that needs a GPU of its own may be forked from this one afterwards.

    Returns:
        ``gpu``, its name; ``compute_capability``; ``driver``, where it says; and the versions of ``cuda`` and ``cudnn`` that torch has.
    """
    import torch

    found: dict[str, Any] = {}
    with suppress(AssertionError, RuntimeError):  # the trial will fail of it, and say why
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
            found["compute_capability"] = "{}.{}".format(*torch.cuda.get_device_capability())
            found |= {"driver": driver_version(), "cuda": torch.version.cuda, "cudnn": _cudnn_version()}
    return {name: value for name, value in found.items() if value is not None}


def driver_version() -> str | None:
    """Of NVIDIA's driver, as its management library (NVML) says; None without it."""
    with suppress(AttributeError, OSError):
        nvml, version = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.create_string_buffer(96)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlSystemGetDriverVersion(version, len(version)) == 0:
            return version.value.decode()
    return None


def _cudnn_version() -> str | None:
    """As NVIDIA writes it: torch has 9.10.2 as 91002, and before 9.0 8.9.2 as 8902."""
    import torch

    number = torch.backends.cudnn.version()
    if number is None:
        return None
    major, rest = divmod(number, 10_000 if number >= 90_000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def forget_peak() -> None:
    """Begin to look for the peak of memory anew, in a process that has used a GPU before."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, float]:
    """The most memory that this process had of its GPU, in MB; nothing if it used none.

    Returns:
        ``gpu_memory_mb``, what torch took of the GPU, so that no other could; ``gpu_allocated_mb``, what tensors needed of that.
        CUDA's own context, several hundred MB, comes on top.
    """
    import torch

    if not torch.cuda.is_initialized():
        return {}
    peaks = {
        "gpu_memory_mb": torch.cuda.max_memory_reserved(),
        "gpu_allocated_mb": torch.cuda.max_memory_allocated(),
    }
    return {name: value / MEGABYTE for name, value in peaks.items()}


class _Nvml(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def free_mb(name: str) -> float | None:
    """The MB of a GPU's memory that nobody uses now; None where NVML does not say. CUDA is not initialised by it.

    Args:
        name: as in CUDA_VISIBLE_DEVICES: a number, or what a GPU, or a part of one, is called.
    """
    with suppress(AttributeError, OSError):
        nvml, handle, found = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), _Nvml()
        by_name, of = nvml.nvmlDeviceGetHandleByUUID, name.encode()
        answers = [
            nvml.nvmlInit_v2(),
            nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(handle))
            if name.isdigit()
            else by_name(of, ctypes.byref(handle)),
            nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(found)),
        ]
        if not any(answers):
            return float(found.free) / MEGABYTE
    return None
