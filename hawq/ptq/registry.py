"""Know every post-training method by name: one decorated function in one file is all it takes to add another."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from hawq.errors import UsageError

if TYPE_CHECKING:
    from hawq.ptq.workbench import Workbench

__all__ = ["METHODS", "PRESETS", "Method", "Stage", "parse_methods", "register_method"]


class Stage(IntEnum):
    """What a method works on, in the only order that makes sense."""

    FLOAT = 1
    """The float network, before anything is quantized."""
    RULES = 2
    """The choice of quantizers: by which rule ranges are found."""
    MODEL = 3
    """The quantized model, its ranges found."""


_Apply = Callable[["Workbench"], None]


@dataclass(frozen=True)
class Method:
    """One post-training method.

    Attributes:
        name: that `--method` takes.
        stage: what it works on.
        apply: changes the workbench.
        needs_images: whether it cannot work from statistics alone.
        summary: one line for the help.
    """

    name: str
    stage: Stage
    apply: _Apply
    needs_images: bool
    summary: str


METHODS: dict[str, Method] = {}
"""Methods by name."""

PRESETS: dict[str, tuple[str, ...]] = {
    "naive": ("minmax",),
    "naive16": ("minmax", "simulate-16"),
    "learned": ("mse", "brecq"),
    "dfq": ("limits", "equalize", "absorb", "bias-correction"),
    "aciq": ("laplace-acts", "allocate-bits", "weight-variance", "weight-mean"),
    "quick": ("laplace-acts", "allocate-bits", "squant", "bias-correction-data"),
}
"""Methods that are used together, by a name that `--method` takes as well."""


def register_method(name: str, stage: Stage, *, needs_images: bool = False) -> Callable[[_Apply], _Apply]:
    """Register a function as a method; the first line of its docstring is its summary."""

    def register(apply: _Apply) -> _Apply:
        METHODS[name] = Method(name, stage, apply, needs_images, (apply.__doc__ or "").partition("\n")[0])
        return apply

    return register


def parse_methods(text: str) -> tuple[Method, ...]:
    """Return the methods that `--method` names, presets replaced by what they stand for, in the order of use.

    What changes the float network comes first, then rules, then what corrects the quantized model; within a stage the
    given order stays.

    Args:
        text: names separated by commas.

    Raises:
        UsageError: an unknown name, or one named twice.
    """
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name not in METHODS and name not in PRESETS:
            raise UsageError(
                f"--method {name!r} does not exist; methods: {', '.join(sorted(METHODS))}; presets: "
                + ", ".join(sorted(PRESETS))
            )
        names += PRESETS.get(name, (name,))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"--method names {', '.join(twice)} more than once")
    return tuple(sorted((METHODS[name] for name in names), key=lambda method: method.stage))
