"""Calibration and risk–coverage against loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mmbench.evidence.calibration import expected_error, reliability, risk_coverage
from mmbench.metrics import summary


def answers(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    confidence = generator.random(size)
    return confidence, generator.random(size) < confidence**2


def test_bins_are_those_of_a_loop() -> None:
    confidence, hits = answers(200)
    confidence[:3] = 1 / 15, 2 / 15, 1.0
    expected = np.zeros((15, 3))
    for c, hit in zip(confidence, hits, strict=True):
        k = next(k for k in range(15) if c <= (k + 1) / 15)
        expected[k] += 1, hit, c
    np.testing.assert_allclose(reliability(confidence, hits), expected)
    error = sum(n / 200 * abs(h / n - c / n) for n, h, c in expected if n)
    assert expected_error(reliability(confidence, hits)) == pytest.approx(100 * error)


def test_the_error_is_that_of_the_main_table() -> None:
    log_probs = np.log(np.random.default_rng(1).dirichlet(np.ones(5), 300))
    label = np.random.default_rng(2).integers(0, 5, 300)
    predicted = log_probs.argmax(axis=1)
    bins = reliability(np.exp(log_probs.max(axis=1)), predicted == label)
    assert expected_error(bins) == pytest.approx(summary(label, predicted, log_probs)["ece"])


def risk_of_order(wrong: list[bool]) -> float:
    return 100 * float(np.mean([np.mean(wrong[: k + 1]) for k in range(len(wrong))]))


def test_risk_is_the_mean_over_coverages() -> None:
    confidence, hits = answers(50)
    order = np.argsort(-confidence)
    assert risk_coverage(confidence, hits) == pytest.approx(risk_of_order(list(~hits[order])))
    assert risk_coverage(confidence, np.ones(50, bool)) == 0
    assert risk_coverage(confidence, np.zeros(50, bool)) == 100


def test_equally_sure_samples_come_in_no_order() -> None:
    confidence, hits = np.array([0.9, 0.5, 0.5, 0.5, 0.2]), np.array([True, False, True, True, False])
    orders = [[0, *middle, 4] for middle in permutations([1, 2, 3])]
    expected = np.mean([risk_of_order(list(~hits[order])) for order in orders])
    assert risk_coverage(confidence, hits) == pytest.approx(expected)
