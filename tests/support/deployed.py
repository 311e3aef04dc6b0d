"""Train a small network for a few steps, and check that what trained is what runs, compiled too."""

from pathlib import Path

import torch
import torch.nn.functional as F
from networks import SIZE, build, images

from hawq.graph.trace import trace
from hawq.integer import IntegerProgram, ReferenceExecutor
from hawq.integer.ops import Bilinear
from hawq.qat.model import QuantizedModel
from hawq.quantizers import QuantOptions
from hawq.schemes import uniform
from tvm_export import export, load, verify
from tvm_export.llvm import LlvmBackend
from tvm_export.lower import sites

LR = 0.02


def fine_tuned(name: str, bits: int, steps: int = 3, lr: float = LR, **options: object) -> QuantizedModel:
    """Return a small network of a uniform scheme, calibrated and trained for a few steps."""
    graph = trace(build(name), (3, SIZE, SIZE))
    model = QuantizedModel(graph, uniform("net", graph, bits), QuantOptions(**options))
    model.calibrate([images(8, seed) for seed in (1, 2)])
    optimizer = torch.optim.SGD(model.train().parameters(), lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images(16, step)), torch.arange(16) % 10).backward()
        optimizer.step()
    return model.eval()


def interpolation_slack(op: Bilinear, source: torch.Tensor) -> float:
    """Return what weights rounded to 2^-part_bits do at most (arithmetic.fixed_positions), in the values' unit."""
    return 0.5 * 2**-op.part_bits * sum(float(source.diff(dim=axis).abs().max()) for axis in (2, 3))


def written(program: IntegerProgram) -> tuple[str, ...]:
    """Return the tensors that a CPU library writes to memory; others live inside of kernels."""
    return tuple(name for site in sites(program, LlvmBackend(), 1) for name in site.written)


def check_deployed(model: QuantizedModel, folder: Path) -> None:
    """Check that every integer of the compiled network equals the reference, and its logits the evaluation's.

    The simulation that trains must agree as well: but for roundings next to a tie, which 16-bit streams and sums in
    another order bring about, its logits are those of the integers.
    """
    program, batch = model.lower(), images(4, seed=7)
    assert model(batch).equal(ReferenceExecutor(program).logits(batch))
    export(program, "llvm", folder, batch=2)
    report = verify(program, load(folder), batch, until="all")
    assert report.exact
    assert report.tensors == written(program)


def simulation_error(model: QuantizedModel, count: int = 64) -> float:
    """Return the squared distance of simulated and integer outputs, relative to the variance of the latter.

    Of several outputs, that of the worst.
    """
    with torch.no_grad():
        exact, simulated = model(images(count, seed=9)), model._simulate(images(count, seed=9))
    pairs = [(simulated[name], exact[name]) for name in exact] if isinstance(exact, dict) else [(simulated, exact)]
    return max(float((found - wanted).pow(2).mean() / wanted.var()) for found, wanted in pairs)
