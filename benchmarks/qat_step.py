"""Time one step of quantization-aware training of ResNet-18 beside the float step and other people's QAT.

Example: python benchmarks/qat_step.py --quick

A step is forward, backward and update by SGD with momentum. The sides take turns, so that a busy machine slows them
alike: a ratio is the median, over the rounds, of a side's time over the float step's of the same round. Brevitas and
torchao are measured where they are installed, in their steady state, after their ranges have been initialised.
"""

import importlib.metadata
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Any

import typer

_ARCH = "resnet18"
_CLASSES = 1000
_FLOAT = "float"


@dataclass(frozen=True)
class Case:
    """What every side trains.

    Attributes:
        batch: images per step.
        size: of the square images, pixels.
        device: cpu or cuda.
    """

    batch: int
    size: int
    device: str

    def network(self) -> Any:
        """Return the float network, the same weights every time; its last pool takes images of any size."""
        import torch

        from hawq.models import create_model

        torch.manual_seed(0)
        network = create_model(_ARCH, num_classes=_CLASSES)
        network.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
        return network

    def images(self) -> Any:
        """Return the images, float32, (batch, 3, size, size)."""
        import torch

        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(self.device)

    def step(self, model: Any) -> Callable[[], None]:
        """Return a function that takes one step of a model in training mode and waits for its end."""
        import torch

        model.to(self.device)
        images = self.images()
        labels = torch.randint(_CLASSES, (self.batch,), generator=torch.Generator().manual_seed(2)).to(self.device)
        optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)

        def take() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            if self.device == "cuda":
                torch.cuda.synchronize()

        return take


@dataclass(frozen=True)
class Side:
    """One way to take the step.

    Attributes:
        build: makes the step; raises ImportError where a package is missing.
        title: a line of the table.
        package: what it needs beyond hawq.
    """

    build: Callable[[Case], Callable[[], None]]
    title: str
    package: str | None = None


_SIDES: dict[str, Side] = {}


def _side(name: str, title: str, package: str | None = None) -> Callable[[Any], Any]:
    def register(build: Callable[[Case], Callable[[], None]]) -> Callable[[Case], Callable[[], None]]:
        _SIDES[name] = Side(build, title, package)
        return build

    return register


@_side(_FLOAT, "float32, batch norm training")
def _float(case: Case) -> Callable[[], None]:
    return case.step(case.network().train())


def _ours(bits: int, fix_bn: bool) -> None:
    name = f"uniform{bits}{'-fix-BN' if fix_bn else ''}"

    @_side(name, f"hawq, uniform{bits}{', fixed BN' if fix_bn else ''}")
    def build(case: Case) -> Callable[[], None]:
        from hawq.graph.trace import trace
        from hawq.qat.model import QuantizedModel
        from hawq.quantizers import QuantOptions
        from hawq.schemes import uniform

        graph = trace(case.network(), (3, case.size, case.size))
        model = QuantizedModel(graph, uniform(_ARCH, graph, bits), QuantOptions(fix_bn=fix_bn)).to(case.device)
        model.calibrate([case.images()])
        return case.step(model.train())


for _bits in (8, 4):
    for _fix in (False, True):
        _ours(_bits, _fix)


@_side("published", "HAWQ-V3's algorithm, 8 bits, fixed BN")
def _published(case: Case) -> Callable[[], None]:
    from hawq_qat import HawqResNet18

    return case.step(HawqResNet18(case.network()).train())


@_side("brevitas", "Brevitas, int8 per channel", package="brevitas")
def _brevitas(case: Case) -> Callable[[], None]:
    """Replace the layers by Brevitas' with its usual int8 quantizers; skip connections stay float, in its favour."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
    from torch import nn

    def quantized(layer: nn.Module) -> nn.Module:
        match layer:
            case nn.Conv2d():
                geometry = {"stride": layer.stride, "padding": layer.padding}
                shape = (layer.in_channels, layer.out_channels, layer.kernel_size)
                return qnn.QuantConv2d(*shape, **geometry, bias=False, weight_quant=Int8WeightPerChannelFloat)
            case nn.Linear():
                shape = (layer.in_features, layer.out_features)
                return qnn.QuantLinear(*shape, bias=True, weight_quant=Int8WeightPerChannelFloat)
            case nn.ReLU():
                return qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, collect_stats_steps=1)
        return layer

    network = case.network()
    for module in list(network.modules()):
        for name, layer in module.named_children():
            setattr(module, name, quantized(layer))
    image = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, collect_stats_steps=1)
    return case.step(nn.Sequential(image, network).train())


@_side("torchao", "torchao PT2E, X86Inductor int8", package="torchao")
def _torchao(case: Case) -> Callable[[], None]:
    import torch
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    exported = torch.export.export(case.network().to(case.device).train(), (case.images(),))
    return case.step(prepare_qat_pt2e(exported.module(), quantizer))


@dataclass(frozen=True)
class Figure:
    """One side, measured.

    Attributes:
        name: as for --only.
        title: what it is.
        seconds: median time of a step; None where a package is missing.
        ratio: median over the rounds of its time over the float step's.
        note: version of its package, or how to install it.
    """

    name: str
    title: str
    seconds: float | None
    ratio: float | None
    note: str


def measure(case: Case, names: list[str], repeat: int) -> list[Figure]:
    """Build the sides and let them take turns; the first of `names` is the float step.

    Args:
        case: what to train.
        names: of sides.
        repeat: rounds that count.
    """
    steps, notes = {}, {}
    for name in names:
        package = _SIDES[name].package
        try:
            steps[name] = _SIDES[name].build(case)
            notes[name] = f"{package} {importlib.metadata.version(package)}" if package else ""
        except ModuleNotFoundError as error:
            if package is None or error.name is None or error.name.split(".")[0] != package:
                raise
            notes[name] = f"not measured: pip install {package}"
    for step in steps.values():
        for _ in range(2):  # allocate, and initialise ranges
            step()
    rounds = [{name: _seconds(step) for name, step in steps.items()} for _ in range(repeat)]
    figures = []
    for name in names:
        seconds = ratio = None
        if name in steps:
            seconds = median(times[name] for times in rounds)
            ratio = median(times[name] / times[_FLOAT] for times in rounds)
        figures.append(Figure(name, _SIDES[name].title, seconds, ratio, notes[name]))
    return figures


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def benchmark(
    batch: Annotated[int | None, typer.Option(min=2, help="Images per step: 32, on a GPU 128.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Of the images, pixels: 224.")] = None,
    repeat: Annotated[int | None, typer.Option(min=1, help="Rounds that count: 7.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="A side beside the float step; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="8 images of 64 pixels, 3 rounds: half a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Put one JSON document on stdout.")] = False,
) -> None:
    """Time a training step of ResNet-18: float, hawq, HAWQ-V3's published algorithm, Brevitas and torchao."""
    unknown = [name for name in only or [] if name not in _SIDES]
    if unknown:
        raise typer.BadParameter(f"no side {', '.join(unknown)}; allowed are {', '.join(_SIDES)}", param_hint="--only")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when torch starts its threads
    import torch

    from hawq.cli.console import print_json, print_table

    warnings.filterwarnings("ignore")  # the peers' deprecations would drown the table
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    usual = (8, 64, 3) if quick else (128 if device == "cuda" else 32, 224, 7)
    case, repeat = Case(batch or usual[0], size or usual[1], device), repeat or usual[2]
    names = [_FLOAT, *(name for name in _SIDES if name != _FLOAT and (only is None or name in only))]
    figures = measure(case, names, repeat)
    rows = [
        [
            f.title,
            "-" if f.seconds is None else f"{f.seconds:.3f}",
            "-" if f.ratio is None else f"{f.ratio:.2f}",
            f.note,
        ]
        for f in figures
    ]
    title = f"A training step of ResNet-18, {case.batch} images of {case.size} pixels, {device}, {threads} thread(s)"
    print_table(title, ["step", "s", "of float", ""], rows)
    if as_json:
        facts = {**asdict(case), "threads": threads, "repeat": repeat, "torch": torch.__version__}
        print_json({**facts, "figures": [asdict(figure) for figure in figures]})


if __name__ == "__main__":
    typer.run(benchmark)
