"""Export ImageNet networks with random weights, verify them bit for bit and count tensor-core instructions.

    python benchmarks/networks.py [NETWORK ...] [--quick] [--json]

For each network and scheme: a library for the CPU, verified on random images tensor by tensor, its latency beside
PyTorch's float32 in the same run (one thread each), and a CUDA library for sm_80 and sm_90 with its IMMA instructions.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table

from hawq.bitconfig import BitConfig, UnitBits
from hawq.graph.ir import FloatGraph
from hawq.graph.structure import pinned_units, tie_groups
from hawq.graph.trace import trace
from hawq.models import create_model, input_spec
from hawq.qat.model import QuantizedModel
from hawq.schemes import uniform
from tvm_export import export, load, measure, verify
from tvm_export.cuda.toolchain import disassemble

NETWORKS = ("resnet18", "resnet50", "mobilenetv2_w1", "inceptionv3")
SCHEMES = ("uniform8", "uniform4", "mixed")


def mixed(arch: str, graph: FloatGraph) -> BitConfig:
    """Give every second unit, with all it is tied to, 4 bits."""
    low = {unit for index, unit in enumerate(graph.units) if index % 2} - pinned_units(graph)
    for group in tie_groups(graph):
        low = low | set(group) if group[0] in low else low - set(group)
    return BitConfig(arch, "mixed", {unit: UnitBits(4, 4) if unit in low else UnitBits(8, 8) for unit in graph.units})


def measure_network(arch: str, images: int, schemes: tuple[str, ...]) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model, size = create_model(arch), input_spec(arch).size or 224
    graph, batch = trace(model, (3, size, size)), torch.randn(images, 3, size, size)
    with torch.inference_mode():
        float_ms = measure(lambda: model(batch[:1]), seconds=1).median_ms
    rows = []
    for scheme in schemes:
        bits = mixed(arch, graph) if scheme == "mixed" else uniform(arch, graph, int(scheme[-1]))
        quantized = QuantizedModel(graph, bits)
        quantized.calibrate([batch])
        program = quantized.eval().lower()
        with tempfile.TemporaryDirectory() as folder:
            export(program, "llvm", Path(folder))
            compiled = load(Path(folder))
            report = verify(program, compiled, batch, until="all")
            latency = measure(compiled.runner(batch), seconds=1).median_ms
            cuda = export(program, "cuda", Path(folder) / "cuda", arch=["sm_80", "sm_90"])
            code = {name: re.findall(r"IMMA\.\S+", text) for name, text in disassemble(cuda).items()}
        counts = {name: {kind: found.count(kind) for kind in sorted(set(found))} for name, found in code.items()}
        row = {"network": arch, "scheme": scheme, "exact": report.exact, "integers": report.integers}
        rows.append(row | {"mismatch": str(report.mismatch or ""), "ms": latency, "float_ms": float_ms, "imma": counts})
        print(f"{arch} {scheme}: {'exact' if report.exact else report.mismatch}", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help="names as for -a")
    parser.add_argument("--quick", action="store_true", help="ResNet-18 at uniform4 only")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--images", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks, schemes = (("resnet18",), ("uniform4",)) if arguments.quick else (arguments.networks, SCHEMES)
    rows = [row for arch in networks for row in measure_network(arch, arguments.images, schemes)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("network", "scheme", "bit-exact integers", "llvm ms", "torch float32 ms", "sm_80 IMMA", "sm_90 IMMA")
    for row in rows:
        exact = f"{row['integers']:,}" if row["exact"] else row["mismatch"]
        kinds = [", ".join(f"{k.removeprefix('IMMA.')} x{n}" for k, n in row["imma"].get(a, {}).items())
                 for a in ("sm_80", "sm_90")]  # fmt: skip
        table.add_row(row["network"], row["scheme"], exact, f"{row['ms']:.2f}", f"{row['float_ms']:.2f}", *kinds)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
