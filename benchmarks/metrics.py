"""Compare the metrics of sensitivity by the schemes they lead to, on CIFAR-10 networks with real weights.

    python benchmarks/metrics.py --data ../shared/data [--networks resnet20_cifar10 ...] [--quick] [--json]

For each network and budget: the scheme of every metric beside the scheme of the reversed ranking and 20 random schemes
of the same budget, all calibrated on the same 512 images and none trained. Loss and accuracy are those of the integers
on the 500 exact test images and on 2,000 exact training images that neither search nor calibration saw. The seconds
are those of the measurement, one thread, until the stopping rule of `hawq search` or --images end it; samples are kept
from one budget to the next, and so are the seconds. `eigenvalue` looks at 32 images only, being
tens of times slower.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hawq.bitconfig import BitConfig, UnitBits
from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace
from hawq.models import create_model
from hawq.qat.model import QuantizedModel
from hawq.sensitivity import METRICS, Sampling, measure
from search import Omega, Question, find_scheme, parse_budget
from search.confidence import UntilStable, resample
from tvm_export import export, load

NETWORKS = {f"resnet{depth}_cifar10": f"cifar10_resnet{depth}_pytorchcv.pth" for depth in (20, 56)}
BUDGETS = ("bops0.25", "bops0.5", "bops0.75")
MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
CALIBRATION, HELD_OUT, RANDOM = 512, 2000, 20
SLOW, SLOW_IMAGES = ("eigenvalue",), 32
FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)


@dataclass(frozen=True)
class Images:
    """Images, normalised, and labels of one purpose."""

    images: Tensor
    labels: Tensor

    def batches(self, size: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
        """Return batches in the order of a seed."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        return [(self.images[i], self.labels[i]) for i in order.split(size)]


def load_images(data: Path) -> dict[str, Images]:
    """Return the images for the search, the test images and the held-out training images."""
    arrays = np.load(data / "cifar10" / "cifar10_lossless.npz")

    def images(split: str, keep: slice) -> Images:
        pixels = torch.from_numpy(arrays[f"{split}_x"][keep]).float() / 255
        return Images(((pixels - MEAN) / STD).permute(0, 3, 1, 2).contiguous(),
                      torch.from_numpy(arrays[f"{split}_y"][keep]).long())  # fmt: skip

    return {"search": images("train", slice(0, -HELD_OUT)), "held out": images("train", slice(-HELD_OUT, None)),
            "test": images("test", slice(None))}  # fmt: skip


def quality(graph: FloatGraph, bits: BitConfig, data: Mapping[str, Images]) -> dict[str, float]:
    """Return loss and top-1 (%) of the integers, compiled."""
    model = QuantizedModel(graph, bits)
    model.calibrate(image for image, _ in data["search"].batches(128)[: CALIBRATION // 128])
    with tempfile.TemporaryDirectory() as folder:
        export(model.eval().lower(), "llvm", Path(folder), batch=50)
        compiled = load(Path(folder))
        found = {}
        for name in ("test", "held out"):
            logits = compiled.logits(data[name].images)
            found[f"{name} loss"] = float(F.cross_entropy(logits, data[name].labels))
            found[f"{name} top-1"] = 100 * float((logits.argmax(1) == data[name].labels).float().mean())
    return found


def reversed_ranking(question: Question, omega: Omega) -> Omega:
    """Return an Omega with which the units that gain least from 8 bits gain most."""
    gain = {group: sum(omega(unit, FOUR) - omega(unit, EIGHT) for unit in group) for group in question.groups}
    ranked = sorted(gain, key=gain.__getitem__)
    swapped = dict(zip(ranked, [gain[group] for group in reversed(ranked)], strict=True))
    of_unit = {unit: swapped[group] / len(group) for group in question.groups for unit in group}
    return lambda unit, bits: of_unit[unit] if bits == FOUR else 0.0


def random_ranking(question: Question, seed: int) -> Omega:
    """Return an Omega with which random units gain from 8 bits."""
    gains = torch.rand(len(question.groups), generator=torch.Generator().manual_seed(seed)).tolist()
    of_unit = {unit: gain for group, gain in zip(question.groups, gains, strict=True) for unit in group}
    return lambda unit, bits: of_unit[unit] if bits == FOUR else 0.0


class Comparison:
    """Compare schemes of one network, each distinct one evaluated once."""

    def __init__(self, arch: str, data: Path, images: Mapping[str, Images], budgets: tuple[str, ...]) -> None:
        model = create_model(arch, weights=data / "weights" / NETWORKS[arch])
        self.arch, self.images, self.graph = arch, images, trace(model.eval(), (3, 32, 32))
        self.questions = [Question(arch, self.graph, (parse_budget(budget),)) for budget in budgets]
        self._known: dict[tuple[UnitBits, ...], dict[str, float]] = {}

    def row(self, question: Question, kind: str, omega: Omega, **facts: Any) -> dict[str, Any]:
        """Return a row of the table."""
        config = find_scheme(question, omega).config
        bits = tuple(config.units.values())
        if bits not in self._known:
            self._known[bits] = quality(self.graph, config, self.images)
        print(f"{self.arch} {question.name} {kind}: {self._known[bits]}", file=sys.stderr)
        return {"network": self.arch, "budget": question.name, "scheme": kind, **self._known[bits], **facts}

    def random(self, question: Question, count: int) -> dict[str, Any]:
        """Return the mean row of random schemes."""
        drawn = [self.row(question, f"random {seed}", random_ranking(question, seed)) for seed in range(count)]
        means = {name: fmean(r[name] for r in drawn) for name in drawn[0] if name.endswith(("loss", "top-1"))}
        return {"network": self.arch, "budget": question.name, "scheme": f"random, mean of {count}", **means}

    def metric(self, metric: str, images: int) -> list[dict[str, Any]]:
        """Return the rows of a metric and of its reverse, for every budget."""
        images, size = (SLOW_IMAGES, 8) if metric in SLOW else (images, 32)
        batches = self.images["search"].batches(size)[: images // size]
        rows, seconds = [], 0.0
        with tempfile.TemporaryDirectory() as folder:
            for question in self.questions:
                started = time.perf_counter()
                found = measure(self.graph, Sampling(metric), batches, Path(folder) / "s.json", UntilStable(question))
                sure = resample(question, found)
                seconds += time.perf_counter() - started
                facts = {"images": found.images, "seconds": seconds, "agreement": sure.agreement, "regret": sure.regret}
                rows.append(self.row(question, metric, found.omega, **facts))
                rows.append(self.row(question, f"{metric}, reversed", reversed_ranking(question, found.omega)))
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--metrics", nargs="*", default=[m for m in METRICS if m != "hutchinson"])
    parser.add_argument("--images", type=int, default=2048, help="images a metric may look at")
    parser.add_argument("--quick", action="store_true", help="ResNet-20, bops0.5, two metrics, three random schemes")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks, metrics, budgets, count = arguments.networks, arguments.metrics, BUDGETS, RANDOM
    if arguments.quick:
        networks, metrics, budgets, count = ["resnet20_cifar10"], ["hessian", "sqnr"], ("bops0.5",), 3
    images = load_images(arguments.data)
    rows: list[dict[str, Any]] = []
    for arch in networks:
        comparison = Comparison(arch, arguments.data, images, budgets)
        rows += [comparison.random(question, count) for question in comparison.questions]
        for metric in metrics:
            rows += comparison.metric(metric, arguments.images)
    rows.sort(key=lambda r: (r["network"], r["budget"]))
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    names = [name for name in rows[0] if name.endswith(("loss", "top-1"))]
    facts = ("images", "seconds", "agreement", "regret")
    table = Table("network", "budget", "scheme", *names, *facts)
    for r in rows:
        cells = [f"{r[name]:.4f}" if name.endswith("loss") else f"{r[name]:.2f}" for name in names]
        table.add_row(
            r["network"], r["budget"], r["scheme"], *cells, *(f"{r[name]:.3g}" if name in r else "" for name in facts)
        )
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
