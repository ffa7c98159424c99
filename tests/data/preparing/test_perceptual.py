"""Pictures that look alike: the hash against another transform, the search against all pairs, the figures that its docstring gives."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from mmbench.data.preparing.auditing import perceptual
from mmbench.data.preparing.auditing.perceptual import Looks, hashed, near_pairs, pictures_of
from mmbench.data.sets.openclipart import OpenClipart


def looks(pictures):
    """The looks of pictures (n, H, W, 3), in the order in which they lie on disk."""
    return Looks.of(torch.from_numpy(pictures).movedim(-1, 1))


def found(pictures):
    return [tuple(pair) for pair in near_pairs(looks(pictures)).tolist()]


@pytest.fixture(scope="module")
def clipart():
    return OpenClipart.read()["image"]  # (1632, 32, 32, 3)


def test_the_hash_is_that_of_the_cosine_transform():
    pictures = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)
    for picture, code in zip(pictures, hashed(pictures).tolist(), strict=True):
        grey = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
        waves = dctn(grey)[:8, :8].ravel()[1:]
        bits = waves > 0.2 * np.sqrt(np.mean(waves**2))
        assert f"{code:064b}" == "0" + "".join(str(int(bit)) for bit in bits)


def brute_force(seen):
    """All pairs that the rule calls alike, each looked at by itself."""
    pairs = []
    for i in range(len(seen.codes)):
        for j in range(i + 1, len(seen.codes)):
            if (int(seen.codes[i]) ^ int(seen.codes[j])).bit_count() > 5:
                continue
            one, other = seen.small[i].astype(float), seen.small[j].astype(float)
            shades = np.abs(one.mean(axis=1) - other.mean(axis=1)).max()
            one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
            contrast = min(np.sqrt((x**2).mean()) for x in (one, other))
            correlation = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-9)
            if correlation >= 0.97 and shades <= 40 and contrast >= 4:
                pairs.append((i, j))
    return pairs


def test_the_search_finds_what_looking_at_all_pairs_finds(clipart):
    some = clipart[::5]
    pictures = np.concatenate([some, (0.9 * some[:60]).astype(np.uint8), np.full((3, 32, 32, 3), 255, np.uint8)])
    seen = looks(pictures)
    pairs = [tuple(pair) for pair in near_pairs(seen).tolist()]
    assert len(pairs) >= 60
    assert pairs == brute_force(seen)


def test_few_different_pictures_are_called_alike(clipart):
    assert len(found(clipart)) <= 31


def stored(picture, quality):
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def scaled(picture, side):
    return picture.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda p: stored(p, 75), 0.985),
        (lambda p: scaled(p, 20), 0.99),
        (lambda p: stored(scaled(p, 128), 60), 0.99),
        (lambda p: ImageEnhance.Brightness(p).enhance(0.85), 0.99),
        (lambda p: ImageEnhance.Brightness(p).enhance(1.1), 0.93),
        (lambda p: p.quantize(32), 0.98),
    ],
)
def test_copies_are_found(clipart, change, least):
    """Each by itself, so that the search is over pairs of one picture and its copy; those without contrast are not counted."""
    some = clipart[::2]
    copies = [np.asarray(change(Image.fromarray(picture)).convert("RGB").resize((32, 32))) for picture in some]
    one, other = looks(some), looks(np.stack(copies))
    rows = np.flatnonzero(one.contrast >= perceptual.CONTRAST)
    both = Looks.joined([one, other])
    close = np.bitwise_count(one.codes[rows] ^ other.codes[rows]) <= perceptual.BITS
    pairs = np.stack([rows[close], rows[close] + len(some)], axis=1)
    kept = np.concatenate(perceptual.alike(both.small, pairs))
    assert len(kept) / len(rows) >= least
    assert set(map(tuple, kept.tolist())) <= {tuple(pair) for pair in near_pairs(both).tolist()}


def test_blank_pictures_are_not_alike():
    blank = np.full((50, 40, 30, 3), 255, np.uint8)
    blank[:25] = 7
    blank[::2, 0, 0] = 0  # a speck
    assert found(blank) == []
    assert (looks(blank).contrast < perceptual.CONTRAST).all()


def test_the_same_shape_in_other_colours_is_another_picture():
    tricolour = np.zeros((3, 30, 30, 3), np.uint8)
    for picture, colours in zip(tricolour, ("BWR", "GWR", "RWB"), strict=True):
        for third, colour in enumerate(colours):
            picture[:, 10 * third : 10 * third + 10] = {
                "B": (0, 0, 200), "W": (255,) * 3, "R": (200, 0, 0), "G": (0, 150, 0)
            }[colour]  # fmt: skip
    assert found(np.concatenate([tricolour, tricolour[:1]])) == [(0, 3)]


def test_mirrored_pictures_are_not_found(clipart):
    picture = next(p for p in clipart if np.abs(p.astype(int) - p[:, ::-1]).mean() > 60)
    assert found(np.stack([picture, picture[:, ::-1]])) == []


def test_of_very_many_that_are_alike_each_is_found_and_not_all_pairs_are(clipart, monkeypatch):
    monkeypatch.setattr(perceptual, "WINDOW", 20)
    noise = np.random.default_rng(0).integers(-4, 5, (600, 32, 32, 3))
    pictures = np.clip(clipart[500].astype(int) + noise, 0, 255).astype(np.uint8)
    pairs = near_pairs(looks(pictures))
    assert set(pairs.ravel().tolist()) == set(range(600))
    assert len(pairs) <= 6 * 20 * 600 < 600 * 599 / 2
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_no_picture_and_one():
    assert near_pairs(Looks.joined([])).shape == (0, 2)
    assert found(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)) == []


def test_pictures_are_told_from_other_values():
    clip = torch.zeros(2, 3, 3, 8, 9, dtype=torch.uint8)
    clip[:, 1] = 1
    assert pictures_of(clip).unique().tolist() == [1]
    assert pictures_of(clip).shape == (2, 3, 8, 9)
    assert pictures_of(clip[:, 0, :1]).shape == (2, 1, 8, 9)
    for other in (clip.float(), clip[:, 0, 0], clip[:, :, :2]):
        assert pictures_of(other) is None


def test_grey_pictures_are_compared(clipart):
    grey = torch.from_numpy(clipart[:40:4, :, :, :1].copy()).movedim(-1, 1)
    assert near_pairs(Looks.joined([Looks.of(grey), Looks.of(grey[3:4])])).tolist() == [[3, 10]]
