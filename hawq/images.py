"""Decode images and bring them to a network's size; training and deployed libraries do it by the same code."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hawq.errors import HawqError

__all__ = ["FILTERS", "decode_jpeg", "fitted", "open_image", "open_mask"]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Pillow's interpolations by name."""


def fitted(image: Image.Image, size: int, resize: int | None, interpolation: str) -> Image.Image:
    """Return a square image.

    Args:
        image: of any size.
        size: of the result, pixels.
        resize: length of the shorter side before the centre crop; None to resize to the square at once.
        interpolation: a name in `FILTERS`.
    """
    method = FILTERS[interpolation]
    if resize is None:
        return image if image.size == (size, size) else image.resize((size, size), method)
    ratio = resize / min(image.size)
    image = image.resize((max(resize, round(image.width * ratio)), max(resize, round(image.height * ratio))), method)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def open_image(source: object) -> Image.Image:
    """Decode an image file.

    Raises:
        HawqError: it is missing or no image.
    """
    path = Path(str(source))
    with _named(str(path)):
        return Image.open(path).convert("RGB")


def open_mask(path: Path) -> Image.Image:
    """Decode a file whose pixels are class indices, whatever colours its palette gives them.

    Raises:
        HawqError: it is missing, no image, or one of colours.
    """
    with _named(str(path)):
        image = Image.open(path)
        image.load()
    if image.mode not in ("L", "P"):
        raise HawqError(
            f"{path} is an image of colours ({image.mode}); a mask has one byte a pixel, the index of its class"
        )
    return image


def decode_jpeg(source: object) -> Image.Image:
    """Decode the bytes of an image, a uint8 array.

    Raises:
        HawqError: they are cut off or no image.
    """
    data = np.asarray(source).tobytes()
    with _named(f"an image of {len(data)} bytes"):
        return Image.open(io.BytesIO(data)).convert("RGB")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn Pillow's errors into one that names the image."""
    try:
        yield
    except UnidentifiedImageError as error:  # its text holds an address, which differs from run to run
        raise HawqError(f"{name} is no image of a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, by format and damage
        raise HawqError(f"{name} cannot be decoded ({error}); replace it by a whole image file") from error
