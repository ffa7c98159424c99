import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmbench.data.augment import RandomCropFlip, WordDropout
from mmbench.encoders.hashed_text import HashedText


def windows(image: torch.Tensor, padding: int, fill: int) -> dict[tuple, torch.Tensor]:
    """All crops of the padded image, by (rows down, columns right, mirrored), pixel by pixel."""
    _, height, width = image.shape
    found = {}
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            crop = torch.full_like(image, fill)
            for y in range(height):
                for x in range(width):
                    v, u = y + down - padding, x + right - padding
                    if 0 <= v < height and 0 <= u < width:
                        crop[:, y, x] = image[:, v, u]
            found[down, right, False] = crop
            found[down, right, True] = crop.flip(-1)
    return found


def which(window: torch.Tensor, candidates: dict) -> tuple:
    (match,) = [key for key, candidate in candidates.items() if torch.equal(window, candidate)]
    return match


def test_every_picture_gets_a_window_of_its_own():
    torch.manual_seed(0)
    image = torch.arange(1, 2 * 4 * 3 + 1, dtype=torch.uint8).reshape(2, 4, 3)  # no two pixels alike, not square
    candidates = windows(image, padding=1, fill=255)
    augmented = RandomCropFlip(padding=1)(image.expand(400, -1, -1, -1))
    assert augmented.shape == (400, 2, 4, 3)
    assert augmented.dtype == torch.uint8
    counts = dict.fromkeys(candidates, 0)
    for window in augmented:
        counts[which(window, candidates)] += 1
    assert min(counts.values()) >= 5  # 18 windows, about 22 each
    assert max(counts.values()) <= 50


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_probability_of_mirroring(flip):
    image = torch.arange(9, dtype=torch.uint8).reshape(1, 3, 3)
    candidates = windows(image, padding=1, fill=0)
    for window in RandomCropFlip(padding=1, fill=0, flip=flip)(image.expand(30, -1, -1, -1)):
        assert which(window, candidates)[2] == bool(flip)


def test_pictures_keep_their_places():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 4)
    augmented = RandomCropFlip(padding=0)(images)
    assert torch.equal(augmented, images)


def test_augmentation_is_a_function_of_the_global_generator():
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    crops = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        crops.append(RandomCropFlip(padding=2)(images))
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])


sentences = st.lists(st.text("abc ", max_size=15), min_size=1, max_size=6)


@given(sentences, st.floats(0, 1), st.integers(0, 1000))
def test_words_are_dropped_whole_and_never_all(texts, p, seed):
    torch.manual_seed(seed)
    text = HashedText().tokenize(texts)
    before = {name: value.clone() for name, value in text.items()}
    dropped = WordDropout(p)(text)
    assert all(torch.equal(text[name], before[name]) for name in text)  # not in place
    assert torch.equal(dropped["word"], text["word"])
    assert dropped["token"].dtype == text["token"].dtype
    for row in range(len(texts)):
        kept = set()
        for n in range(len(texts[row].split())):
            own = (text["word"][row] == n) & (text["token"][row] > 0)
            now, then = dropped["token"][row][own], text["token"][row][own]
            assert torch.equal(now, then) or not now.any()  # with all its trigrams, or not at all
            if now.any():
                kept.add(n)
        assert kept or not texts[row].split()
        padding = text["token"][row] == 0
        assert not dropped["token"][row][padding].any()


def test_the_share_of_dropped_words():
    torch.manual_seed(0)
    text = HashedText().tokenize(["one two three four five six seven eight nine ten"] * 500)
    first = torch.cat([torch.tensor([True]), text["word"][0].diff() > 0])
    share = (WordDropout(0.2)(text)["token"][:, first] == 0).double().mean(dim=0)  # by word
    assert ((share - 0.2).abs() < 0.06).all(), share


@pytest.mark.parametrize(("p", "changed"), [(0.0, False), (1.0, False), (0.5, True)])
def test_extreme_probabilities(p, changed):
    torch.manual_seed(0)
    text = HashedText().tokenize(["one two three"] * 20)
    assert (
        torch.equal(WordDropout(p)(text)["token"], text["token"]) != changed
    )  # p = 1 would drop every word: keeps all
