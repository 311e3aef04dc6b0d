"""Translate reshapes. A reshape moves no element, so it is only a Ref of another shape until something reads it."""

from typing import Any

import torch

from hawq.graph.builder import Builder, Ref, canonical

__all__: list[str] = []


@canonical(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze,
           "flatten", "view", "reshape", "squeeze", "unsqueeze", "squeeze_", "unsqueeze_", "view_as",
           "reshape_as")  # fmt: skip
def flatten(b: Builder, input: Ref, *sizes: Any, **options: Any) -> Ref:
    """Translate any reshape that keeps the batch in front (flatten, view, reshape, squeeze, unsqueeze)."""
    if b.out_shape[:1] != input.shape[:1]:
        b.fail(f"reshapes {input.shape} to {b.out_shape}, batch first; it must leave the batch dimension alone")
    return Ref(input.node, b.out_shape, input.storage)
