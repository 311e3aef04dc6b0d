"""Build the canonical graph from a trace: the registry of operations, and the state they write to.

An operation is a function with the arguments of the torch function it stands for, behind a `Builder`; it returns the
tensor it produces. Registering one is all it takes to support another op:

    @canonical(torch.relu, F.relu, "relu", "relu_")
    def relu(b: Builder, x: Ref, inplace: bool = False) -> Ref: ...
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn

from torch import Tensor, fx

from hawq.errors import HawqError
from hawq.graph.ir import BatchNorm, Flatten, FloatGraph, Input, Node, Op
from hawq.graph.site import Site
from hawq.outputs import LOGITS

__all__ = ["Builder", "Param", "Ref", "canonical", "supported"]


@dataclass(frozen=True)
class Ref:
    """Stand for a tensor of the traced program: the elements of one node, in order, under some shape.

    Attributes:
        node: name of the canonical node that holds the elements.
        shape: of the traced tensor, batch included; a view changes it and nothing else.
        storage: tensors with one number share memory, so an in-place op on one changes them all.
    """

    node: str
    shape: tuple[int, ...]
    storage: int


@dataclass(frozen=True)
class Param:
    """Stand for a parameter or buffer of the model, by its state-dict name."""

    name: str
    shape: tuple[int, ...]


Handler = Callable[..., Ref]
_HANDLERS: dict[Any, Handler] = {}


def canonical(*targets: Callable[..., Any] | str) -> Callable[[Handler], Handler]:
    """Register the canonical form of torch functions (callables), tensor methods (names), and functions of libraries
    that need not be imported (dotted paths)."""  # noqa: D205, D209

    def register(handler: Handler) -> Handler:
        for target in targets:
            _HANDLERS[target] = handler
        return handler

    return register


def supported() -> list[str]:
    """Return the names of the operations that can be traced."""
    return sorted({handler.__name__.strip("_") for handler in _HANDLERS.values()})


class Builder:
    """Hold the canonical graph while it grows, and the call that is being translated.

    Attributes:
        site: where the call stands.
        out_shape: shape of its result, batch included.
        keeps_type: whether its result has the type of the image.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._nodes: dict[str, Node] = {}
        self._flat: dict[str, str] = {}
        self._values: dict[fx.Node, Any] = {}
        self._owners: dict[str, Site] = {}
        self._storages = 0
        # weights keep their module path for their unit, whatever else that module does
        self._reserved = {unit_name(name) for name, tensor in tensors.items() if tensor.dim() > 1}
        self.site = Site("input", "", False, "")
        self.out_shape: tuple[int, ...] = ()
        self.keeps_type = True

    def build(self, trace: fx.Graph) -> FloatGraph:
        """Translate every call of a trace (see shaped_fx) in order.

        Raises:
            HawqError: a call has no canonical form.
        """
        image_type = next(iter(trace.nodes)).meta["val"].dtype
        for call in trace.nodes:
            self.site = call.meta["site"]
            self.out_shape = tuple(getattr(call.meta["val"], "shape", ()))
            self.keeps_type = getattr(call.meta["val"], "dtype", None) == image_type
            if call.op == "placeholder":
                self._values[call] = self._input()
            elif call.op == "get_attr":
                self._values[call] = Param(str(call.target), self.out_shape)
            elif call.op == "output":
                return FloatGraph(self._nodes, self._outputs(call.args[0]), self._tensors)
            else:
                self._values[call] = self._translate(call)
        raise HawqError("the model's forward returns nothing")

    def read(self, value: Any) -> str:
        """Return the node that holds exactly this tensor; a flattened one gets its Flatten here."""
        if not isinstance(value, Ref):
            what = f"the parameter {value.name!r}" if isinstance(value, Param) else repr(value)
            self.fail(f"reads {what} where an activation belongs")
        node = self._nodes[value.node]
        if value.shape[1:] == node.shape:
            return node.name
        if value.shape[1:] != (prod(node.shape),):
            self.fail(f"reads an activation of shape {node.shape} as {value.shape[1:]}; only a flatten can be traced")
        if node.name not in self._flat:
            here, self.site = self.site, replace(self.site, op="flatten", leaf=False)
            self._flat[node.name] = self.emit(Flatten(), (value,), shape=value.shape).node
            self.site = here
        return self._flat[node.name]

    def squeezed(self, value: Ref) -> Ref:
        """Return a map of one pixel, (N, C, 1, 1), in the shape of the node that holds it, (C, 1, 1) or (C,)."""
        return replace(value, shape=(value.shape[0], *self._nodes[value.node].shape))

    def shape(self, value: Any) -> tuple[int, ...]:
        """Return the shape of an activation, without the batch."""
        return self._nodes[self.read(value)].shape

    def emit(
        self, op: Op, inputs: tuple[Ref, ...], *, name: str | None = None, shape: tuple[int, ...] | None = None
    ) -> Ref:
        """Append a node.

        Args:
            op: what it does.
            inputs: the activations it reads.
            name: of a unit; other nodes are named after their module.
            shape: of the output, batch included; by default the shape of the traced call.
        """
        sources = tuple(self.read(value) if not isinstance(op, Flatten) else value.node for value in inputs)
        shape = shape if shape is not None else self.out_shape
        name = name if name is not None else self._name()
        self._nodes[name] = Node(name, op, sources, tuple(shape[1:]))
        return self.fresh(Ref(name, tuple(shape), 0))

    def fresh(self, value: Ref) -> Ref:
        """Return the same elements in memory of their own."""
        self._storages += 1
        return replace(value, storage=self._storages)

    def own(self, value: Any, role: str) -> str:
        """Return the name of a parameter that belongs to this call alone.

        Raises:
            HawqError: it is computed, or another call uses it too.
        """
        if not isinstance(value, Param):
            self.fail(f"its {role} is computed; it must be a parameter or buffer of the model itself")
        if value.name in self._owners:
            self.fail(
                f"its {role} {value.name!r} is used a second time (first by {self._owners[value.name]}); shared layers "
                "cannot be quantized, because each use needs its own scales: give every use its own module"
            )
        self._owners[value.name] = self.site
        return value.name

    def norm(self, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> BatchNorm:
        """Return the batch norm of these parameters, owned by this call."""
        return BatchNorm(
            weight=None if weight is None else self.own(weight, "weight"),
            bias=None if bias is None else self.own(bias, "bias"),
            mean=self.own(mean, "running mean"),
            var=self.own(var, "running variance"),
            eps=float(eps),
        )

    def fail(self, problem: str) -> NoReturn:
        """Raise HawqError for the current call."""
        raise HawqError(f"{self.site}: {problem}")

    def _input(self) -> Ref:
        return self.emit(Input(), (), name="input" if "input" not in self._reserved else "image")

    def _outputs(self, result: Any) -> dict[str, str]:
        """Return output name -> node of a tensor, or of tensors in tuples, lists and dictionaries."""
        found: dict[str, str] = {}
        for name, leaf in _leaves(result):
            value = self._values.get(leaf) if isinstance(leaf, fx.Node) else None
            if not isinstance(value, Ref):
                what = f" as its output {name!r}" if name else ""
                raise HawqError(
                    f"the model returns {type(leaf).__name__}{what}, not a tensor that it computed; wrap it in a "
                    "module that returns tensors, alone or in tuples, lists and dictionaries"
                )
            found[name or LOGITS] = self.read(value)
        if not found:
            raise HawqError("the model returns no tensor at all")
        return found

    def _translate(self, call: fx.Node) -> Any:
        handler = _HANDLERS.get(call.target) or _HANDLERS.get(_path(call.target))
        if handler is None:
            self.fail(
                f"this op is not supported; supported are {', '.join(supported())}. "
                "Replace it by these, or keep it outside the model"
            )
        args, kwargs = fx.node.map_aggregate(
            (call.args, call.kwargs), lambda leaf: self._values[leaf] if isinstance(leaf, fx.Node) else leaf
        )
        try:
            bound = inspect.signature(handler).bind(self, *args, **kwargs)
        except TypeError as error:
            self.fail(f"its arguments are not supported ({error})")
        result = handler(*bound.args, **bound.kwargs)
        if bound.arguments.get("inplace") or _is_inplace(call.target):
            self._overwrite(bound.args[1], result)
        return result

    def _overwrite(self, old: Any, new: Ref) -> None:
        """Let every tensor that shares memory with `old` see `new`: the op wrote in place."""
        for call, value in self._values.items():
            if isinstance(value, Ref) and isinstance(old, Ref) and value.storage == old.storage:
                self._values[call] = replace(value, node=new.node, storage=new.storage)

    def _name(self) -> str:
        stem = self.site.op.strip("_")
        base = self.site.path if self.site.leaf and self.site.path else ".".join(filter(None, (self.site.path, stem)))
        name, copy = base, 1
        while name in self._nodes or name in self._reserved:
            copy += 1
            name = f"{base}_{copy}"
        return name


def _leaves(result: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a model returns by its place: `out`, `0`, `boxes.2`."""
    if isinstance(result, Mapping | list | tuple):
        for name, value in result.items() if isinstance(result, Mapping) else enumerate(result):
            yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, result


def unit_name(parameter: str) -> str:
    """Return the unit a weight belongs to: its name without `.weight`."""
    return parameter.removesuffix(".weight")


def _path(target: Any) -> str:
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"


def _is_inplace(target: Any) -> bool:
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in {"iadd", "imul", "itruediv"}
