"""Name the results of a network that may have several: most have one, and are asked for it alone."""

from collections.abc import Mapping
from typing import TypeVar

from hawq.errors import HawqError

__all__ = ["LOGITS", "only", "plain"]

LOGITS = "logits"
"""Name of the output of a network that returns one tensor."""

_T = TypeVar("_T")


def only(outputs: Mapping[str, _T], need: str) -> _T:
    """Return the one output.

    Args:
        outputs: by name.
        need: what cannot be done with several, the beginning of a message.

    Raises:
        HawqError: there are several.
    """
    if len(outputs) != 1:
        names = ", ".join(list(outputs)[:8])
        raise HawqError(f"{need}, and it has {len(outputs)}: {names}; wrap the model in one that returns one")
    return next(iter(outputs.values()))


def plain(outputs: dict[str, _T]) -> _T | dict[str, _T]:
    """Return what a network returns: its one output, or several by name."""
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))
