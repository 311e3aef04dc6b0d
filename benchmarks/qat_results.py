"""Fine-tune ResNet-20 on CIFAR-10 (JPEG) at many schemes, beside post-training quantization of the same network.

    python benchmarks/qat_results.py --data ../shared/data --work DIR [--epochs 3] [--rows uniform8 ...] [--json]

The float network (pytorchcv's weights, trained on exact pixels) is first fine-tuned on the 50,000 JPEG training images;
its top-1 on the 9,568 JPEG test images is the reference F. Every quantized network starts from it, sees the same images
in the same order for the same epochs, and is evaluated in exact integers. Rows that are done are kept under --work and
not computed again, so the table can be made in pieces. One thread.
"""

import argparse
import importlib.util
import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from hawq.bitconfig import BitConfig, UnitBits
from hawq.cli.training_progress import training_progress
from hawq.data import ImageData, load_data
from hawq.evaluation import Accuracy, accuracy
from hawq.files import write_atomically, write_tensors
from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace
from hawq.models import create_model, input_spec
from hawq.quantizers import QuantOptions
from hawq.schemes import uniform
from hawq.sensitivity import Sampling, measure
from hawq.train.begin import Beginning
from hawq.train.config import TrainConfig
from hawq.train.criterion import PLAIN, Distillation
from hawq.train.feed import Feed
from hawq.train.optimizers import SGD, AdamW, Optimizer
from hawq.train.quantized import QuantizedRun, train_quantized
from hawq.train.recipes import keeps_statistics
from hawq.train.schedules import Cosine
from hawq.train.trainer import Forget, Trainer
from search import Question, find_scheme, parse_budget
from search.confidence import UntilStable

ARCH = "resnet20_cifar10"
WEIGHTS = Path("weights") / "cifar10_resnet20_pytorchcv.pth"
IMAGES = Path("cifar10") / "cifar10_jpeg.npz"
FLOAT_EPOCHS = 6


@dataclass(frozen=True)
class Row:
    """One way to quantize the network.

    Attributes:
        name: of the row.
        scheme: `uniform<b>`; `all<b>`: the first and last unit, too; or a budget.
        weight: name of the weight quantizer.
        activation: name of the activation quantizer.
        trained: whether it is fine-tuned; otherwise calibrated alone.
        teacher: whether it also learns from the float network's logits (alpha 0.5, temperature 2).
        lr: highest learning rate.
        optimizer: signs and ternary weights flip too rarely under SGD.
        allowed: points below F that are asked for, or None.
    """

    name: str
    scheme: str
    weight: str = "minmax"
    activation: str = "minmax"
    trained: bool = True
    teacher: bool = False
    lr: float = 0.01
    optimizer: Optimizer = field(default_factory=SGD)
    allowed: float | None = None


ROWS = [
    Row("PTQ int8, all units", "all8", trained=False),
    Row("PTQ int4, all units", "all4", trained=False),
    Row("PTQ int2, all units", "all2", trained=False),
    Row("calibrated uniform8", "uniform8", trained=False),
    Row("calibrated uniform4", "uniform4", trained=False),
    Row("calibrated uniform4, mse", "uniform4", "mse", "mse", trained=False),
    Row("uniform8", "uniform8", allowed=0.2),
    Row("bops0.5", "bops0.5", allowed=0.5),
    Row("bops0.5, teacher", "bops0.5", teacher=True, allowed=0.5),
    Row("uniform4", "uniform4"),
    Row("uniform4 LSQ", "uniform4", "lsq", "lsq"),
    Row("uniform4 LSQ+, teacher", "uniform4", "lsq+", "lsq+", teacher=True, allowed=1.0),
    Row("W2A2 LSQ+, teacher", "uniform2", "lsq+", "lsq+", teacher=True, lr=0.03, allowed=4.0),
    Row("W2A2 LQ-Nets, teacher", "uniform2", "lq-nets", "lq-nets", teacher=True, lr=0.03),
    Row("ternary, teacher", "uniform2", "ternary", "ternary", teacher=True, lr=0.005, optimizer=AdamW()),
    Row("XNOR, teacher", "uniform1", "xnor", "xnor", teacher=True, lr=0.01, optimizer=AdamW()),
]
PT2E = "torch PT2E int8"


class Comparison:
    """Train the rows of the table, each once."""

    def __init__(self, data: Path, work: Path, epochs: int, limit: int | None) -> None:
        self.work, self.epochs = work, epochs
        self.data: ImageData = load_data("npz", data / IMAGES, spec=input_spec(ARCH))
        if limit is not None:
            few = torch.arange(limit)
            self.data = replace(self.data, train=self.data.train.select(few), test=self.data.test.select(few))
        self._weights = data / WEIGHTS

    def float_network(self, epochs: int) -> nn.Module:
        """Return the fine-tuned float network, in evaluation mode; it is trained once."""
        path = self.work / "float.safetensors"
        if not path.is_file():
            model = create_model(ARCH, weights=self._weights)
            config = TrainConfig(epochs, lr=0.02, schedule=Cosine(), weight_decay=5e-4, channels_last=True)
            with training_progress("float") as heard:
                Trainer(model, Feed(self.data, config)).run(Forget(), [heard])
            write_tensors(path, {name: tensor.contiguous() for name, tensor in model.state_dict().items()})
        return create_model(ARCH, weights=path).eval()

    def reference(self) -> Accuracy:
        """Return the accuracy of the float network."""
        return accuracy(self.float_network(0), self.data.batches("test", 256))

    def result(self, name: str, compute: Any) -> dict[str, Any]:
        """Return what a row came to; computed once."""
        path = self.work / f"{name.replace(' ', '-').replace(',', '')}.json"
        if not path.is_file():
            started = time.monotonic()
            found = {"name": name, **compute(), "seconds": round(time.monotonic() - started)}
            write_atomically(path, lambda temporary: temporary.write_text(json.dumps(found)))
        return dict(json.loads(path.read_text()))

    def quantized(self, row: Row) -> dict[str, Any]:
        """Return the accuracy of a row in integers."""
        graph = trace(self.float_network(0), (3, 32, 32))
        epochs, bits = self.epochs if row.trained else 0, self._bits(row.scheme, graph)
        config = TrainConfig(epochs, lr=row.lr, schedule=Cosine(), optimizer=row.optimizer, channels_last=True)
        options = QuantOptions(fix_bn=keeps_statistics(bits), weight_quantizer=row.weight,
                               act_quantizer=row.activation, asymmetric=row.scheme.startswith("all"))  # fmt: skip
        folder = self.work / row.name.replace(" ", "-").replace(",", "")
        teacher = Distillation(self.float_network(0), alpha=0.5, temperature=2.0)
        criterion = teacher if row.teacher else PLAIN
        run = QuantizedRun(Beginning(bits, options), config, folder, criterion=criterion)

        _, found = train_quantized(run, graph, self.data, lambda: training_progress(row.name))
        return {**asdict(row), "epochs": epochs, "top1": found.top1}

    def _bits(self, scheme: str, graph: FloatGraph) -> BitConfig:
        if scheme.startswith("uniform"):
            return uniform(ARCH, graph, int(scheme[-1]))
        if scheme.startswith("all"):
            bits = int(scheme[-1])
            return BitConfig(ARCH, scheme, dict.fromkeys(graph.units, UnitBits(bits, bits)))
        question = Question(ARCH, graph, (parse_budget(scheme),))
        batches = list(self.data.batches("train", 32, shuffle=True, seed=0, limit=2048))
        cache = self.work / "sensitivity.json"
        return find_scheme(
            question, measure(graph, Sampling("jacobian"), batches, cache, UntilStable(question)).omega
        ).config


def pt2e(comparison: Comparison) -> dict[str, Any]:
    """Return the accuracy of torch's own int8 export quantization (PT2E, x86 quantizer), calibrated on 256 images."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    example = (next(iter(comparison.data.batches("test", 128)))[0],)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(comparison.float_network(0), example, dynamic_shapes=({0: batch},)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    for images, _ in comparison.data.batches("train", 16, shuffle=True, seed=0, limit=256):
        prepared(images)
    found = accuracy(convert_pt2e(prepared), comparison.data.batches("test", 128))
    return {"name": PT2E, "top1": found.top1, "epochs": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/qat-results"), help="where finished rows are kept")
    parser.add_argument("--rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--epochs", type=int, default=3, help="of every quantized network")
    parser.add_argument("--float-epochs", type=int, default=FLOAT_EPOCHS, help="of the float network before")
    parser.add_argument("--quick", action="store_true", help="256 images, one epoch: that it runs, not how well")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    epochs, limit = (1, 256) if arguments.quick else (arguments.epochs, None)
    comparison = Comparison(arguments.data, arguments.work, epochs, limit)
    comparison.float_network(1 if arguments.quick else arguments.float_epochs)
    names = arguments.rows if arguments.rows is not None else [PT2E, *(row.name for row in ROWS)]
    unknown = set(names) - {PT2E, *(row.name for row in ROWS)}
    if unknown:
        parser.error(f"no rows {sorted(unknown)}; there are {[PT2E, *(row.name for row in ROWS)]}")
    reference = comparison.result("float", lambda: {"top1": comparison.reference().top1})
    rows = []
    if PT2E in names and importlib.util.find_spec("torchao") is None:
        print(f"without {PT2E}: it needs the package torchao (pip install torchao)", file=sys.stderr)
    elif PT2E in names:
        rows.append(comparison.result(PT2E, lambda: pt2e(comparison)))
    for row in (row for row in ROWS if row.name in names):
        rows.append(comparison.result(row.name, lambda row=row: comparison.quantized(row)))
    if arguments.json:
        print(json.dumps([reference, *rows], indent=1))
        return
    table = Table("network", "weights", "activations", "epochs", "top-1 %", "to F", "asked", "seconds")
    table.add_row("float (F)", "", "", "", f"{reference['top1']:.2f}", "", "", "")
    for row in rows:
        gap, allowed = row["top1"] - reference["top1"], row.get("allowed")
        table.add_row(
            row["name"], row.get("weight", ""), row.get("activation", ""), str(row["epochs"]), f"{row['top1']:.2f}",
            f"{gap:+.2f}", "" if allowed is None else f"{-allowed:+.1f}", f"{row['seconds']:.0f}",
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
