"""Time integer networks on the CPU beside PyTorch's float32, after checking that every integer is right.

Example: python benchmarks/llvm.py --quick

Weights are random: latency does not depend on them. Each side runs in a process of its own, so that the waiting
threads of one runtime cannot disturb the other. With several threads, measure on an idle machine only: PyTorch's
workers spin at every barrier, and on a busy one its figure jumps by an order of magnitude.
"""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

_T = TypeVar("_T")
_NETWORKS = {"resnet18": 224, "resnet50": 224, "mobilenetv2_w1": 224, "inceptionv3": 299}
_QUICK = ("resnet18",)


@dataclass(frozen=True)
class Figure:
    """One network at one scheme.

    Attributes:
        network: its name.
        scheme: bits.
        ours_ms: median latency of the library, batch 1, in milliseconds.
        torch_ms: median latency of PyTorch's float32 eager, the same image.
        integers: how many integers of all tensors were compared with the reference executor, all equal.
    """

    network: str
    scheme: str
    ours_ms: float
    torch_ms: float
    integers: int


def _alone(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _network(name: str, seed: int) -> Any:
    import torch

    from hawq.models import create_model

    torch.manual_seed(seed)
    return create_model(name).eval()


def _image(size: int) -> Any:
    import torch

    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


def _ours(name: str, size: int, bits: int, seconds: float, seed: int) -> tuple[float, int]:
    """Return the median latency and the number of integers that were compared."""
    from hawq.graph.trace import trace
    from hawq.qat.model import QuantizedModel
    from hawq.schemes import uniform
    from tvm_export import export, load, measure, verify

    graph, image = trace(_network(name, seed), (3, size, size)), _image(size)
    model = QuantizedModel(graph, uniform(name, graph, bits))
    model.calibrate([image])
    program = model.eval().lower()
    with tempfile.TemporaryDirectory() as folder:
        export(program, "llvm", Path(folder))
        compiled = load(Path(folder))
    report = verify(program, compiled, image, until="all")
    report.raise_if_failed()
    return measure(compiled.runner(image), seconds=seconds).median_ms, report.integers


def _peer(name: str, size: int, threads: int, seconds: float, seed: int) -> float:
    import torch

    from tvm_export import measure

    torch.set_num_threads(threads)
    model, image = _network(name, seed), _image(size)
    with torch.inference_mode():
        return measure(lambda: model(image), seconds=seconds).median_ms


def benchmark(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each side.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each figure.")] = 3.0,
    quick: Annotated[bool, typer.Option("--quick", help="ResNet-18 only; under a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")] = False,
) -> None:
    """Time ResNet-18, ResNet-50, MobileNetV2 and Inception-V3 at 8 and 4 bits, batch 1."""
    from hawq.cli.console import print_json, print_table

    # both are read once, when a process starts its threads
    os.environ["TVM_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    figures = []
    for name in _QUICK if quick else _NETWORKS:
        size = _NETWORKS[name]
        peer = _alone(_peer, name, size, threads, seconds, seed)
        for bits in (8, 4):
            ours, integers = _alone(_ours, name, size, bits, seconds, seed)
            figures.append(Figure(name, f"uniform{bits}", ours, peer, integers))
    rows = [
        [
            f.network,
            f.scheme,
            f"{f.ours_ms:.2f}",
            f"{f.torch_ms:.2f}",
            f"{f.torch_ms / f.ours_ms:.1f}x",
            f"{f.integers:,}",
        ]
        for f in figures
    ]
    header = ["network", "scheme", "hawq, llvm (ms)", "torch float32 (ms)", "speed", "integers equal"]
    print_table(f"Median latency, batch 1, {threads} thread{'s' if threads > 1 else ''}", header, rows)
    if as_json:
        print_json({"threads": threads, "figures": [asdict(figure) for figure in figures]})


if __name__ == "__main__":
    typer.run(benchmark)
