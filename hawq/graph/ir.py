"""Define the canonical float graph: what every traceable CNN becomes before anything is quantized.

A node produces one tensor, which carries the node's name. Nodes of type Conv2d and Linear are the *units*: batch norm
and clamp are already inside them, and the node's name is the unit's name (its module path).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor

from hawq.graph.curves import Curve
from hawq.integer.geometry import Padding, Pair
from hawq.outputs import only

__all__ = [
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "Clamp",
    "Concat",
    "Conv2d",
    "Flatten",
    "FloatGraph",
    "Input",
    "Linear",
    "MaxPool2d",
    "Mul",
    "Node",
    "Norm",
    "Op",
    "Relu",
    "Resize",
    "Unary",
]


@dataclass(frozen=True)
class Clamp:
    """An activation that is a clamp: ReLU is (0, None), ReLU6 is (0, 6)."""

    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class BatchNorm:
    """Normalise per channel: y = (x - mean) / sqrt(var + eps) * weight + bias. Fields name tensors of the graph.

    `weight` and `bias` are None for a layer without affine parameters.
    """

    weight: str | None
    bias: str | None
    mean: str
    var: str
    eps: float


@dataclass(frozen=True)
class Op:
    """Base of the canonical operations."""


@dataclass(frozen=True)
class Input(Op):
    """The image, (C, H, W)."""


@dataclass(frozen=True)
class Conv2d(Op):
    """A unit: convolution, then `norm`, then `clamp`, then `limit`.

    `weight`, `bias` and `limit` name tensors; padding (top, bottom, left, right) is filled with zeros. A limit is the
    highest value of each channel, (O,): a ReLU6 whose channels were scaled one by one.
    """

    weight: str
    bias: str | None
    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    norm: BatchNorm | None = None
    clamp: Clamp | None = None
    limit: str | None = None


@dataclass(frozen=True)
class Linear(Op):
    """A unit: y = x W^T + b over (F,), then `norm`, then `clamp`, then `limit`, as of Conv2d."""

    weight: str
    bias: str | None
    norm: BatchNorm | None = None
    clamp: Clamp | None = None
    limit: str | None = None


@dataclass(frozen=True)
class Norm(Op):
    """A batch norm with no convolution in front (DenseNet), then `clamp`. No unit: it has no searchable bits."""

    norm: BatchNorm
    clamp: Clamp | None = None


@dataclass(frozen=True)
class Relu(Op):
    """A clamp that could not be fused into the node before it."""

    clamp: Clamp


@dataclass(frozen=True)
class Add(Op):
    """Sum of two tensors of equal shape, then `clamp`."""

    clamp: Clamp | None = None


@dataclass(frozen=True)
class Mul(Op):
    """Product of two tensors of equal shape, or of (C, H, W) and one number a channel, (C, 1, 1) or (C,); then `clamp`.

    Squeeze-and-excitation (arXiv 1709.01507) scales channels by it.
    """

    clamp: Clamp | None = None


@dataclass(frozen=True)
class Unary(Op):
    """A smooth activation function of every number."""

    curve: Curve


@dataclass(frozen=True)
class Concat(Op):
    """Concatenation along the channels."""


@dataclass(frozen=True)
class MaxPool2d(Op):
    """Maximum over windows; ceil_mode is already part of the padding (top, bottom, left, right), which never wins."""

    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair


@dataclass(frozen=True)
class AvgPool2d(Op):
    """Mean over windows; adaptive and spatial means are a window of the whole map.

    `counts` is the divisor of each window as the float layer uses it: a single number, or OH rows of OW numbers where
    padding is left out of the count.
    """

    kernel: Pair
    stride: Pair
    padding: Padding
    counts: int | tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Resize(Op):
    """The map between its own rows and columns: linear between the four neighbours of every new pixel.

    `rows` and `columns` say where those of the output lie in the input: 0 <= position <= size - 1.
    """

    rows: tuple[float, ...]
    columns: tuple[float, ...]

    @property
    def moves(self) -> bool:
        """Whether every new pixel is one of the old ones: nearest up-sampling, or the spreading of a single pixel."""
        return all(position.is_integer() for position in (*self.rows, *self.columns))


@dataclass(frozen=True)
class Flatten(Op):
    """(C, H, W) -> (C*H*W,)."""


@dataclass(frozen=True)
class Node:
    """One operation of the graph.

    Attributes:
        name: of the node and of the tensor it produces; for units the module path.
        op: what it does.
        inputs: names of the nodes it reads.
        shape: of its output, without the batch dimension.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FloatGraph:
    """Hold the nodes of a network in execution order, and the tensors they name.

    Attributes:
        nodes: name -> node; the first is the Input.
        outputs: what the network returns -> name of the node that produces it; a single result is called `logits`.
        tensors: parameters and buffers of the traced model by their state-dict names (shared, not copied).
        rewrites: names of what was done to the nodes since tracing, in this order (`hawq.qat.rewrites`).
    """

    nodes: Mapping[str, Node]
    outputs: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    rewrites: tuple[str, ...] = ()

    @property
    def input(self) -> Node:
        """The image."""
        return next(iter(self.nodes.values()))

    @property
    def output(self) -> str:
        """Name of the node that produces the only output.

        Raises:
            HawqError: there are several.
        """
        return only(self.outputs, "this needs a network with one output")

    @property
    def units(self) -> dict[str, Node]:
        """The convolutions and linear layers by name: the things that get a bit width."""
        return {name: node for name, node in self.nodes.items() if isinstance(node.op, Conv2d | Linear)}

    def unit(self, name: str) -> Conv2d | Linear:
        """Return what a unit does."""
        op = self.nodes[name].op
        if not isinstance(op, Conv2d | Linear):
            raise TypeError(f"{name} is no unit")
        return op

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read the tensor `name`."""
        return [node for node in self.nodes.values() if name in node.inputs]

    def dies_after(self) -> dict[str, list[str]]:
        """Return, by node, the tensors that it is the last to read; what the network returns never dies."""
        last = {name: node.name for node in self.nodes.values() for name in node.inputs}
        kept = set(self.outputs.values())
        return {
            node.name: [n for n in dict.fromkeys(node.inputs) if last[n] == node.name and n not in kept]
            for node in self.nodes.values()
        }

    def weights(self, unit: str) -> int:
        """Return the number of weights of a unit, bias not counted."""
        return self.tensors[self.units[unit].op.weight].numel()  # type: ignore[attr-defined]

    def weight_shape(self, unit: str) -> tuple[int, ...]:
        """Return the shape of the weights of a unit: (O, I/groups, KH, KW) or (O, F)."""
        return tuple(self.tensors[self.units[unit].op.weight].shape)  # type: ignore[attr-defined]

    def macs(self, unit: str) -> int:
        """Return the multiply-accumulates of a unit for one image: (weights per output value) * (output values)."""
        node = self.units[unit]
        weight = self.tensors[node.op.weight]  # type: ignore[attr-defined]
        return weight[0].numel() * prod(node.shape)
