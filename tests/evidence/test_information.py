"""The partial information decomposition: textbook values, and that what it finds is the minimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from mmbench.evidence.information import (
    MOST_CLASSES,
    decompose,
    few_classes,
    joint_table,
    least_information,
    mutual_information,
)

BIT = np.log(2)


def gate(function: object) -> np.ndarray:
    """The joint distribution of two fair coins and what a gate makes of them."""
    table = np.zeros((2, 2, 2))
    for a in (0, 1):
        for b in (0, 1):
            table[a, b, function(a, b)] += 0.25  # type: ignore[operator]
    return table


def tables(count: int, classes: int, samples: int, skill: float, seed: int = 0) -> np.ndarray:
    """Counts of two predictions that are right with a probability, else anything."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        label = generator.choice(classes, samples, p=generator.dirichlet(np.full(classes, 2.0)))
        guesses = [
            np.where(generator.random(samples) < skill, label, generator.integers(0, classes, samples)) for _ in "ab"
        ]
        made.append(joint_table(*guesses, label, classes))
    return np.stack(made)


@pytest.mark.parametrize(
    ("table", "redundancy", "first", "second", "synergy"),
    [
        pytest.param(gate(lambda a, b: a & b), 0.311278, 0, 0, 0.5, id="and"),
        pytest.param(gate(lambda a, b: a ^ b), 0, 0, 0, 1, id="xor"),
        pytest.param(gate(lambda a, b: a), 0, 1, 0, 0, id="a copy of the first"),
        pytest.param(gate(lambda a, b: b), 0, 0, 1, 0, id="a copy of the second"),
        pytest.param(np.einsum("xz,xy->xzy", np.eye(2) / 2, np.eye(2)), 1, 0, 0, 0, id="both the same"),
        pytest.param(gate(lambda a, b: 0), 0, 0, 0, 0, id="of one class"),
    ],
)
def test_textbook_values(table: np.ndarray, redundancy: float, first: float, second: float, synergy: float) -> None:
    found = decompose(table[None])
    parts = [found.redundancy, found.first, found.second, found.synergy]
    assert np.concatenate(parts) / BIT == pytest.approx([redundancy, first, second, synergy], abs=1e-4)


def test_two_copied_bits_are_each_ones_own() -> None:
    table = np.zeros((2, 2, 4))
    for a in (0, 1):
        for b in (0, 1):
            table[a, b, 2 * a + b] = 0.25
    found = decompose(table[None])
    assert np.concatenate([found.redundancy, found.first, found.second, found.synergy]) / BIT == pytest.approx(
        [0, 1, 1, 0], abs=1e-4
    )


def test_the_parts_add_up_to_the_information_and_none_is_below_zero() -> None:
    made = tables(6, 4, 200, 0.5)
    found = decompose(made)
    whole = mutual_information((made / made.sum(axis=(1, 2, 3), keepdims=True)).reshape(6, 16, 4))
    parts = [found.redundancy, found.first, found.second, found.synergy]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole)
    assert np.min(parts) > -1e-4


def test_mutual_information_is_that_of_loops() -> None:
    p = tables(1, 3, 60, 0.6)[0].sum(axis=0) / 60
    value = sum(
        p[x, y] * np.log(p[x, y] / (p[x].sum() * p[:, y].sum())) for x in range(3) for y in range(3) if p[x, y] > 0
    )
    assert mutual_information(p[None])[0] == pytest.approx(value)


@pytest.mark.parametrize(("classes", "samples"), [(2, 40), (3, 60), (3, 2000)])
def test_no_feasible_distribution_has_less_information(classes: int, samples: int) -> None:
    """Against corners of the feasible set and what lies between, and against another algorithm, which shares nothing with this one."""
    p = tables(1, classes, samples, 0.6, seed=classes)[0] / samples
    found = least_information(p[None])[0]
    where = [(x, z, y) for x in range(classes) for z in range(classes) for y in range(classes)]
    margins = [[(x, y) == (i, k) for x, _, y in where] for i in range(classes) for k in range(classes)]
    margins += [[(z, y) == (j, k) for _, z, y in where] for j in range(classes) for k in range(classes)]
    equal = np.array(margins, float)
    generator = np.random.default_rng(0)
    lowest = np.inf
    for _ in range(50):  # the corners of the feasible distributions, and what lies between them and the data
        corner = linprog(generator.normal(size=classes**3), A_eq=equal, b_eq=equal @ p.ravel()).x.reshape(p.shape)
        for share in (0.1, 0.5, 0.9, 1.0):
            between = (share * corner.clip(0) + (1 - share) * p).reshape(1, -1, classes)
            lowest = min(lowest, mutual_information(between)[0])
    assert found <= lowest + 1e-4
    assert found <= mutual_information(p.reshape(1, -1, classes))[0] + 1e-4
    assert found == pytest.approx(by_conditional_gradients(p, equal), abs=5e-4)


def by_conditional_gradients(p: np.ndarray, equal: np.ndarray) -> float:
    """The minimum by Frank and Wolfe's algorithm with line searches, to 1e-4 by its own certificate if that is reached."""
    classes = p.shape[-1]
    q = np.einsum("xy,zy->xzy", p.sum(axis=1), p.sum(axis=0)) / np.maximum(p.sum(axis=(0, 1)), 1e-300)
    for _ in range(2000):
        gradient = np.log(np.maximum(q, 1e-12)) - np.log(np.maximum(q.sum(axis=2, keepdims=True), 1e-12))
        corner = linprog(gradient.ravel(), A_eq=equal, b_eq=equal @ p.ravel()).x.reshape(p.shape).clip(0)
        if (gradient * (q - corner)).sum() < 1e-4:
            break
        steps = np.concatenate([np.geomspace(1e-5, 1, 60)])
        ways = q + steps[:, None, None, None] * (corner - q)
        q = ways[mutual_information(ways.reshape(len(steps), -1, classes)).argmin()]
    return float(mutual_information(q.reshape(1, -1, classes))[0])


def test_pairs_are_solved_alike_alone_and_together() -> None:
    made = tables(5, 6, 300, 0.5)
    together = decompose(made)
    alone = [decompose(made[i : i + 1]) for i in range(5)]
    assert together.synergy == pytest.approx(np.concatenate([d.synergy for d in alone]), abs=1e-9)


def test_exchanging_the_two_exchanges_what_is_their_own() -> None:
    made = tables(3, 10, 400, 0.4)
    one, other = decompose(made), decompose(made.transpose(0, 2, 1, 3))
    assert one.first == pytest.approx(other.second, abs=2e-4)
    assert one.redundancy == pytest.approx(other.redundancy, abs=2e-4)


def test_the_table_counts_triples() -> None:
    first, second, label = np.random.default_rng(0).integers(0, 3, (3, 50))
    table = joint_table(first.astype(np.int16), second.astype(np.int16), label, 3)
    expected = np.zeros((3, 3, 3), int)
    for x, z, y in zip(first, second, label, strict=True):
        expected[x, z, y] += 1
    np.testing.assert_array_equal(table, expected)


def test_rare_classes_are_taken_together() -> None:
    label = np.repeat(np.arange(101), np.arange(1, 102))  # class 100 is the most frequent
    numbers = few_classes(label, 101)
    assert numbers.max() == MOST_CLASSES - 1
    assert numbers[100] == 0
    assert (numbers[: 101 - MOST_CLASSES + 1] == MOST_CLASSES - 1).all()
    assert len(set(numbers[101 - MOST_CLASSES + 1 :])) == MOST_CLASSES - 1
    np.testing.assert_array_equal(few_classes(label, MOST_CLASSES), np.arange(MOST_CLASSES))
