"""What a trial notes of its GPU; there is none here, so torch and NVIDIA's library are stood in for."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmbench.gpus import MEGABYTE, describe_gpu, driver_version, peak_memory
from mmbench.recipe import Recipe
from mmbench.runner.environment import describe_environment
from mmbench.trial import Trial

TRIAL = Trial(
    dataset="openclipart", data="0", protocol="clean", method="sum", seed=0, encoders={}, params={},
    recipe=Recipe(precision="tf32"),
)  # fmt: skip
OF_A_GPU = {"gpu", "compute_capability", "driver", "cuda", "cudnn", "precision"}


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, as far as torch tells of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 * MEGABYTE)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2 * MEGABYTE)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(nvmlInit_v2=lambda: 0, **NVML))


def _driver(buffer: Any, size: int) -> int:
    buffer.value = b"580.65.06"
    return 0


NVML = {"nvmlSystemGetDriverVersion": _driver}


def test_a_record_names_the_gpu_and_what_runs_it(h100: None) -> None:
    told = describe_environment("0", 1, 1, TRIAL.recipe.precision)
    assert {name: told[name] for name in OF_A_GPU} == {
        "gpu": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "driver": "580.65.06", "cuda": "13.0",
        "cudnn": "9.10.2", "precision": "tf32",
    }  # fmt: skip
    assert peak_memory() == {"gpu_memory_mb": 3, "gpu_allocated_mb": 2}


def test_a_record_of_the_cpu_has_the_fields_that_it_had(h100: None) -> None:
    assert not OF_A_GPU & set(describe_environment("cpu", 1, 1, TRIAL.recipe.precision))


def test_cudnn_before_version_9_is_written_as_nvidia_does(h100: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 8902)
    assert describe_gpu()["cudnn"] == "8.9.2"


def test_a_gpu_that_does_not_answer_is_left_to_the_trial(h100: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise RuntimeError("CUDA error: no kernel image")

    monkeypatch.setattr(torch.cuda, "get_device_name", fails)
    assert describe_gpu() == {}


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_without_nvidias_library_the_driver_is_not_known(
    h100: None, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert driver_version() is None
    assert "driver" not in describe_gpu()


def test_a_process_that_used_no_gpu_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert peak_memory() == {}
