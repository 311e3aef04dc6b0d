"""Fine-tune EfficientNet-Lite0 and MobileNetV1 0.75 at 4 bits on Imagenette: real ImageNet weights, ten classes.

    python benchmarks/qat_imagenette.py --data ../shared/data --work DIR [--epochs 2] [--networks ...] [--json]

The classifier keeps the ten rows of the classes. `before` is the network calibrated at uniform4, with min-max ranges
and with the learned quantizer's starting steps; `after` is fine-tuned on the 1,800 training images with the float
network as its teacher. Both are measured in exact integers on the 600 validation images. One thread.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hawq.cli.training_progress import training_progress
from hawq.data import ImageData, load_data
from hawq.evaluation import accuracy
from hawq.graph.trace import trace
from hawq.models import create_model
from hawq.quantizers import QuantOptions
from hawq.schemes import uniform
from hawq.train.begin import Beginning
from hawq.train.config import TrainConfig
from hawq.train.criterion import Criterion, Distillation
from hawq.train.quantized import QuantizedRun, train_quantized
from hawq.train.schedules import Cosine

CLASSES = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NETWORKS = {
    "efficientnet_lite0": ("imagenet_efficientnet_lite0.pth", 127 / 255, 128 / 255),
    "mobilenet_v1_075": ("imagenet_mobilenet_v1_075.pth", 0.5, 0.5),
}


def build(name: str, weights: Path) -> nn.Module:
    """Return the network with the classifier's rows of the ten classes."""
    if name == "mobilenet_v1_075":
        model = create_model(f"{EXAMPLES / 'tensorflow_mobilenet.py'}:mobilenet_v1_075", weights=weights)
    else:
        model = create_model("timm:tf_efficientnet_lite0")
        state: dict[str, Tensor] = torch.load(weights, weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))  # other keys, same order
    parent, last = next((m, n) for m in model.modules() for n, c in m.named_children() if _classifies(c))
    setattr(parent, last, _ten_rows(getattr(parent, last)))
    return model.eval()


def _classifies(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[0] == 1000


def _ten_rows(old: Any) -> nn.Module:
    new = nn.Linear(old.in_features, len(CLASSES)) if isinstance(old, nn.Linear) else nn.Conv2d(old.in_channels, 10, 1)
    new.weight.data, new.bias.data = old.weight.data[CLASSES], old.bias.data[CLASSES]
    return new


def compare(name: str, data: Path, work: Path, epochs: int, quantizer: str, quick: bool) -> list[dict[str, Any]]:
    """Return the rows of one network."""
    file, mean, std = NETWORKS[name]
    images: ImageData = load_data("imagefolder", data / "imagenette", mean=(mean,) * 3, std=(std,) * 3, size=224)
    if quick:
        images = replace(images.subset(0.02, 0), test=images.test.select(torch.arange(0, 600, 20)))
    model = build(name, data / "weights" / file)
    graph = trace(model, (3, 224, 224))
    bits = uniform(name, graph, 4)
    rows = [{"network": name, "kind": "float", "top1": accuracy(model, images.batches("test", 100)).top1}]

    def row(kind: str, epochs: int, method: str, criterion: Criterion | None = None) -> None:
        started = time.monotonic()
        config = TrainConfig(epochs, lr=0.01, batch_size=32, schedule=Cosine(), clip_norm=5.0)
        options = QuantOptions(fix_bn=False, weight_quantizer=method, act_quantizer=method)
        extra = {} if criterion is None else {"criterion": criterion}
        run = QuantizedRun(Beginning(bits, options), config, work / f"{name}-{kind.replace(' ', '-')}", **extra)
        _, found = train_quantized(run, graph, images, lambda: training_progress(f"{name} {kind}"))
        seconds = round(time.monotonic() - started)
        rows.append({"network": name, "kind": kind, "epochs": epochs, "top1": found.top1, "seconds": seconds})

    row("before, minmax", 0, "minmax")
    row(f"before, {quantizer}", 0, quantizer)
    row(f"after, {quantizer}", epochs, quantizer, Distillation(model, alpha=0.5, temperature=2.0))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, help="where checkpoints are kept; a temporary folder by default")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--quantizer", default="lsq+")
    parser.add_argument(
        "--quick", action="store_true", help="36 images to train on, 30 to test: that it runs, not how well"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        epochs = 1 if arguments.quick else arguments.epochs
        rows = [
            row
            for name in arguments.networks
            for row in compare(name, arguments.data, work, epochs, arguments.quantizer, arguments.quick)
        ]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("network", "", "epochs", "top-1 %, 10 classes", "seconds")
    for row in rows:
        table.add_row(row["network"], row["kind"], str(row.get("epochs", "")), f"{row['top1']:.2f}",
                      str(row.get("seconds", "")))  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
