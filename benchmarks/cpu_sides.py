"""Say what a side of benchmarks/cpu.py is: how it is prepared, and how it runs one batch.

Numeric packages are imported inside functions: the process of a side is pinned before any of them starts a thread.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SIDES", "Candidate", "Side", "Subject", "register"]


@dataclass(frozen=True)
class Subject:
    """What every side runs.

    Attributes:
        network: its name as for -a.
        batch: images per call.
        seed: of the weights, which are random: latency does not depend on them.
    """

    network: str
    batch: int
    seed: int = 0

    @property
    def size(self) -> int:
        """Of the square images, in pixels."""
        from hawq.models import input_spec

        return input_spec(self.network).size or 224

    def model(self) -> Any:
        """Return the float network in evaluation mode, the same weights every time."""
        import torch

        from hawq.models import create_model

        torch.manual_seed(self.seed)
        return create_model(self.network).eval()

    def images(self) -> Any:
        """Return one batch, float32, (batch, 3, size, size), the same every time."""
        import torch

        return torch.randn(self.batch, 3, self.size, self.size, generator=torch.Generator().manual_seed(self.seed + 1))

    def graph(self) -> Any:
        """Return the float graph."""
        from hawq.graph.trace import trace

        return trace(self.model(), (3, self.size, self.size))


@dataclass(frozen=True)
class Candidate:
    """One setting of a side; the fastest of its settings is measured.

    Attributes:
        note: names the setting, and what was checked of it.
        call: runs one batch.
    """

    note: str
    call: Callable[[], Any]


class Side(ABC):
    """One way to run a network.

    Attributes:
        title: a line of the table.
        packages: what it needs beyond hawq.
        usual: whether it is measured without being asked for.
    """

    title: str
    packages: Sequence[str] = ()
    usual: bool = True

    @abstractmethod
    def prepare(self, subject: Subject, folder: Path) -> str:
        """Make the files that `load` reads; return what was checked of them.

        Args:
            subject: what to run.
            folder: of this subject; the sides share it.

        Raises:
            ModuleNotFoundError: a package is missing.
        """

    @abstractmethod
    def load(self, subject: Subject, folder: Path, threads: int) -> list[Candidate]:
        """Return the settings to choose from, in a process that is pinned to as many cores as there are threads."""


SIDES: dict[str, Side] = {}
"""Every side by the name that --side takes; the first is what ratios refer to."""


def register(name: str, *arguments: Any) -> Callable[[type[Side]], type[Side]]:
    """Register a side, made with the arguments, under a name; a class may be registered more than once."""

    def add(side: type[Side]) -> type[Side]:
        SIDES[name] = side(*arguments)
        return side

    return add
