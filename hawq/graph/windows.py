"""Make the windows of PyTorch's pools explicit: padding that covers ceil_mode, and the divisor of every window."""

from collections.abc import Sequence
from math import prod

from hawq.integer.geometry import Padding, Pair

__all__ = ["average_counts", "even_window", "explicit_padding", "pair"]


def pair(value: int | Sequence[int]) -> Pair:
    """Return (rows, columns) of an argument that is one number for both or a sequence.

    >>> pair(3), pair([1, 2]), pair((5,))
    ((3, 3), (1, 2), (5, 5))
    """
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def explicit_padding(size: Pair, out: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Padding:
    """Return the (top, bottom, left, right) with which rounding down gives `out` windows.

    With ceil_mode a last window may start inside the map and end behind its padding: the padding grows to its end.

    Args:
        size: (H, W) of the input.
        out: (OH, OW) as PyTorch computed them.
        kernel: (KH, KW).
        stride: (SH, SW).
        padding: (PH, PW), the same on both sides.
        dilation: (DH, DW).
    """
    after = [
        max(padding[a], (out[a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 - size[a] - padding[a])
        for a in (0, 1)
    ]
    return padding[0], after[0], padding[1], after[1]


def average_counts(
    size: Pair, out: Pair, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> int | tuple[tuple[int, ...], ...]:
    """Return PyTorch's divisor of every average window; one number where all are equal.

    A window is cut at the map's own padding (what ceil_mode adds behind it is never counted), and at the map itself
    without `count_include_pad`. Arguments as in `explicit_padding`.
    """
    spans = []
    for a in (0, 1):
        starts = [index * stride[a] - padding[a] for index in range(out[a])]
        ends = [min(start + kernel[a], size[a] + padding[a]) for start in starts]
        if not count_include_pad:
            starts, ends = [max(start, 0) for start in starts], [min(end, size[a]) for end in ends]
        spans.append([end - start for start, end in zip(starts, ends, strict=True)])
    rows = tuple(tuple(height * width for width in spans[1]) for height in spans[0])
    different = {count for row in rows for count in row}
    return different.pop() if len(different) == 1 else rows


def even_window(size: Pair, out: Pair) -> Pair | None:
    """Return the window, and stride, of an adaptive pool whose windows tile the map; None if they overlap."""
    fits = prod(out) > 0 and all(s % o == 0 for s, o in zip(size, out, strict=True))
    return (size[0] // out[0], size[1] // out[1]) if fits else None
