import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmbench.data.augment import (
    CHUNK,
    RandomCropFlip,
    RandomResizedCrop,
    Resize,
    SpecAugment,
    WordDropout,
    resample,
    resized_crop,
)
from mmbench.encoders.hashed_text import HashedText
from mmbench.errors import UsageError


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


# Crops


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def levels_apart(one: torch.Tensor, other: torch.Tensor) -> int:
    assert one.dtype == other.dtype == torch.uint8
    assert one.shape == other.shape
    return int((one.int() - other.int()).abs().max())


def naive_resample(row: list[float], size: int) -> list[float]:
    """Antialiased linear interpolation of a row of pixels, from its definition."""
    step = len(row) / size
    reach = max(step, 1)
    result = []
    for new in range(size):
        weights = [max(0, 1 - abs((old + 0.5) - (new + 0.5) * step) / reach) for old in range(len(row))]
        result.append(sum(w * value for w, value in zip(weights, row, strict=True)) / sum(weights))
    return result


def naive_crop(channel: torch.Tensor, box: tuple, size: int) -> torch.Tensor:
    top, left, height, width = box
    cut = channel[top : top + height, left : left + width].double()
    across = torch.tensor([naive_resample(row, size) for row in cut.tolist()])
    return torch.tensor([naive_resample(column, size) for column in across.T.tolist()]).T


BOXES = [
    (0, 0, 37, 50),  # all of it
    (3, 5, 30, 40),
    (0, 17, 37, 8),  # shrunk one way, enlarged the other
    (10, 10, 12, 12),
    (20, 40, 5, 3),
    (36, 49, 1, 1),  # the last pixel
    (0, 0, 2, 50),
]


@pytest.mark.parametrize(("crop", "error"), [(resized_crop, 1), (resample, 0.5)])  # rounded twice, once
def test_crops_follow_the_definition(crop, error):
    images = noise(len(BOXES), 2, 37, 50)
    mirrored = torch.tensor([i % 2 == 1 for i in range(len(BOXES))])
    got = crop(images, torch.tensor(BOXES), mirrored, 12)
    for i, box in enumerate(BOXES):
        for channel in range(2):
            expected = naive_crop(images[i, channel], box, 12)
            expected = expected.flip(-1) if mirrored[i] else expected
            assert (got[i, channel] - expected).abs().max() <= error + 1e-3


def torchvision_functional():
    return pytest.importorskip("torchvision.transforms.v2.functional", reason="a comparison with torchvision")


@pytest.mark.parametrize("crop", [resized_crop, resample])
@pytest.mark.parametrize("size", [7, 24, 64])
@pytest.mark.parametrize("mapped", [False, True])
def test_crops_are_torchvisions(size, crop, mapped):
    reference = torchvision_functional().resized_crop
    boxes = RandomResizedCrop(size).boxes(3 * CHUNK, 37, 50).long().tolist()
    boxes += BOXES
    clips = noise(len(boxes), 2, 37, 50, 3).movedim(-1, -3) if mapped else noise(len(boxes), 2, 3, 37, 50)
    mirrored = torch.arange(len(boxes)) % 3 == 0
    got = crop(clips, torch.tensor(boxes), mirrored, size)
    assert got.is_contiguous() or got.movedim(-3, -1).is_contiguous(), "as dense as it came"
    for i, box in enumerate(boxes):
        expected = torch.stack([reference(frame, *box, [size, size], antialias=True) for frame in clips[i]])
        assert levels_apart(got[i], expected.flip(-1) if mirrored[i] else expected) <= 1


def test_one_box_and_one_flip_for_the_frames_of_a_clip():
    frames = noise(10, 1, 3, 20, 30)
    augmented = RandomResizedCrop(8)(frames.expand(-1, 4, -1, -1, -1))
    assert augmented.shape == (10, 4, 3, 8, 8)
    assert torch.equal(augmented, augmented[:, :1].expand(-1, 4, -1, -1, -1))
    same = RandomResizedCrop(8)(frames[:1].expand(10, -1, -1, -1, -1))
    assert len({tuple(clip.flatten().tolist()) for clip in same}) == 10  # but every clip has its own


def test_the_share_of_mirrored_crops():
    torch.manual_seed(0)
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).expand(500, 3, 24, -1)  # brighter to the right
    for flip, expected in [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]:
        crop = RandomResizedCrop(6, flip=flip)(ramp)
        falls = crop[:, 0, 0, 0] > crop[:, 0, 0, -1]
        assert abs(falls.double().mean().item() - expected) <= (0.07 if flip == 0.5 else 0)


def test_crops_are_a_function_of_the_global_generator():
    images, crops = noise(6, 3, 20, 20), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        crops.append(RandomResizedCrop(8)(images))
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])


def test_an_image_in_floats_is_refused():
    with pytest.raises(AssertionError, match=r"uint8 pictures, got torch\.float32"):
        RandomResizedCrop(4)(torch.rand(2, 3, 8, 8))


def measures(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, 4): the area's share, the logarithm of the ratio, and where the box lies in the room that it has."""
    top, left, h, w = boxes.double().unbind(dim=1)
    return torch.stack([h * w / (height * width), (w / h).log(), top / (height - h + 1), left / (width - w + 1)], dim=1)


# Of a square; so wide that large boxes rarely fit; and so large a scale that the first of ten tries rarely fits.
@pytest.mark.parametrize(
    ("height", "width", "scale"), [(200, 200, (0.08, 1)), (100, 300, (0.3, 1)), (200, 240, (0.5, 2))]
)
def test_boxes_are_distributed_as_torchvisions(height, width, scale):
    transforms = pytest.importorskip("torchvision.transforms", reason="a comparison with torchvision")
    torch.manual_seed(0)
    image, ratio = torch.empty(1, height, width), (3 / 4, 4 / 3)
    draw = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([draw(image, scale, ratio) for _ in range(3000)])
    ours = RandomResizedCrop(8, scale=scale).boxes(20_000, height, width)
    assert torch.equal(ours, ours.round())
    top, left, h, w = ours.unbind(dim=1)
    assert min(top.min(), left.min()) >= 0
    assert (top + h).max() <= height
    assert (left + w).max() <= width
    quantiles = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    for one, other in zip(measures(ours, height, width).T, measures(theirs, height, width).T, strict=True):
        below = [(sample[:, None] <= other.quantile(quantiles)).double().mean(dim=0) for sample in (one, other)]
        assert (below[0] - below[1]).abs().max() < 0.04  # Kolmogorov-Smirnov: p < 0.001


def test_ranges_of_boxes():
    torch.manual_seed(0)
    boxes = RandomResizedCrop(8, scale=(0.2, 0.5), ratio=(0.5, 1)).boxes(5000, 400, 300)
    area, log_ratio, down, right = measures(boxes, 400, 300).T
    for values, low, high in [(area, 0.2, 0.5), (log_ratio.exp(), 0.5, 1), (down, 0, 1), (right, 0, 1)]:
        spread = high - low
        assert low - 0.01 <= values.min() < low + 0.03 * spread
        assert high - 0.03 * spread < values.max() <= high + 0.01


@pytest.mark.parametrize(("height", "width"), [(40, 100), (101, 40), (50, 60)])
def test_the_box_when_none_fits(height, width):
    transforms = pytest.importorskip("torchvision.transforms", reason="a comparison with torchvision")
    scale, ratio = (5.0, 6.0), (3 / 4, 4 / 3)
    expected = transforms.RandomResizedCrop.get_params(torch.empty(1, height, width), scale, ratio)
    assert RandomResizedCrop(8, scale, ratio).boxes(3, height, width).tolist() == [list(expected)] * 3


@pytest.mark.parametrize("shape", [(CHUNK + 2, 3, 30, 41), (2, 3, 3, 16, 15), (2, 3, 16, 9), (2, 1, 3, 8, 40)])
def test_resizing_is_torchvisions(shape):
    images = noise(*shape)
    got = Resize(16)(images)
    assert levels_apart(got, torchvision_functional().resize(images, [16, 16], antialias=True)) <= 1


def test_pictures_of_the_right_size_stay_as_they_are():
    images = noise(2, 3, 16, 16)
    assert Resize(16)(images) is images


# Spectrograms


def masks(count: int, frames: int, bins: int, **limits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What is hidden: (count, frames) and (count, bins)."""
    spectrograms = 1 + torch.rand(count, frames, bins)
    before = spectrograms.clone()
    augmented = SpecAugment(**limits)(spectrograms)
    assert torch.equal(spectrograms, before)  # not in place
    hidden = augmented == 0
    assert torch.equal(augmented[~hidden], before[~hidden])
    time, frequency = hidden.all(dim=2), hidden.all(dim=1)
    assert torch.equal(hidden, time[:, :, None] | frequency[:, None, :])
    return time, frequency


def test_one_span_of_frames_and_one_band_are_hidden():
    torch.manual_seed(0)
    for mask, limit in zip(masks(4000, 40, 20, time=8, frequency=5), (8, 5), strict=True):
        edges = mask.int().diff(dim=1, prepend=torch.zeros(4000, 1), append=torch.zeros(4000, 1))
        assert (edges == 1).sum(dim=1).max() == 1  # connected
        share = mask.sum(dim=1).bincount().double() / 4000
        assert len(share) == limit  # 0 to limit - 1
        assert (share - 1 / limit).abs().max() < 0.04
        single = mask[mask.sum(dim=1) == 1].double().mean(dim=0)  # where spans of length 1 lie
        assert not mask[:, -1].any()
        assert (single[:-1] - 1 / (mask.shape[1] - 1.5)).abs().max() < 0.05
        assert mask[:, :-1].any(dim=0).all()


def test_no_limit_hides_nothing_and_halves_stay_halves():
    time, frequency = masks(50, 10, 6, time=0, frequency=0)
    assert not time.any()
    assert not frequency.any()
    assert SpecAugment(time=2, frequency=2)(torch.ones(3, 10, 6, dtype=torch.float16)).dtype == torch.float16


@pytest.mark.parametrize("limits", [{"time": 11, "frequency": 2}, {"time": 2, "frequency": 7}])
def test_limits_beyond_the_spectrogram(limits):
    with pytest.raises(UsageError, match="the spectrograms have 10 frames and 6 bins; lower the limits"):
        SpecAugment(**limits)(torch.ones(3, 10, 6))
