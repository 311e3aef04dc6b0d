"""Cut images into the calls of a library."""

from collections.abc import Iterator

__all__ = ["calls"]


def calls(images: int, batch: int | None, most: int) -> Iterator[tuple[slice, int]]:
    """Return for every call the images that go into it, and how many must be added to fill it up.

    Args:
        images: how many there are.
        batch: images of every call, None for any number.
        most: images in one call.
    """
    for start in range(0, images, most):
        stop = min(start + most, images)
        yield slice(start, stop), 0 if batch is None else batch - (stop - start)
