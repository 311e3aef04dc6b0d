"""Give groups of parameters their own learning rate and weight decay."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from hawq.errors import UsageError
from hawq.train.notation import read_settings

__all__ = ["QUANTIZER_GROUPS", "Group", "parameter_groups"]


@dataclass(frozen=True)
class Group:
    """Name parameters by a pattern, and say what is different for them.

    Attributes:
        pattern: with `*`, `?` and `[...]`, of the whole name; `units.*.weight`.
        lr: multiple of the learning rate; None leaves it.
        wd: weight decay; None leaves it.
    """

    pattern: str
    lr: float | None = None
    wd: float | None = None

    @classmethod
    def read(cls, text: str) -> "Group":
        """Return the group of `PATTERN:lr=0.1,wd=0`.

        Raises:
            UsageError: there is no pattern, an unknown key, or a value that is no number above or equal to 0.
        """
        pattern, _, settings = text.rpartition(":")
        found = read_settings(settings, {"lr": 1.0, "wd": 0.0}, f"group {text!r}") if pattern else {}
        if not found or any(value < 0 for value in found.values()):
            raise UsageError(f"group {text!r}: give PATTERN:lr=0.1,wd=0 (or one of both), numbers of 0 or more")
        return cls(pattern, **found)

    def __str__(self) -> str:
        given = ((key, value) for key, value in (("lr", self.lr), ("wd", self.wd)) if value is not None)
        return f"{self.pattern}:{','.join(f'{key}={value:g}' for key, value in given)}"

    def holds(self, name: str) -> bool:
        """Tell whether a parameter belongs to the group."""
        return fnmatchcase(name, self.pattern)


QUANTIZER_GROUPS = tuple(Group(pattern, wd=0.0) for pattern in ("*.quantizer.*", "stored.*", "read.*"))
"""Step sizes and clipping values are ranges, not weights: pulling them to zero would only coarsen the codes."""


def parameter_groups(
    model: nn.Module, weight_decay: float, groups: Iterable[Group], decay_small: bool = True
) -> list[dict[str, Any]]:
    """Return the optimizer's groups: `params`, `weight_decay` and `multiple`, that of the learning rate.

    Args:
        model: its parameters; a `/` in a name is matched as a dot.
        weight_decay: of parameters of which no group says anything else.
        groups: of several that hold a parameter the last one rules; they rule over QUANTIZER_GROUPS.
        decay_small: whether weight decay holds for 1-d tensors and the weights of depthwise convolutions too.

    Raises:
        UsageError: a group holds no parameter.
    """
    groups = tuple(groups)
    named = {name.replace("/", "."): p for name, p in model.named_parameters() if p.requires_grad}
    for group in groups:
        if not any(map(group.holds, named)):
            raise UsageError(f"group {group} holds no parameter; names are like {', '.join(list(named)[:4])}")
    found: dict[tuple[float, float], list[Tensor]] = {}
    for name, p in named.items():
        rate, decay = 1.0, weight_decay if decay_small or not _is_small(p) else 0.0
        for group in (*QUANTIZER_GROUPS, *groups):
            if group.holds(name):
                rate = rate if group.lr is None else group.lr
                decay = decay if group.wd is None else group.wd
        found.setdefault((rate, decay), []).append(p)
    return [{"params": held, "multiple": rate, "weight_decay": decay} for (rate, decay), held in found.items()]


def _is_small(p: Tensor) -> bool:
    """Tell whether it is a scalar, 1-d, or the weight of a depthwise convolution, (O, 1, kh, kw)."""
    return p.dim() <= 1 or (p.dim() == 4 and p.shape[1] == 1)
