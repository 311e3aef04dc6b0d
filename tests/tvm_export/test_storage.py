"""Codes come back from memory as they went in, for every width, sign, padding and packing."""

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import te

from hawq.integer import TensorType
from tvm_export.storage import Storage, round_up

BYTES = [((3, 2, 2), 1, False, "uint8"), ((5, 1, 3), 4, True, "int8"), ((2, 1, 1), 8, False, "uint8"),
         ((7,), 8, True, "int8"), ((3, 2, 1), 16, True, "int16"), ((4,), 16, False, "uint16"),
         ((10,), 32, True, "int32")]  # fmt: skip


def copied(source: Storage, out: Storage, stored: np.ndarray) -> torch.Tensor:
    """Compile a kernel that reads every code through one storage and writes it through another."""
    x = source.placeholder(len(stored), "x")
    last = source.channels - 1
    y = out.write(len(stored), lambda n, h, w, c: source.read(x, n, h, w, tvm.tirx.min(c, last)))
    built = tvm.compile(te.create_prim_func([x, y]), target="llvm")
    result = tvm.runtime.tensor(np.zeros(out.shape(len(stored)), out.dtype))
    built["main"](tvm.runtime.tensor(stored), result)
    return out.unpack(torch.from_numpy(result.numpy()))


@pytest.mark.parametrize(("shape", "bits", "signed", "dtype"), BYTES)
def test_codes_lie_as_channels_last_words(shape, bits, signed, dtype):
    kind = TensorType(shape, bits, signed)
    source = Storage(kind, round_up(shape[0], 16))
    assert source.dtype == dtype
    assert source.shape(2) == (2, *(shape[1:] or (1, 1)), 16)
    lo, hi = kind.range
    codes = torch.randint(lo, hi, (2, *shape), generator=torch.Generator().manual_seed(0)).int()
    codes[0].view(-1)[:2] = torch.tensor([lo, hi])
    stored = np.zeros(source.shape(2), dtype)
    stored[..., : shape[0]] = codes.view(2, *source.chw).permute(0, 2, 3, 1).numpy()
    assert torch.equal(source.unpack(torch.from_numpy(stored)), codes)
    assert torch.equal(copied(source, Storage(kind, shape[0]), stored), codes)


@pytest.mark.parametrize(("bits", "signed"), [(4, False), (4, True), (2, True), (3, False)])
def test_nibbles_lie_low_first(bits, signed):
    kind = TensorType((3, 1, 1), bits, signed)
    lo, hi = kind.range
    codes = torch.tensor([lo, hi, 1], dtype=torch.int32).view(1, 3, 1, 1)
    plain, packed = Storage(kind, 4), Storage(kind, 4, packed=True)
    assert (packed.dtype, packed.shape(1)) == ("uint8", (1, 1, 1, 2))
    stored = np.array([lo & 15 | (hi & 15) << 4, 1], np.uint8).reshape(1, 1, 1, 2)
    assert torch.equal(packed.unpack(torch.from_numpy(stored)), codes)
    assert torch.equal(copied(packed, plain, stored), codes)
    unpacked = np.array([lo, hi, 1, 0], plain.dtype).reshape(1, 1, 1, 4)
    assert torch.equal(copied(plain, packed, unpacked), codes)


@given(st.integers(1, 10**6), st.integers(1, 256))
def test_rounding_up_reaches_the_next_multiple(value, multiple):
    rounded = round_up(value, multiple)
    assert rounded % multiple == 0
    assert value <= rounded < value + multiple
