"""Say what a target decides: storage, schedules, and how its code is compiled."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import tvm

from hawq.errors import UsageError
from hawq.integer import TensorType
from hawq.integer.ops import Op
from tvm_export.definitions import Site
from tvm_export.link import CompiledNetwork, Workshop
from tvm_export.plans import Plan
from tvm_export.storage import Storage

__all__ = ["BACKENDS", "Backend", "Kernel", "backend", "register_backend"]


class Kernel(Protocol):
    """A kernel ready to be called: the function and the constants behind its activations, before its outputs."""

    function: Any
    constants: tuple[Any, ...]


class Backend(Protocol):
    """Everything in which targets differ.

    Attributes:
        device: cpu or cuda.
        takes_any_batch: whether its kernels may leave the number of images to the call.
    """

    device: str
    takes_any_batch: bool

    def storage(self, kind: TensorType, *, image: bool) -> Storage:
        """Return how a tensor is stored; `image` marks the quantized input."""

    def followers(self, site: Site) -> tuple[type[Op], ...]:
        """Return the kinds of ops that the kernel of an op may compute behind it."""

    def plans(self, site: Site) -> Sequence[Plan]:
        """Return the ways to compute a site, the default first; none where there is nothing to choose."""

    def kernel(self, site: Site) -> Kernel:
        """Return the scheduled kernel of an op and its followers, by the site's plan where it has one."""

    def compile(self, module: tvm.IRModule, workshop: Workshop) -> CompiledNetwork:
        """Compile a lowered network."""

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says about the target and the code compiled last."""


_Factory = Callable[..., Backend]
BACKENDS: dict[str, _Factory] = {}
"""Factories by target name; each takes the options of its target."""

_FactoryT = TypeVar("_FactoryT", bound=_Factory)


def register_backend(target: str) -> Callable[[_FactoryT], _FactoryT]:
    """Register a backend class under the name `--target` takes."""

    def register(factory: _FactoryT) -> _FactoryT:
        BACKENDS[target] = factory
        return factory

    return register


def backend(target: str, **options: Any) -> Backend:
    """Return the backend of a target.

    Raises:
        UsageError: no such target, or it has no such option.
    """
    if target not in BACKENDS:
        raise UsageError(f"unknown target {target!r}; known: {', '.join(sorted(BACKENDS))}")
    given = {name: value for name, value in options.items() if value is not None}
    stray = sorted(set(given) - set(inspect.signature(BACKENDS[target]).parameters))
    if stray:
        raise UsageError(f"target {target} has no option {', '.join(stray)}")
    return BACKENDS[target](**given)
