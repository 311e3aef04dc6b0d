"""Integer programs written by hand, for what no float network lowers to yet."""

from collections.abc import Sequence

import torch

from hawq.integer import IntegerProgram, TensorType
from hawq.integer import ops as o
from hawq.outputs import LOGITS


def logits_of(ops: Sequence[o.Op], scale: torch.Tensor) -> dict[str, o.Output]:
    """Return the last op's tensor as the only output."""
    return {LOGITS: o.Output(ops[-1].name, scale)}


_SUMS = {"lo": -(2**31), "hi": 2**31 - 1}
_CONV = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), **_SUMS}


def binary_network() -> IntegerProgram:
    """Return a network of binary codes +-1 padded with +1: stem, depthwise layer, pooled sums, two bits, logits."""
    generator = torch.Generator().manual_seed(5)

    def accumulator(*shape: int) -> TensorType:
        return TensorType(shape, 32, True)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)

    binary, two_bits = TensorType((3, 6, 5), 2, True, 0.5), TensorType((3, 4, 2), 2, False, 0.25)
    ops = (
        o.QuantizeInput(name="image", inputs=(), out=TensorType((2, 6, 5), 8, True, 0.05), lo=-128, hi=127),
        o.Conv2d(name="stem", inputs=("image",), out=accumulator(3, 6, 5), groups=1, **_CONV),
        o.Threshold(name="sign", inputs=("stem",), out=binary),
        o.Conv2d(name="depthwise", inputs=("sign",), out=accumulator(3, 6, 5), groups=3, fill=1, **_CONV),
        o.Threshold(name="sign2", inputs=("depthwise",), out=binary),
        o.Conv2d(name="dense", inputs=("sign2",), out=accumulator(3, 6, 5), groups=1, fill=1, **_CONV),
        o.MaxPool2d(name="middle", inputs=("dense",), out=accumulator(3, 4, 2), kernel=(3, 3), stride=(2, 2),
                    padding=(1, 2, 0, 0), dilation=(1, 1)),
        o.Threshold(name="steps", inputs=("middle",), out=two_bits),
        o.Flatten(name="flat", inputs=("steps",), out=TensorType((24,), 2, False, 0.25)),
        o.Linear(name="logits", inputs=("flat",), out=accumulator(4), **_SUMS),
    )  # fmt: skip
    signs, cuts = torch.tensor([-1, 1], dtype=torch.int32), integers(-3, 9, 3, 3).sort(1).values
    tensors = {
        "stem.weight": integers(-127, 128, 3, 2, 3, 3).to(torch.int8),
        "stem.bias": integers(-999, 999, 3),
        "sign.threshold": integers(-999, 999, 3, 1),
        "sign.level": signs,
        "depthwise.weight": integers(0, 2, 3, 1, 3, 3).to(torch.int8) * 2 - 1,
        "depthwise.bias": integers(-1, 2, 3),
        "sign2.threshold": integers(-1, 2, 1, 1),
        "sign2.level": signs,
        "dense.weight": integers(0, 2, 3, 3, 3, 3).to(torch.int8) * 2 - 1,
        "dense.bias": integers(-1, 2, 3),
        "steps.threshold": cuts,
        "steps.level": torch.arange(4, dtype=torch.int32),
        "logits.weight": integers(-127, 128, 4, 24).to(torch.int8),
        "logits.bias": integers(-9, 9, 4),
    }
    return IntegerProgram("binary", "by hand", ops, tensors, logits_of(ops, torch.full((4,), 0.1)))
