"""Write a choice and its settings as text, `cosine:floor=0.01,period=10`, and read it back."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Generic, TypeVar

from hawq.errors import UsageError

__all__ = ["Choices", "read_settings"]

_T = TypeVar("_T")


class Choices(Generic[_T]):
    """Frozen dataclasses that are chosen by name; `NAME` or `NAME:key=value,key=value` builds one.

    Args:
        what: is chosen, for errors: `learning rate schedule`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.kinds: dict[str, type[_T]] = {}

    def register(self, name: str) -> Callable[[type[_T]], type[_T]]:
        """Register the decorated class under a name."""

        def register(kind: type[_T]) -> type[_T]:
            self.kinds[name] = kind
            return kind

        return register

    def read(self, text: str) -> _T:
        """Return the object that a text describes.

        Raises:
            UsageError: an unknown name or key, or a value that is none.
        """
        name, _, settings = text.partition(":")
        if name not in self.kinds:
            raise UsageError(f"{self.what} {name!r} is unknown; allowed are {self.usage()}")
        kind = self.kinds[name]
        known = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
        return kind(**read_settings(settings, known, f"{self.what} {text!r}"))

    def write(self, value: _T) -> str:
        """Return the text that `read` turns into an equal object."""
        name = next(name for name, kind in self.kinds.items() if type(value) is kind)
        return _joined(name, {field.name: getattr(value, field.name) for field in fields(value)})  # type: ignore[arg-type]

    def usage(self) -> str:
        """Return every choice with the keys it takes and what they are when not given."""
        return "; ".join(
            _joined(name, {field.name: field.default for field in fields(kind)})  # type: ignore[arg-type]
            for name, kind in self.kinds.items()
        )


def read_settings(text: str, known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return what `key=value,key=value` gives, as numbers and truth values.

    Args:
        text: the settings, separated by commas.
        known: allowed keys with their usual values, which tell the type.
        what: is set, for errors.

    Raises:
        UsageError: an unknown key, or a value that is none.
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise UsageError(f"{what}: {part!r} is no setting; allowed are {', '.join(known) or 'none'}")
        found[key] = _value(value, isinstance(known[key], bool), f"{what}: {part!r}")
    return found


def _value(text: str, truth: bool, what: str) -> float | bool:
    if truth:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{what}: give true or false")
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{what}: give a number") from None


def _joined(name: str, settings: Mapping[str, object]) -> str:
    words = ",".join(f"{key}={_plain(value)}" for key, value in settings.items())
    return f"{name}:{words}" if words else name


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value!r}".removesuffix(".0")
