"""A small network written as a float graph by hand, and the same network as plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hawq.graph import ir

SIZE = 6
CLASSES = 3


def build(seed: int = 0, channels: int = 4) -> ir.FloatGraph:
    """Two convolutions (the first with batch norm and ReLU), an addition, a lone batch norm, a linear layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "a.weight": normal(channels, 2, 3, 3) / 3,
        "b.weight": normal(channels, channels, 1, 1) / 2,
        "b.bias": normal(channels),
        "head.weight": normal(CLASSES, channels),
        "head.bias": normal(CLASSES),
    }
    for norm in ("n", "m"):
        tensors |= {f"{norm}.weight": 1 + normal(channels) / 4, f"{norm}.bias": normal(channels) / 4}
        tensors |= {f"{norm}.mean": normal(channels) / 4, f"{norm}.var": 1 + normal(channels).abs()}
    n, m = (ir.BatchNorm(f"{x}.weight", f"{x}.bias", f"{x}.mean", f"{x}.var", 1e-5) for x in ("n", "m"))
    relu, shape = ir.Clamp(0.0, None), (channels, SIZE, SIZE)
    nodes = [
        ir.Node("x", ir.Input(), (), (2, SIZE, SIZE)),
        ir.Node("a", ir.Conv2d("a.weight", None, (1, 1), (1, 1, 1, 1), (1, 1), 1, n, relu), ("x",), shape),
        ir.Node("b", ir.Conv2d("b.weight", "b.bias", (1, 1), (0, 0, 0, 0), (1, 1), 1), ("a",), shape),
        ir.Node("sum", ir.Add(), ("a", "b"), shape),
        ir.Node("norm", ir.Norm(m, relu), ("sum",), shape),
        ir.Node("pool", ir.AvgPool2d((SIZE, SIZE), (1, 1), (0, 0, 0, 0), SIZE * SIZE), ("norm",), (channels, 1, 1)),
        ir.Node("flat", ir.Flatten(), ("pool",), (channels,)),
        ir.Node("head", ir.Linear("head.weight", "head.bias"), ("flat",), (CLASSES,)),
    ]
    return ir.FloatGraph({node.name: node for node in nodes}, {"logits": "head"}, tensors)


def reference(tensors: dict[str, Tensor], image: Tensor) -> Tensor:
    """Return the logits, batch norms unfolded."""

    def norm(value: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (tensors[f"{name}.{field}"] for field in ("mean", "var", "weight", "bias"))
        return F.relu(F.batch_norm(value, mean, var, weight, bias))

    a = norm(F.conv2d(image, tensors["a.weight"], padding=1), "n")
    b = F.conv2d(a, tensors["b.weight"], tensors["b.bias"])
    pooled = norm(a + b, "m").mean((2, 3))
    return F.linear(pooled, tensors["head.weight"], tensors["head.bias"])


def batches(*sizes: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Return images and labels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 2, SIZE, SIZE, generator=generator),
            torch.randint(0, CLASSES, (size,), generator=generator),
        )
        for size in sizes
    ]
