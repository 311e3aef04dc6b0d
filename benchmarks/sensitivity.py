"""Time per-unit Hessian traces against PyHessian's machinery, and compare estimators with a long run.

    python benchmarks/sensitivity.py [--data ../shared/data] [--seconds 60] [--quick] [--json]

Every estimator looks at the same images, one thread, so that its spread is that of its random vectors alone.
*PyHessian* is its Hessian-vector product for a vector over all units and the inner product of each unit's part; the
others are ours. Batch norms are folded for all, so that all estimate the same traces. `time to error` is how long an
estimator needs until the standard error of the median unit, and of the worst, is 10% of the trace: seconds per probe
times (spread / (0.1 trace))^2. Rank correlation (Spearman) is that of the units' traces found in --seconds with those
of a long run, five times as long, of the estimator that is kept.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hawq.graph.interpret import run_float
from hawq.graph.ir import FloatGraph
from hawq.graph.trace import trace
from hawq.models import create_model
from hawq.qat.rewrites import folded_graph, weight_name
from hawq.sensitivity.curvature import curvature, label_residual, output_factor
from hawq.sensitivity.hutchinson import block_traces

TARGET = 0.1


@dataclass(frozen=True)
class Case:
    """A network and the images its traces are taken over."""

    name: str
    graph: FloatGraph
    images: Tensor
    labels: Tensor


class Folded(nn.Module):
    """The folded network with the units' weights as parameters, as PyHessian wants it."""

    def __init__(self, graph: FloatGraph) -> None:
        super().__init__()
        self.graph = graph
        self.weights = nn.ParameterList([graph.tensors[weight_name(unit)].clone() for unit in graph.units])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (N, classes)."""
        weights = {weight_name(unit): weight for unit, weight in zip(self.graph.units, self.weights, strict=True)}
        graph = replace(self.graph, tensors={**self.graph.tensors, **weights})
        return run_float(graph, images)[graph.output]


def pyhessian(case: Case, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield v_i . (H v)_i of every unit, by PyHessian."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    found = hessian(Folded(case.graph), F.cross_entropy, (case.images, case.labels), cuda=False)
    while True:
        vectors = [(torch.randint(0, 2, p.shape, generator=generator) * 2 - 1).to(p) for p in found.params]
        products = hessian_vector_product(found.gradsH, found.params, vectors)
        yield torch.stack([(v.double() * p).sum() for v, p in zip(vectors, products, strict=True)])


def hutchinson(case: Case, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield v_i . (H v)_i of every unit, by the metric `hutchinson`."""
    network = Folded(case.graph)
    leaves = dict(zip(case.graph.units, network.weights, strict=True))
    while True:
        yield from block_traces(leaves, lambda: F.cross_entropy(network(case.images), case.labels), 4, generator)


def gauss_newton(case: Case, generator: torch.Generator, direction: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield the mean over the images of ||J^T s||^2 of every unit."""
    while True:
        norms = curvature(case.graph, case.images, direction).weights
        yield torch.stack([values.mean() for values in norms.values()])


def sampled_labels(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return p - onehot(y) with labels drawn from the network's own softmax."""
    drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
    return label_residual(logits, drawn)


def controlled(case: Case, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the same as with random signs, less what ||s||^2 explains of it, whose mean 1 - sum p^2 is known.

    The coefficient of a unit is the regression over the images of its own probe.
    """
    while True:
        kept: list[Tensor] = []

        def direction(logits: Tensor, kept: list[Tensor] = kept) -> Tensor:
            s, p = output_factor(logits, generator), logits.detach().softmax(1)
            kept.append(s.double().square().sum(1) - (1 - p.double().square().sum(1)))
            return s

        norms = torch.stack(list(curvature(case.graph, case.images, direction).weights.values()))
        extra = kept[0] - kept[0].mean()
        slope = (norms - norms.mean(1, keepdim=True)) @ extra / extra.square().sum().clamp(min=1e-30)
        yield norms.mean(1) - slope * kept[0].mean()


ESTIMATORS: dict[str, Callable[[Case, torch.Generator], Iterator[Tensor]]] = {
    "PyHessian": pyhessian,
    "Hutchinson": hutchinson,
    "Gauss-Newton, sampled labels": lambda c, g: gauss_newton(c, g, partial(sampled_labels, generator=g)),
    "Gauss-Newton, control variate": controlled,
    "Gauss-Newton, random signs (kept)": lambda c, g: gauss_newton(c, g, partial(output_factor, generator=g)),
    "empirical Fisher": lambda c, g: gauss_newton(c, g, partial(label_residual, labels=c.labels)),
}
KEPT, PEER = "Gauss-Newton, random signs (kept)", "PyHessian"


@dataclass(frozen=True)
class Run:
    """Samples of an estimator, (probes, units), and the seconds of the set-up and of each probe."""

    samples: Tensor
    setup: float
    seconds: float

    @property
    def means(self) -> Tensor:
        """Estimate of every unit's trace, (units,)."""
        return self.samples.mean(0)

    def time_to_error(self, traces: Tensor) -> Tensor:
        """Return for every unit the seconds until its standard error is 10% of the trace."""
        return self.setup + self.seconds * (self.samples.std(0) / (TARGET * traces)) ** 2


def run(case: Case, estimator: str, seconds: float, seed: int = 0, least: int = 8) -> Run:
    """Draw probes until the time is up; at least eight."""
    gc.collect()
    started = time.perf_counter()
    source = ESTIMATORS[estimator](case, torch.Generator().manual_seed(seed))
    samples, ends = [], []
    while len(samples) < least or time.perf_counter() - started < seconds:
        samples.append(next(source))
        ends.append(time.perf_counter())
    # PyHessian computes the gradient once, before its first probe; the others do so for each probe or each four
    each = (ends[-1] - ends[0]) / (len(ends) - 1) if estimator == PEER else (ends[-1] - started) / len(ends)
    return Run(torch.stack(samples), ends[0] - started - each if estimator == PEER else 0.0, each)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def compare(case: Case, seconds: float) -> list[dict[str, Any]]:
    long = run(case, KEPT, 5 * seconds, seed=1)
    traces, rows = long.means, []
    for name in ESTIMATORS:
        print(f"{case.name}: {name}", file=sys.stderr)
        found = run(case, name, seconds)
        times = found.time_to_error(traces)
        error = (long.samples.var(0) / len(long.samples) + found.samples.var(0) / len(found.samples)).sqrt()
        rows.append({
            "network": case.name, "estimator": name, "images": len(case.labels), "probes": len(found.samples),
            "seconds a probe": found.seconds, "time to error, median unit": float(times.median()),
            "time to error, worst unit": float(times.max()), "rank correlation": rank_correlation(found.means, traces),
            "deviation / error": float(((found.means - traces) / error.clamp(min=1e-30)).abs().median()),
            "total": float(found.means.sum() / traces.sum()),
            "per unit": dict(zip(case.graph.units, times.tolist(), strict=True)),
        })  # fmt: skip
    peer = next(row for row in rows if row["estimator"] == PEER)
    for row in rows:
        ratios = [peer["per unit"][unit] / own for unit, own in row["per unit"].items() if own > 0]
        row["times faster, median unit"] = float(np.median(ratios)) if ratios else None
        row["times faster, least unit"] = float(np.min(ratios)) if ratios else None
    return rows


def cases(data: Path, quick: bool) -> Iterator[Case]:
    """Yield ResNet-18 at 224 x 224 and, where the data is there, networks with real weights on real images."""
    torch.manual_seed(0)
    graph = folded_graph(trace(create_model("resnet18"), (3, 224, 224)))
    images = torch.randn(2 if quick else 8, 3, 224, 224)
    labels = run_float(graph, images)[graph.output].argmax(1)
    yield Case("resnet18 (224, random weights)", graph, images, labels)
    if quick or not (data / "weights").is_dir():
        return
    arrays = np.load(data / "cifar10" / "cifar10_lossless.npz")
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    pixels = torch.from_numpy(arrays["train_x"][:256]).float() / 255
    images, labels = ((pixels - mean) / std).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(arrays["train_y"][:256])
    for depth in (20, 56):
        weights = data / "weights" / f"cifar10_resnet{depth}_pytorchcv.pth"
        model = create_model(f"resnet{depth}_cifar10", weights=weights)
        yield Case(f"resnet{depth}, CIFAR-10", folded_graph(trace(model, (3, 32, 32))), images, labels.long())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=60, help="for each estimator and network")
    parser.add_argument("--quick", action="store_true", help="ResNet-18 on two images, under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = 3 if arguments.quick else arguments.seconds
    rows = [row for case in cases(arguments.data, arguments.quick) for row in compare(case, seconds)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    names = [name for name in rows[0] if name != "per unit"]
    table = Table(*names)
    for row in rows:
        table.add_row(*(f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
