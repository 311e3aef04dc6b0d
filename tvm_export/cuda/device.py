"""Tell which GPU is here and which machine code it runs."""

from collections.abc import Sequence

import torch

from hawq.errors import HawqError

__all__ = ["ARCHITECTURES", "check_device", "present_architecture"]

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
"""Those code is built for."""


def _runs(name: str, capability: tuple[int, int]) -> bool:
    """Tell whether a GPU runs machine code: its generation must be the same and its revision no older."""
    major, minor = divmod(int(name.removeprefix("sm_")), 10)
    return major == capability[0] and minor <= capability[1]


def present_architecture() -> str | None:
    """Return the best architecture for this machine's GPU, None where there is no GPU or none suits it."""
    if not torch.cuda.is_available():
        return None
    capability = torch.cuda.get_device_capability()
    return max((name for name in ARCHITECTURES if _runs(name, capability)), default=None)


def check_device(folder: str, architectures: Sequence[str]) -> None:
    """Check that this machine's GPU runs a library.

    Args:
        folder: of the library, for the message.
        architectures: it holds code for.

    Raises:
        HawqError: there is no GPU, or its machine code is not in the library.
    """
    if not torch.cuda.is_available():
        raise HawqError(
            f"{folder} holds a CUDA library, and this machine shows no NVIDIA GPU: copy the run to one that has it, "
            "or work with --target llvm"
        )
    capability = torch.cuda.get_device_capability()
    if not any(_runs(name, capability) for name in architectures):
        here, best = "sm_{}{}".format(*capability), present_architecture()
        advice = f"export again with --arch {best}" if best else f"hawq builds for {', '.join(ARCHITECTURES)} only"
        raise HawqError(f"{folder} holds code for {', '.join(architectures)}, and this GPU is {here}: {advice}")
