"""Measure networks at the task of a session's data, and show the figures side by side."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hawq.cli.console import print_table
from hawq.errors import UsageError
from hawq.task import Task

if TYPE_CHECKING:
    from hawq.cli.session import Session

__all__ = ["compare_quality"]

_TITLES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "miou": "mIOU %",
    "map07": "mAP VOC07 %",
    "map12": "mAP VOC12 %",
    "agreement": "same as float %",
    "images": "images",
}


def compare_quality(
    session: "Session", networks: Mapping[str, Callable[..., Any]], *, images: int | None = None, workers: int = 0
) -> dict[str, dict[str, float]]:
    """Measure networks on the test images, print a table, and return its figures.

    Args:
        session: gives the data.
        networks: by name, the float network first; from images to its outputs.
        images: at most.
        workers: threads that decode.

    Raises:
        UsageError: a detector that does not say how its outputs become boxes.
        HawqError: a network's outputs do not fit the data.
    """
    import torch

    from hawq.evaluation import Accuracy, evaluate

    decode = _decode(session)
    with torch.inference_mode():
        found = {
            name: evaluate(lambda batch, network=network: decode(network(batch)), session.data, images=images,
                           workers=workers)
            for name, network in networks.items()
        }  # fmt: skip
    reference = next(iter(found.values()))
    figures: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        same = {"agreement": one.agreement(reference)} if isinstance(one, Accuracy) else {}
        figures[name] = {**one.figures(), **same, "images": one.images}
    header = [_TITLES[name] for name in next(iter(figures.values()))]
    rows = [[name, *(f"{x:.2f}" if isinstance(x, float) else x for x in row.values())] for name, row in figures.items()]
    print_table(f"{session.arch} on {session.data.name}", ["network", *header], rows)
    return figures


def _decode(session: "Session") -> Callable[[Any], Any]:
    """Return what turns a network's outputs into what is measured."""
    if session.data.task is not Task.DETECTION:
        return lambda outputs: outputs
    decode = getattr(session.model, "decode", None)
    if decode is None:
        raise UsageError(
            f"{session.arch} does not say how its outputs become boxes: give its class a method decode(outputs) that "
            "returns the hawq.boxes.Detections of every image"
        )
    return decode
