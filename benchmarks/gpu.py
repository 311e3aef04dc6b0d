"""Time integer networks on a GPU beside torch, after checking that every logit is right.

    python benchmarks/gpu.py export DIR [--network resnet18 ...] [--batch 8 ...] [--arch sm_90] [--cuda-graph]
    python benchmarks/gpu.py run DIR [--seconds 2] [--no-peers] [--json FILE]

`export` needs TVM and no GPU; `run` needs a GPU and torch, and of TVM only the runtime (docs/deploy.md): take DIR
along. Weights are random, latency does not depend on them. Of each network, torch runs in float32 with TF32 off and on,
and in float16, channels last, compiled, inside a CUDA graph. Sides take turns.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

NETWORKS = ("resnet18", "resnet50", "mobilenetv2_w1")
SCHEMES = ("uniform8", "bops0.5", "uniform4")
BATCHES = (1, 8, 128)


def main() -> int:
    """Run one of the two commands; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="compile the libraries, with images and their integer logits")
    run = commands.add_parser("run", help="check and time them on this machine's GPU")
    for command in (export, run):
        command.add_argument("folder", type=Path)
    export.add_argument("--network", nargs="+", default=NETWORKS)
    export.add_argument("--scheme", nargs="+", choices=SCHEMES, default=SCHEMES)
    export.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    export.add_argument("--arch", default="sm_90")
    export.add_argument("--cuda-graph", action="store_true")
    export.add_argument("--quick", action="store_true", help="ResNet-18, uniform8, batch 8")
    run.add_argument("--seconds", type=float, default=2.0, help="for each side of each library")
    run.add_argument("--no-peers", action="store_true", help="time our libraries alone")
    run.add_argument("--layers", type=int, default=10, help="slowest layers to list of each library")
    run.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    if arguments.command == "export":
        from gpu_export import export_all

        if arguments.quick:
            arguments.network, arguments.scheme, arguments.batch = ["resnet18"], ["uniform8"], [8]
        export_all(arguments.folder, arguments.network, arguments.scheme, arguments.batch, arguments.arch,
                   cuda_graph=arguments.cuda_graph)  # fmt: skip
        return 0

    from gpu_run import missing, run_all

    if reason := missing():
        print(f"benchmarks/gpu.py run: {reason}", file=sys.stderr)
        return 1
    figures = run_all(arguments.folder, arguments.seconds, peers=not arguments.no_peers, layers=arguments.layers)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 0 if all(figure.exact for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
