"""Decode images and bring them to a network's size; training and deployed libraries do it by the same code."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hawq.errors import HawqError

__all__ = ["FILTERS", "decode_jpeg", "fitted", "open_image"]

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
    return _decode(path, str(path))


def decode_jpeg(source: object) -> Image.Image:
    """Decode the bytes of an image, a uint8 array.

    Raises:
        HawqError: they are cut off or no image.
    """
    data = np.asarray(source).tobytes()
    return _decode(io.BytesIO(data), f"an image of {len(data)} bytes")


def _decode(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        return Image.open(file).convert("RGB")
    except UnidentifiedImageError as error:  # its text holds an address, which differs from run to run
        raise HawqError(f"{name} is no image of a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, by format and damage
        raise HawqError(f"{name} cannot be decoded ({error}); replace it by a whole image file") from error
