"""Trace a model with torch.fx down to functional calls, with concrete shapes.

No module is a leaf, so the module form and the functional form of an op leave the same trace, and forward hooks are
traced through. Every call is evaluated on the meta device as it is recorded: sizes are numbers, and Python code that
computes with them (TensorFlow's SAME padding, `x.view(x.size(0), -1)`, shape checks) simply runs.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from hawq.errors import HawqError
from hawq.graph.site import Site

__all__ = ["BATCH", "ShapedTracer"]

BATCH = 2
"""Images in the traced batch: more than 1, so that a flatten that swallows the batch shows."""

_TORCH = str(Path(torch.__file__).parent)
_MODULES = str(Path(torch.nn.__file__).parent / "modules")
_HERE = __file__


class ShapedProxy(fx.Proxy):
    """Stand for a tensor whose shape and type are known and whose values are not."""

    @property
    def value(self) -> Any:
        """The result on the meta device: a tensor, or a tuple of tensors."""
        return self.node.meta["val"]

    def __getattr__(self, name: str) -> Any:
        """Record a method or attribute; one that needs no values (`shape`, `size()`, `dtype`) answers at once."""
        attribute = getattr(self.value, name)  # AttributeError as the tensor itself would raise it
        if callable(attribute):
            return lambda *args, **kwargs: self.tracer.create_proxy("call_method", name, (self, *args), kwargs)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self.value)))

    def __bool__(self) -> bool:
        self.tracer.refuse_values("bool()")

    def __int__(self) -> int:
        self.tracer.refuse_values("int()")

    def __float__(self) -> float:
        self.tracer.refuse_values("float()")

    def __index__(self) -> int:
        self.tracer.refuse_values("an index")


class ShapedTracer(fx.Tracer):
    """Record the calls of a model on `BATCH` images of one shape.

    Every node of the graph carries `meta["val"]` (result on the meta device) and `meta["site"]` (where it stands).
    """

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self._input_shape = input_shape
        self._modules: list[tuple[str, nn.Module]] = []
        self._names: dict[int, str] = {}
        self._dtype = torch.float32

    def trace(self, root: nn.Module) -> fx.Graph:  # type: ignore[override]  # one image is the only argument
        """Return the graph of `root` on an image batch (BATCH, C, H, W).

        Args:
            root: the model, in evaluation mode.

        Raises:
            HawqError: the model cannot run on the shape, or decides by the values of a tensor.
        """
        state = [*root.named_parameters(), *root.named_buffers()]
        self._names = {id(tensor): name for name, tensor in state}
        self._dtype = next((tensor.dtype for _, tensor in state if tensor.is_floating_point()), torch.float32)
        try:
            return super().trace(root)
        except HawqError:
            raise
        except Exception as error:
            raise HawqError(
                f"the model cannot be traced on an image of shape {self._input_shape}: {type(error).__name__}: {error} "
                f"({_last_line_of_model(error)}); it must run on one image batch (N, C, H, W) and return the logits"
            ) from error

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Call the root like any module, so that its own hooks run, with the image as its only argument."""
        return _call_root, [self.root, self.create_proxy("placeholder", "image", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Trace through every module."""
        return False

    def path_of_module(self, mod: nn.Module) -> str:
        """Return the module's path; one made on the fly (`nn.ReLU()(x)`) stands where it is called."""
        path = (self.submodule_paths or {}).get(mod)
        return str(path) if path is not None else (self._modules[-1][0] if self._modules else "")

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Trace through `m`, remembering its path."""
        self._modules.append((self.path_of_module(m), m))
        try:
            return forward(*args, **kwargs)
        finally:
            self._modules.pop()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Record the reading of a parameter or buffer."""
        name = self._names.get(id(attr_val)) if isinstance(attr_val, Tensor) else None
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        """Refuse tensors that are neither parameters nor buffers: nothing could quantize them."""
        if isinstance(a, Tensor):
            name = self._names.get(id(a))
            if name is None:
                raise HawqError(
                    f"{self._site('a tensor constant')}: a tensor of shape {tuple(a.shape)} is used that is neither "
                    "a parameter nor a buffer of the model; register it (nn.Parameter, register_buffer), also when its "
                    "module is kept in a plain list (use nn.ModuleList)"
                )
            return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> fx.Node:
        """Record a node with its result on the meta device and its site."""
        node = super().create_node(kind, target, args, kwargs, *rest, **named)
        op = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        node.meta["site"] = self._site(op)
        node.meta["val"] = self._evaluate(node)
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        """Record a call; a result without tensors (a size, a type) is returned as it is and leaves no node."""
        node = self.create_node(kind, target, self.create_arg(args), self.create_arg(kwargs))
        value = node.meta["val"]
        if isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value)):
            return ShapedProxy(node, self)
        self.graph.erase_node(node)
        return value

    def refuse_values(self, use: str) -> NoReturn:
        """Raise: the model's Python code asks for the values of a tensor."""
        raise HawqError(
            f"{self._site(use)}: the model's control flow depends on the values of a tensor, so its graph differs "
            "between images; decide by shapes or attributes instead, or keep this part outside the model"
        )

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return torch.empty((BATCH, *self._input_shape), dtype=self._dtype, device="meta")
        if node.op == "get_attr":
            return torch.empty_like(_fetch(self.root, str(node.target)), device="meta")
        if node.op == "output":
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
        if node.target in ("item", "tolist", "nonzero", "numpy"):
            self.refuse_values(f"{node.target}()")
        try:
            with torch.no_grad():
                if node.op == "call_method":
                    return getattr(args[0], str(node.target))(*args[1:], **kwargs)
                return node.target(*args, **kwargs)  # type: ignore[operator]  # call_function: a callable
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            shapes = [tuple(value.shape) for value in args if isinstance(value, Tensor)]
            raise HawqError(
                f"{node.meta['site']}: fails on an image of shape {self._input_shape}, with operands of shapes "
                f"{shapes}: {reason}; check the input size and channels of the model"
            ) from error

    def _site(self, op: str) -> Site:
        path, module = self._modules[-1] if self._modules else ("", self.root)
        return Site(op, path, not module._modules, _source())


def _call_root(root: nn.Module, image: fx.Proxy) -> Any:
    return root(image)


def _fetch(root: nn.Module, name: str) -> Tensor:
    *path, attribute = name.split(".")
    module = root
    for step in path:
        module = module._modules[step]  # type: ignore[assignment]  # named_parameters found it there
    tensor = module._parameters.get(attribute)
    return tensor if tensor is not None else module._buffers[attribute]  # type: ignore[return-value]


_BOUNDARY: CodeType = _call_root.__code__


def _source() -> str:
    """Return `file:line` of the innermost frame in the model's code, or in torch.nn where the model has none."""
    fallback = "no source"
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _BOUNDARY:
        file = frame.f_code.co_filename
        if file != _HERE and not file.startswith((_TORCH, "<")):
            return f"{file}:{frame.f_lineno}"
        if fallback == "no source" and file.startswith(_MODULES):
            fallback = f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return fallback


def _last_line_of_model(error: Exception) -> str:
    """Return `file:line` of the innermost frame of the traceback that is the model's code."""
    found, step = "no source", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if file != _HERE and not file.startswith((_TORCH, "<")):
            found = f"{file}:{step.tb_lineno}"
        step = step.tb_next
    return found
