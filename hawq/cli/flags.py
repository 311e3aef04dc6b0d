"""Let a command take its options in groups: frozen dataclasses whose fields are the options."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any

__all__ = ["takes_flags"]


def takes_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter that is annotated with a dataclass by one option for each of its fields.

    The fields are annotated as typer's parameters are, and have defaults; the command gets the dataclass. No two
    groups may have a field of the same name.
    """
    signature = inspect.signature(command)
    groups: dict[str, Any] = {
        name: p.annotation for name, p in signature.parameters.items() if is_dataclass(p.annotation)
    }
    flat = []
    for name, parameter in signature.parameters.items():
        flat += [_parameter(field) for field in fields(groups[name])] if name in groups else [parameter]

    @wraps(command)
    def run(**given: Any) -> None:
        built = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **built)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in flat]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


def _parameter(field: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
