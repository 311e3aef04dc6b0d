"""Hold the figures that HAWQ-V3 published for its schemes (arXiv 2011.10680 and its model zoo)."""

import csv
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["PublishedFigures", "published_figures"]


@dataclass(frozen=True)
class PublishedFigures:
    """State one row of the published table.

    Attributes:
        size_mb: size of the parameters in the publication's MB.
        bops_g: bit operations for one image in the publication's G.
        top1: accuracy on ImageNet in percent.
        speedup: over float32; None where none was published.
        latency_ms: milliseconds per batch of 8 on a Tesla T4; None where none was published.
    """

    size_mb: float
    bops_g: float
    top1: float
    speedup: float | None
    latency_ms: float | None


def published_figures(arch: str, scheme: str) -> PublishedFigures | None:
    """Return the published row of a scheme, or None where there is none.

    Args:
        arch: `resnet18`, `resnet50`, or for `float32` alone `resnet101`, `resnet101b`, `inceptionv3`.
        scheme: `float32`, `uniform8`, `uniform4`, or `size`, `bops` or `latency` with 0.75, 0.5 or 0.25.
    """
    lines = (files("search") / "model_zoo.csv").read_text().splitlines()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        if (row["network"], row["scheme"]) == (arch, scheme):
            speedup, latency = (float(row[name]) if row[name] else None for name in ("speedup", "t4_batch8_ms"))
            return PublishedFigures(
                float(row["size_mb"]), float(row["bops_g"]), float(row["top1"]), speedup=speedup, latency_ms=latency
            )
    return None
