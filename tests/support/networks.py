"""Small networks that hold every canonical op, with batch norm statistics that would betray a folding mistake."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)


class Residual(nn.Module):
    """A stem with a max pool, a block with a downsample branch, a block without, global average pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), _norm(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), _norm(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, bias=False), _norm(12)
        self.down, self.down_norm = nn.Conv2d(8, 12, 1, stride=2, bias=False), _norm(12)
        self.conv3, self.norm3 = nn.Conv2d(12, 12, 3, padding=1, bias=False), _norm(12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 3, 2, 1)
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        x = F.relu(y + self.down_norm(self.down(x)))
        x = F.relu(x + self.norm3(self.conv3(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Branches(nn.Module):
    """Inception: concat of convolutions and pools, average pool without counting padding, asymmetric padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.left = nn.Conv2d(8, 6, 1)
        self.right1, self.right2 = nn.Conv2d(8, 5, (1, 3), padding=(0, 1)), nn.Conv2d(5, 5, (3, 1), padding=(1, 0))
        self.pooled = nn.Conv2d(8, 4, 1)
        self.last = nn.Conv2d(23, 10, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(F.pad(x, (0, 1, 0, 1))))
        branches = [
            F.relu(self.left(x)),
            F.relu(self.right2(F.relu(self.right1(x)))),
            F.relu(self.pooled(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))),
            F.max_pool2d(x, 3, 1, 1),
        ]
        return torch.flatten(self.last(torch.cat(branches, 1)).mean((2, 3), keepdim=True), 1)


class Inverted(nn.Module):
    """MobileNetV2: depthwise and grouped convolutions, ReLU6, a signed linear bottleneck, a convolution last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), _norm(8)
        self.deep, self.deep_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), _norm(8)
        self.project, self.project_norm = nn.Conv2d(8, 6, 1, bias=False), _norm(6)
        self.expand = nn.Conv2d(6, 12, 1)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.head = nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem_norm(self.stem(x)))
        x = F.relu6(self.deep_norm(self.deep(x)))
        x = self.project_norm(self.project(x))
        x = F.relu6(self.grouped(F.relu6(self.expand(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1)).flatten(1)


class Dense(nn.Module):
    """DenseNet: growing concats read by lone batch norms, an average pool between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1, self.conv1 = _norm(6), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm2, self.conv2 = _norm(10), nn.Conv2d(10, 4, 3, padding=1, bias=False)
        self.norm3, self.conv3 = _norm(14), nn.Conv2d(14, 8, 1, bias=False)
        self.norm4, self.head = _norm(8), nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(F.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.conv2(F.relu(self.norm2(x)))], 1)
        x = F.avg_pool2d(self.conv3(F.relu(self.norm3(x))), 2)
        return self.head(F.avg_pool2d(F.relu(self.norm4(x)), 2).flatten(1))


class Gated(nn.Module):
    """MobileNetV3: hard-swish, squeeze-and-excitation, a stream that tables and products read, other curves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), _norm(8)
        self.deep, self.deep_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), _norm(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.project, self.project_norm = nn.Conv2d(8, 8, 1, bias=False), _norm(8)
        self.expand, self.fc1, self.fc2 = nn.Conv2d(8, 12, 1), nn.Linear(12, 6), nn.Linear(6, 12)
        self.head = nn.Linear(12, 10)
        for layer in (self.squeeze, self.fc1):  # few bits must not make a gate's input 0 throughout
            nn.init.normal_(layer.weight, 0.0, 0.3)
            nn.init.uniform_(layer.bias, 0.2, 0.8)
        nn.init.uniform_(self.excite.bias, 1.0, 2.0)  # nor what it lets pass

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem_norm(self.stem(x)))
        y = F.hardswish(self.deep_norm(self.deep(x)))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.project_norm(self.project(y))
        x = F.silu(self.expand(F.gelu(x) + x * torch.tanh(x)))
        gate = torch.sigmoid(self.fc2(F.silu(self.fc1(x.mean((2, 3))))))
        return self.head((x * gate.view(-1, 12, 1, 1)).mean((2, 3)))


class Decoder(nn.Module):
    """DeepLab and feature pyramids: dilated branches, a pooled one spread again, maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.near, self.far = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=2, dilation=2)
        self.pooled, self.project = nn.Conv2d(8, 4, 1), nn.Conv2d(12, 8, 1)
        self.skip, self.up, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(14, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.stem(x))
        x = F.relu(self.down(fine))
        pooled = F.interpolate(F.relu(self.pooled(F.adaptive_avg_pool2d(x, 1))), size=x.shape[2:], mode="bilinear")
        x = torch.cat([F.relu(self.near(x)), F.relu(self.far(x)), pooled], 1)
        x = F.interpolate(self.project(x), size=fine.shape[2:], mode="bilinear", align_corners=True) + self.skip(fine)
        larger = F.interpolate(F.relu(self.up(x)), scale_factor=1.6, mode="bilinear")
        return self.head(torch.cat([larger, F.interpolate(x, size=larger.shape[2:])], 1)).mean((2, 3))


class Detector(nn.Module):
    """SSD: heads on maps of two sizes, one of which is an output itself; a sum and features are put out, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.boxes = nn.ModuleList([nn.Conv2d(8, 4, 3, padding=1) for _ in range(2)])
        self.classes = nn.ModuleList([nn.Conv2d(8, 6, 1) for _ in range(2)])
        self.tags = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, object]:
        large = F.relu(self.stem(x))
        small = self.down(large)
        maps = (large, F.relu(small))
        return {
            "boxes": [head(x) for head, x in zip(self.boxes, maps, strict=True)],
            "classes": [head(x) for head, x in zip(self.classes, maps, strict=True)],
            "map": small,
            "sum": F.interpolate(F.relu(small), scale_factor=2, mode="bilinear") + large,
            "tags": self.tags(large.mean((2, 3))),
        }


NETWORKS = {cls.__name__: cls for cls in (Residual, Branches, Inverted, Dense, Gated, Decoder)}
"""Classifiers of 10 classes."""

OUTPUTS = ("boxes.0", "boxes.1", "classes.0", "classes.1", "map", "sum", "tags")
"""Of a Detector."""
SIZE = 16


def build(name: str, seed: int = 0) -> nn.Module:
    """Return a network with random weights and batch norm statistics, one dead channel included."""
    torch.manual_seed(seed)
    model = (NETWORKS | {"Detector": Detector})[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.4)
            nn.init.normal_(module.bias, 0.0, 0.4)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2.0)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    first.weight.data[1] = 0
    return model.eval()


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
