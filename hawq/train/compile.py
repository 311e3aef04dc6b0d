"""Compile the training's forward and backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hawq.errors import HawqError, reason

__all__ = ["compiled"]


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the network's forward pass through torch.compile; the first steps take as long as the compiler does.

    Where a quantizer asks for a number (has it seen a range, is the range finite) the graph is cut in two.
    """
    forward = torch.compile(model)

    def run(images: Tensor) -> Tensor:
        try:
            return forward(images)  # type: ignore[no-any-return]
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise HawqError(
                f"--compile: this network cannot be compiled here ({reason(error)}); leave --compile out"
            ) from error

    return run
