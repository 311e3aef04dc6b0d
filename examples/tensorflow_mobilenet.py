"""Build MobileNetV1 as TensorFlow trained it: ReLU6, and "SAME" padding on the right and bottom of strided layers.

    hawq export -a examples/tensorflow_mobilenet.py:mobilenet_v1_075 --weights imagenet_mobilenet_v1_075.pth ...

The weights carry pytorchcv's names. Symmetric padding costs this network about 15 points of accuracy.
"""

import torch.nn.functional as F
from pytorchcv.model_provider import get_model
from torch import Tensor, nn


def _pad_right_and_bottom(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (F.pad(inputs[0], (0, 1, 0, 1)),)


def mobilenet_v1_075(num_classes: int = 1000) -> nn.Module:
    """Return MobileNetV1 0.75 with TensorFlow's activations and padding, for inputs of even size."""
    model = get_model("mobilenet_w3d4", num_classes=num_classes)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.ReLU6())
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
            module.register_forward_pre_hook(_pad_right_and_bottom)
    return model.eval()
