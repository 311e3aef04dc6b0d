"""Name the files of a run: `runs/<arch>-<data>/...`."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunDir", "slug"]


def slug(name: str) -> str:
    """Return a model or scheme name as a file name: `torchvision:resnet18` -> `torchvision-resnet18`."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", name).strip("-")


@dataclass(frozen=True)
class RunDir:
    """Hold the root of one run and name every file in it (design.md, "Files a run writes")."""

    root: Path

    @classmethod
    def of(cls, arch: str, data: str, run_dir: Path | None = None) -> "RunDir":
        """Return `run_dir`, or the default place `runs/<arch>-<data>`."""
        return cls(run_dir if run_dir is not None else Path("runs") / f"{slug(arch)}-{slug(data)}")

    @property
    def float_weights(self) -> Path:
        """Weights of the float network."""
        return self.root / "float.safetensors"

    @property
    def distilled(self) -> Path:
        """Images distilled from the float network."""
        return self.root / "distilled.safetensors"

    def sensitivity(self, metric: str) -> Path:
        """Per-unit sensitivities by one metric, sample by sample."""
        return self.root / f"sensitivity-{metric}.json"

    @property
    def costs(self) -> Path:
        """Per-unit costs."""
        return self.root / "costs.json"

    @property
    def pareto(self) -> Path:
        """Front of sensitivity against each cost; its figure lies beside it as `.png`."""
        return self.root / "pareto.json"

    def latency(self, target: str) -> Path:
        """Latency table of a target: `llvm` or `cuda`."""
        return self.root / f"latency-{target}.json"

    def scheme(self, name: str) -> Path:
        """Folder of one scheme."""
        return self.root / slug(name)

    def checkpoint(self, name: str) -> Path:
        """Training checkpoint of a scheme."""
        return self.scheme(name) / "checkpoint.pt"

    def best(self, name: str) -> Path:
        """Best checkpoint of a scheme."""
        return self.scheme(name) / "best.pt"

    def analysis(self, name: str) -> Path:
        """Table of what each unit of a scheme loses; its figure lies beside it as `.png`."""
        return self.scheme(name) / "analysis.csv"

    def program(self, name: str) -> Path:
        """IntegerProgram of a scheme (`.json`; its tensors lie beside it as `.safetensors`)."""
        return self.scheme(name) / "program.json"

    def export(self, name: str, target: str) -> Path:
        """Folder of a compiled library: `target` is `llvm` or `cuda`."""
        return self.scheme(name) / "export" / target

    def tuning(self, name: str, target: str) -> Path:
        """Log of the measurements that chose a library's plans."""
        return self.export(name, target) / "tuning.jsonl"
