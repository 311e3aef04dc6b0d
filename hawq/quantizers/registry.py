"""Know every quantizer by name: one decorated class in one file is all it takes to add another."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from hawq.errors import UsageError

if TYPE_CHECKING:
    from hawq.quantizers.activation import ActivationQuantizer
    from hawq.quantizers.weight import WeightQuantizer

__all__ = [
    "ACTIVATION_QUANTIZERS",
    "WEIGHT_QUANTIZERS",
    "activation_quantizer",
    "register_activation",
    "register_weight",
    "weight_quantizer",
]

_W = TypeVar("_W", bound="type[WeightQuantizer]")
_A = TypeVar("_A", bound="type[ActivationQuantizer]")
_T = TypeVar("_T")

WEIGHT_QUANTIZERS: "dict[str, type[WeightQuantizer]]" = {}
"""Classes of weight quantizers by name."""

ACTIVATION_QUANTIZERS: "dict[str, type[ActivationQuantizer]]" = {}
"""Classes of activation quantizers by name."""


def register_weight(name: str) -> Callable[[_W], _W]:
    """Register a class under the name that `--weight-quantizer` takes."""

    def register(cls: _W) -> _W:
        WEIGHT_QUANTIZERS[name] = cls
        return cls

    return register


def register_activation(name: str) -> Callable[[_A], _A]:
    """Register a class under the name that `--act-quantizer` takes."""

    def register(cls: _A) -> _A:
        ACTIVATION_QUANTIZERS[name] = cls
        return cls

    return register


def weight_quantizer(name: str) -> "type[WeightQuantizer]":
    """Return the class of a weight quantizer.

    Raises:
        UsageError: no such name.
    """
    return _find(WEIGHT_QUANTIZERS, name, "weight")


def activation_quantizer(name: str) -> "type[ActivationQuantizer]":
    """Return the class of an activation quantizer.

    Raises:
        UsageError: no such name.
    """
    return _find(ACTIVATION_QUANTIZERS, name, "activation")


def _find(known: dict[str, _T], name: str, kind: str) -> _T:
    if name not in known:
        raise UsageError(f"{kind} quantizer {name!r} does not exist; there are {', '.join(sorted(known))}")
    return known[name]
