"""Register the places that metrics can go to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from hawq.errors import UsageError
from hawq.train.state import Listener

__all__ = ["ALWAYS", "LOGGERS", "Logger", "open_loggers", "register_logger"]


class Logger(Listener, Protocol):
    """Hear how training goes, and write it somewhere."""

    def close(self) -> None:
        """Write what is left."""


_Factory = Callable[[Path, Mapping[str, Any]], Logger]

LOGGERS: dict[str, _Factory] = {}
"""Every logger by name; built from the folder of the training and its settings."""

ALWAYS = ("csv", "jsonl")
"""Loggers that nobody has to ask for."""


def register_logger(name: str) -> Callable[[_Factory], _Factory]:
    """Register the decorated class as the logger `name`."""

    def register(factory: _Factory) -> _Factory:
        LOGGERS[name] = factory
        return factory

    return register


@contextmanager
def open_loggers(names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> Iterator[list[Logger]]:
    """Give the loggers of these names behind those of ALWAYS, and close them in the end.

    Args:
        names: in LOGGERS.
        folder: of the training.
        settings: of the training, plain values.

    Raises:
        UsageError: an unknown name, or a package that is not installed.
    """
    unknown = [name for name in names if name not in LOGGERS]
    if unknown:
        raise UsageError(f"logger {unknown[0]!r} is unknown; allowed are {', '.join(LOGGERS)}")
    with ExitStack() as stack:
        loggers = [LOGGERS[name](folder, settings) for name in (*ALWAYS, *names)]
        for logger in loggers:
            stack.callback(logger.close)
        yield loggers
