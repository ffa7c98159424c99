import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from torchmetrics.classification import MulticlassCalibrationError

from mmbench.metrics import METRICS, evaluate, statistics, summary


def drawn(seed, size, classes, sharpness=2.0):
    """Labels, predicted classes and log-probabilities; labels follow the probabilities more or less."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(size, classes))
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    label = np.where(rng.random(size) < 0.5, log_probs.argmax(axis=1), rng.integers(classes, size=size))
    return label, log_probs.argmax(axis=1), log_probs


cases = given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 12))


@cases
def test_accuracy_and_macro_f1_are_scikit_learns(seed, size, classes):
    label, predicted, log_probs = drawn(seed, size, classes)
    got = summary(label, predicted, log_probs)
    assert tuple(got) == METRICS
    assert got["accuracy"] == pytest.approx(100 * accuracy_score(label, predicted))
    assert got["macro_f1"] == pytest.approx(100 * f1_score(label, predicted, average="macro", zero_division=0))


@cases
def test_calibration_error_is_torchmetrics(seed, size, classes):
    label, predicted, log_probs = drawn(seed, size, classes)
    reference = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    expected = reference(torch.tensor(np.exp(log_probs)), torch.tensor(label)).item()
    assert summary(label, predicted, log_probs)["ece"] == pytest.approx(100 * expected, abs=1e-4)


def test_bins_are_open_on_the_left():
    """Confidences 1/5 = 3/15 and a little more lie in different bins, 1 in the last."""
    confidence = np.array([3 / 15 - 1e-6, 3 / 15 + 1e-6, 1.0])
    rest = (1 - confidence[:, None]) / 9
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.concatenate([confidence[:, None], np.repeat(rest, 9, axis=1)], axis=1))
    bins = statistics(np.zeros(3, int), np.zeros(3, int), log_probs, np.zeros(3, int)).bins[0]
    assert np.flatnonzero(bins[:, 0]).tolist() == [2, 3, 14]


@given(st.integers(0, 10**6), st.integers(1, 8), st.data())
def test_weighting_groups_is_repeating_their_samples(seed, groups, data):
    label, predicted, log_probs = drawn(seed, 40, 4)
    group = np.random.default_rng(seed).integers(groups, size=40) * 7 - 3  # any integers
    present = np.unique(group)
    weights = np.array(
        data.draw(
            st.lists(st.integers(0, 3), min_size=len(present), max_size=len(present)).filter(any), label="weights"
        )
    )
    rows = np.concatenate([np.tile(np.flatnonzero(group == g), w) for g, w in zip(present, weights, strict=True)])
    expected = summary(label[rows], predicted[rows], log_probs[rows])
    sums = statistics(label, predicted, log_probs, group)
    got = evaluate(sums, np.stack([np.ones_like(weights), weights]).astype(float))
    for name in METRICS:
        assert got[name].shape == (2,)
        assert got[name][0] == pytest.approx(summary(label, predicted, log_probs)[name])
        assert got[name][1] == pytest.approx(expected[name])


def test_by_hand():
    # Class 2 occurs neither as label nor as prediction. F1: class 0 2/3, class 1 4/5; one of four is wrong.
    label, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    log_probs = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.05, 0.9, 0.05]]))
    got = summary(label, predicted, log_probs)
    assert got["accuracy"] == pytest.approx(75)
    assert got["macro_f1"] == pytest.approx(100 * (2 / 3 + 4 / 5) / 2)
    # 0.7 lies in (10/15, 11/15] three times, with two hits; 0.9 in (13/15, 14/15] once, a hit
    assert got["ece"] == pytest.approx(100 * (abs(2 - 2.1) + abs(1 - 0.9)) / 4)


def test_predicted_classes_decide_not_the_rounded_probabilities():
    """float16 ties: accuracy counts the stored class, whatever the maximum of the rounded log-probabilities is."""
    log_probs = np.log(np.array([[0.5, 0.5]])).astype(np.float16)
    assert summary(np.array([1]), np.array([1]), log_probs)["accuracy"] == 100
    assert summary(np.array([1]), np.array([0]), log_probs)["accuracy"] == 0


# Presentation attacks: class 1 is bona fide (attack 0), class 0 an attack of type 1 or 2.
ATTACK = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
LIVE = (ATTACK == 0).astype(int)


def attack_errors(predicted, attack=ATTACK, label=LIVE):
    log_probs = np.log(np.full((len(label), 2), 0.5))
    got = summary(label, np.array(predicted), log_probs, attack)
    return got["apcer"], got["bpcer"], got["acer"]


def test_the_worst_type_of_attack_counts():
    predicted = [1, 1, 1, 0, 1, 0, 0, 0, 1, 0]  # one live of 4 refused; type 1: one of 4 accepted, type 2: one of 2
    assert attack_errors(predicted) == pytest.approx((50, 25, 37.5))


def test_with_one_type_attacks_are_pooled():
    predicted = [1, 1, 1, 0, 1, 0, 0, 0, 1, 0]
    assert attack_errors(predicted, np.minimum(ATTACK, 1)) == pytest.approx((100 * 2 / 6, 25, (100 * 2 / 6 + 25) / 2))


def test_always_one_answer_is_wrong_half_the_time():
    assert attack_errors([1] * 10) == (100, 0, 50)
    assert attack_errors([0] * 10) == (0, 100, 50)


def test_a_resample_without_a_type_leaves_it_out():
    predicted = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1, 0])
    group = np.array([0] * 4 + [1] * 4 + [2] * 2)
    sums = statistics(LIVE, predicted, np.log(np.full((10, 2), 0.5)), group, ATTACK)
    got = evaluate(sums, np.array([[1.0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]]))
    assert got["apcer"] == pytest.approx([50, 25, np.nan, 50], nan_ok=True)
    assert got["bpcer"] == pytest.approx([25, 25, 25, np.nan], nan_ok=True)
    assert got["acer"] == pytest.approx([37.5, 25, np.nan, np.nan], nan_ok=True)


def test_without_attacks_there_are_no_such_errors():
    assert set(summary(LIVE, LIVE, np.log(np.full((10, 2), 0.5)), np.empty(0, int))) == set(METRICS)


@pytest.mark.parametrize("label", [np.ones(10, int), np.arange(10) % 2])
def test_bona_fide_samples_are_one_class_and_attacks_another(label):
    with pytest.raises(ValueError, match="bona fide"):
        attack_errors([0] * 10, label=label)
