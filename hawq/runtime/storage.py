"""Read the codes of a tensor out of the memory of a library."""

from collections.abc import Sequence

import numpy as np

__all__ = ["unpack"]


def unpack(stored: np.ndarray, shape: Sequence[int], *, signed: bool, packed: bool) -> np.ndarray:
    """Return the codes of a tensor as it lies in memory.

    Args:
        stored: (N, H, W, channels), or half the channels where two codes share a byte; channels beyond those of
            `shape` hold arbitrary codes.
        shape: of the codes of one image, (C, H, W) or (F,).
        signed: whether packed codes are.
        packed: two codes of at most 4 bits share a byte along the channels, the even channel in the low nibble.

    Returns:
        int32, (N, C, H, W) or (N, F).
    """
    codes = stored.astype(np.int32)
    if packed:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)
        codes = (codes ^ 8) - 8 if signed else codes
    nchw = np.ascontiguousarray(codes[..., : shape[0]].transpose(0, 3, 1, 2))
    return nchw.reshape(len(nchw), *shape)
