"""Tell which GPU is here and which machine code it runs."""

from collections.abc import Sequence
from pathlib import Path

import torch

from hawq.runtime.devices import ARCHITECTURES, check_gpu, runs

__all__ = ["ARCHITECTURES", "check_device", "present_architecture"]


def _capability() -> tuple[int, int] | None:
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def present_architecture() -> str | None:
    """Return the best architecture for this machine's GPU, None where there is no GPU or none suits it."""
    capability = _capability()
    return capability and max((name for name in ARCHITECTURES if runs(name, capability)), default=None)


def check_device(folder: Path, architectures: Sequence[str]) -> None:
    """Check that this machine's GPU, as torch sees it, runs a library.

    Raises:
        HawqError: there is no GPU, or its machine code is not in the library.
    """
    check_gpu(folder, architectures, _capability())
