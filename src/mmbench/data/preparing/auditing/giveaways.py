"""What gives a sample's class away without being looked at: that a modality is absent, or a text that says the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmbench.data.preparing.texts import words

P = 0.01  # the greatest p, after Bonferroni's correction for the number of modalities
GAP = 0.5  # the least difference between the shares of absent samples of a class and of all others
GAIN = 0.05  # or the least gain in accuracy over calling every sample the most frequent class
DRAWS = 9_999
MANY, FEWER = 500, 2_999  # from more classes on, fewer draws
SPOKEN = 0.01  # the least share of texts that name their class which is told
CLASSES = 3  # that are named


def absence(present: Mapping[str, np.ndarray], label: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Modalities that give the class away by being absent or there, a line each.

    Told where chance does not explain it and it is much: a permutation test over the samples (chi-square, p < 0.01 after Bonferroni's
    correction), and either a class whose samples lack the modality 50 points more or less often than the others do, or an accuracy
    by this alone that is 5 points above that of the most frequent class. Samples of one group are not independent, so p alone would
    say too much.

    Args:
        present: modality -> (N,) bool.
        label: (N,) the class of each sample.
        classes: by number.
    """
    some = {m: ~there for m, there in present.items() if 0 < there.sum() < len(there)}
    sizes = np.bincount(label, minlength=len(classes))  # (C,)
    lines = []
    for modality, absent in some.items():
        counts = np.bincount(label[absent], minlength=len(classes))  # (C,) absent samples of each class
        least, gap = accuracy(counts, sizes), gaps(counts, sizes)
        most_frequent = sizes.max() / sizes.sum()
        if np.abs(gap).max() < GAP and least < most_frequent + GAIN:
            continue
        if (p := len(some) * permutation_p(counts, sizes)) >= P:
            continue
        named = np.argsort(-np.abs(gap), kind="stable")[:CLASSES]
        each = ", ".join(f"{counts[c]} of {sizes[c]} {classes[c]}" for c in named if sizes[c])
        lines.append(
            f"{modality} gives the class away by being absent: from that alone {least:.0%} are right, {most_frequent:.0%} by the most "
            f"frequent class (p < {max(round(p, 3), 0.001)}, samples taken as independent); absent in {each}"
        )
    return lines


def accuracy(absent: np.ndarray, sizes: np.ndarray) -> float:
    """The accuracy of knowing only whether a modality is absent: of the most frequent class among those samples, and among the rest."""
    return float((absent.max() + (sizes - absent).max()) / sizes.sum())


def gaps(absent: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of each class, the share of its samples that lack a modality less that of all other samples: (C,), 0 for an empty class."""
    others, lacking = sizes.sum() - sizes, absent.sum() - absent
    both = (sizes > 0) & (others > 0)
    return np.where(both, absent / np.maximum(sizes, 1) - lacking / np.maximum(others, 1), 0.0)


def permutation_p(absent: np.ndarray, sizes: np.ndarray) -> float:
    """How often the absent samples, drawn at random from all, are as unevenly spread over the classes: p of a permutation test."""
    chosen, spread, rng = int(absent.sum()), sizes[sizes > 0], np.random.default_rng(0)
    expected = spread * (chosen / sizes.sum())
    # Absent and present cells of a class have the same deviation, so their sum is a factor of this one.
    real = np.square(absent[sizes > 0] - expected) @ (1 / expected)
    draws, reached = DRAWS if len(spread) <= MANY else FEWER, 0
    for start in range(0, draws, MANY):  # in blocks: of many classes, all draws would be gigabytes
        count = min(MANY, draws - start)
        drawn = rng.multivariate_hypergeometric(spread, chosen, size=count, method="marginals")
        reached += int((np.square(drawn - expected) @ (1 / expected) >= real * (1 - 1e-12)).sum())
    return (1 + reached) / (1 + draws)


def spoken(texts: Mapping[str, Sequence[str]], label: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Text modalities that name the class of their sample, word for word, a line each."""
    names = [f" {words(name.replace('_', ' '))} " for name in classes]
    lines = []
    for modality, column in texts.items():
        keys = [words(text) for text in column]
        filled = sum(map(bool, keys))
        count = sum(names[c] in f" {key} " for key, c in zip(keys, label, strict=True) if key)
        if count and count >= SPOKEN * filled:
            lines.append(
                f"{modality} names the class of its sample in {count} of {filled} texts ({count / filled:.0%})"
            )
    return lines
