"""Variation of training images, against slow crops of the padded image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from hawq.data import Preprocessing
from hawq.data.splits import Augment, FileSplit, MemorySplit

SEEDS = torch.randint(0, 2**62, (2000,), generator=torch.Generator().manual_seed(0))


def _crops(image, reach, mirrored):
    """Return every crop the variation may give, with its place."""
    size, padded = image.shape[-1], F.pad(image, (reach,) * 4)
    found = {}
    for flip in (False, True) if mirrored else (False,):
        for dy in range(2 * reach + 1):
            for dx in range(2 * reach + 1):
                crop = padded[:, dy : dy + size, dx : dx + size]
                found[(crop.flip(2) if flip else crop).contiguous().numpy().tobytes()] = (dy, dx, flip)
    return found


@pytest.fixture(scope="module")
def image():
    return torch.randint(1, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("augment", "reach", "mirrored"), [(Augment.SHIFT, 2, False), (Augment.CROP_FLIP, 4, True)], ids=str
)
def test_images_in_memory_become_every_crop_and_nothing_else(image, augment, reach, mirrored):
    split = MemorySplit(image[None], torch.zeros(1, dtype=torch.int64))
    allowed = _crops(image, reach, mirrored)
    varied = split.pixels(torch.zeros(len(SEEDS), dtype=torch.int64), augment, SEEDS)
    places = [allowed[pixels.contiguous().numpy().tobytes()] for pixels in varied]  # KeyError: no such crop
    assert set(places) == set(allowed.values())  # rows, columns and mirroring are drawn apart
    share = sum(flip for _, _, flip in places) / len(places)
    # 2,000 fair draws: 0.5 with a standard deviation of 0.011; the seeds are fixed
    assert 0.45 < share < 0.55 if mirrored else share == 0


def test_no_variation_gives_the_images(image):
    split = MemorySplit(torch.stack([image, image.flip(1)]), torch.arange(2))
    assert torch.equal(split.pixels(torch.tensor([1, 0]), Augment.NONE, SEEDS[:2]), split.images.flip(0))


@pytest.fixture(scope="module")
def files():
    """One image, 48 x 60, whose red channel rises to the right, read through a FileSplit of 24 pixels."""
    columns = np.arange(60, dtype=np.uint8) * 4
    pixels = np.zeros((48, 60, 3), np.uint8)
    pixels[..., 0] = columns
    preprocessing = Preprocessing(24, 32, (0.5,) * 3, (0.5,) * 3)
    return FileSplit([pixels], lambda source: Image.fromarray(source), torch.zeros(1, dtype=torch.int64), preprocessing)


def test_random_crops_of_files_have_the_size_and_both_directions(files):
    varied = files.pixels(torch.zeros(60, dtype=torch.int64), Augment.RESIZED_CROP_FLIP, SEEDS[:60])
    assert (varied.shape, varied.dtype) == ((60, 3, 24, 24), torch.uint8)
    rising = (varied[:, 0, 0, -1] > varied[:, 0, 0, 0]).sum()
    assert 15 < int(rising) < 45  # half are mirrored
    spans = varied[:, 0].amax((1, 2)).int() - varied[:, 0].amin((1, 2)).int()
    assert int(spans.max()) > 2 * int(spans.min())  # small crops and large ones


def test_the_same_seed_gives_the_same_crop(files):
    indices = torch.zeros(5, dtype=torch.int64)
    one, other = (files.pixels(indices, Augment.RESIZED_CROP_FLIP, SEEDS[:5]) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(files.pixels(indices[:1], Augment.RESIZED_CROP_FLIP, SEEDS[3:4])[0], one[3])


def test_test_images_are_resized_and_cropped_in_the_centre(files):
    found = files.pixels(torch.zeros(1, dtype=torch.int64), Augment.NONE, SEEDS[:1])[0]
    resized = Image.fromarray(files.sources[0]).resize((40, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[4:28, 8:32]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_decoding_once_gives_the_same_pixels(files):
    kept = files.in_memory()
    assert torch.equal(kept.images, files.pixels(torch.arange(1), Augment.NONE, SEEDS[:1]))
    assert torch.equal(kept.labels, files.labels)
