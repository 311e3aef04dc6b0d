"""Draw convolutions of every width, and of shapes that fill tiles raggedly."""

import torch
from kernel_runner import requantizing

from hawq.integer import TensorType
from hawq.integer import ops as o
from hawq.integer.geometry import pooled_size
from tvm_export.cuda.backend import CudaBackend
from tvm_export.definitions import Site


def generator(seed):
    return torch.Generator().manual_seed(seed)


def site_of(op, inputs, types, constants):
    """Return an op with the storage the CUDA backend gives its tensors."""
    backend = CudaBackend(["sm_80"])
    sources = tuple(backend.storage(kind, image=False) for kind in types)
    out = backend.storage(op.out, image=not types)
    return Site(op, sources, out, {name: tensor.numpy() for name, tensor in constants.items()}, len(inputs[0]))


# (input channels, output channels, (H, W), kernel, stride, padding, dilation)
SHAPES = {
    "image": (3, 33, (9, 14), (7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    "several tiles of channels": (20, 150, (3, 5), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "several chunks": (160, 24, (3, 5), (3, 1), (1, 1), (1, 1, 0, 0), (1, 1)),
    "several of all": (96, 72, (9, 17), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "asymmetric": (17, 19, (7, 8), (5, 3), (2, 1), (1, 3, 0, 2), (1, 2)),
    "strided": (48, 40, (9, 9), (3, 3), (1, 2), (1, 1, 1, 1), (1, 1)),
    "window beyond the map": (8, 8, (2, 2), (5, 5), (1, 1), (4, 4, 4, 4), (1, 1)),
}
# (bits, signed, zero point) of the input; most bits of the weights; (bits, signed) of the output
KINDS = {
    "u8 x s8 -> u8": ((8, False, 131), 8, (8, False)),
    "s8 x s8 -> s16": ((8, True, -7), 8, (16, True)),
    "u4 x s4 -> u4": ((4, False, 9), 4, (4, False)),
    "s4 x s4 -> s4": ((4, True, 3), 4, (4, True)),
    "u8 x s4 -> s8": ((8, False, 0), 4, (8, True)),
    "s8 x s3 -> u4": ((8, True, 0), 3, (4, False)),
    "u4 x s8 -> u8": ((4, False, 0), 8, (8, False)),
    "s4 x s8 -> sums": ((4, True, -8), 8, (32, True)),
    "u5 x s2 -> u3": ((5, False, 31), 2, (3, False)),
    "u2 x s6 -> s7": ((2, False, 1), 6, (7, True)),
}


def layer(shape, kind, fill=0):
    """Return a random convolution, its input codes, their type and its constants."""
    channels, outputs, size, kernel, stride, padding, dilation = SHAPES[shape]
    (bits, signed, zero), weight_bits, target = KINDS[kind]
    source = TensorType((channels, *size), bits, signed, 1.0, zero)
    low, high = source.range
    x = torch.randint(low, high + 1, (2, *source.shape), generator=generator(1), dtype=torch.int32)
    limit = 2 ** (weight_bits - 1) - 1
    weights = (outputs, channels, *kernel)
    weight = torch.randint(-limit, limit + 1, weights, generator=generator(2), dtype=torch.int8)
    constants = {"weight": weight, "bias": torch.randint(-99, 99, (outputs,), generator=generator(3)).int()}
    out = TensorType((outputs, *pooled_size(size, kernel, stride, padding, dilation)), *target)
    if out.bits < 32:
        spread = (high - low) / 3 * limit * weight[0].numel() ** 0.5
        constants |= requantizing(outputs, out.range[1] / spread)
    op = o.Conv2d(
        name="op", inputs=("x",), out=out, lo=out.range[0], hi=out.range[1], stride=stride, padding=padding,
        dilation=dilation, groups=1, fill=fill,
    )  # fmt: skip
    return op, [x], [source], constants
