"""Compute the sizes of convolution and pooling windows once, for the graph, the program and every backend."""

__all__ = ["Padding", "Pair", "pooled_size"]

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
"""(top, bottom, left, right)."""


def pooled_size(size: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Pair:
    """Return (OH, OW) = floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1.

    Args:
        size: (H, W).
        kernel: (KH, KW).
        stride: (SH, SW).
        padding: (top, bottom, left, right).
        dilation: (DH, DW).
    """
    top, bottom, left, right = padding
    height = (size[0] + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    width = (size[1] + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    return height, width
