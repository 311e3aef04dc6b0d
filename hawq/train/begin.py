"""Begin a training: from the float network, where another training stopped, or from a checkpoint of another kind."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawq.bitconfig import BitConfig
from hawq.checkpoint import is_checkpoint, read_checkpoint
from hawq.errors import HawqError
from hawq.graph.ir import FloatGraph
from hawq.hawq_checkpoints import HawqCheckpoint, fill, read_hawq_checkpoint, set_ranges
from hawq.qat.checkpoint import restore
from hawq.qat.model import QuantizedModel
from hawq.qat.transfer import carry_ranges, start_from
from hawq.quantizers import QuantOptions
from hawq.train.config import TrainConfig
from hawq.train.feed import Feed

__all__ = ["Beginning", "begin"]

_LOG = logging.getLogger(__name__)

_CALIBRATION_IMAGES = 256
_CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class Beginning:
    """Say from what a training begins.

    Attributes:
        bits: of every unit.
        options: of quantization.
        resume: a checkpoint. Of the same bits and quantizers: training goes on. Of others, or HAWQ's own: its weights
            and batch norms are taken, and the rest begins anew.
        ranges: in the latter case, take the activation ranges, too, where they fit; otherwise they are calibrated.
    """

    bits: BitConfig
    options: QuantOptions
    resume: Path | None = None
    ranges: bool = False


def begin(wanted: Beginning, graph: FloatGraph, feed: Feed) -> tuple[QuantizedModel, dict[str, Any] | None]:
    """Return a model, calibrated or trained so far, and the state of the training that goes on with it, if one does.

    Args:
        wanted: from what to begin.
        graph: the float network; weights of HAWQ's files are copied into it.
        feed: of the training; gives the images to calibrate with.

    Raises:
        UsageError: no such file.
        HawqError: the checkpoint is torn or belongs to another network.
    """
    if wanted.resume is None:
        return _calibrated(QuantizedModel(graph, wanted.bits, wanted.options), feed), None
    if not is_checkpoint(wanted.resume):
        return _from_hawq(wanted.resume, wanted, graph, feed), None
    body = read_checkpoint(wanted.resume)
    old = restore(body, graph)
    if "count" not in body or not _goes_on(old, wanted):  # without a count nothing was trained (`hawq ptq`)
        return _from_other(old, wanted, feed), None
    if body["count"]:
        _check_same_order(wanted.resume, feed.config, body["settings"])
    model = QuantizedModel(graph, wanted.bits, wanted.options)
    model.load_state_dict(body["model"])
    return model.to(feed.device), body


def _calibrated(model: QuantizedModel, feed: Feed) -> QuantizedModel:
    model.to(feed.device).calibrate(feed.calibration(_CALIBRATION_IMAGES, _CALIBRATION_BATCH))
    return model


def _goes_on(old: QuantizedModel, wanted: Beginning) -> bool:
    """Tell whether a checkpoint has the quantizers that are wanted."""
    same = (old.bits.units, old.bits.quantizers) == (wanted.bits.units, wanted.bits.quantizers)
    names = ("weight_quantizer", "act_quantizer", "asymmetric", "weight_group", "weight_norm")
    return same and all(getattr(old.options, name) == getattr(wanted.options, name) for name in names)


def _from_other(old: QuantizedModel, wanted: Beginning, feed: Feed) -> QuantizedModel:
    model, left = start_from(old, wanted.bits, wanted.options)
    _calibrated(model, feed)
    kept = carry_ranges(old.to(feed.device), model) if wanted.ranges else tuple(model.plan.stored)
    said = [f"{wanted.resume} holds {old.bits.scheme}: its weights and batch norms begin {wanted.bits.scheme}"]
    said += [f"{len(kept)} activations are calibrated anew"] if kept else []
    said += [f"the weight quantizers of {len(left)} units start anew"] if left else []
    _LOG.warning(", ".join(said))
    return model


def _from_hawq(path: Path, wanted: Beginning, graph: FloatGraph, feed: Feed) -> QuantizedModel:
    checkpoint = read_hawq_checkpoint(path, graph)
    _check_known(checkpoint)
    fill(graph, checkpoint)
    model = _calibrated(QuantizedModel(graph, wanted.bits, wanted.options), feed)
    if wanted.ranges:
        kept = set_ranges(model, checkpoint)
        _LOG.warning("%s has no ranges for %d activations: those are calibrated", path, len(kept))
    return model


def _check_known(checkpoint: HawqCheckpoint) -> None:
    """Check that every entry of a file has its place in the network.

    Raises:
        HawqError: some have none.
    """
    if checkpoint.unknown:
        shown = ", ".join(checkpoint.unknown[:4])
        raise HawqError(
            f"{checkpoint.path} holds {len(checkpoint.unknown)} entries that this network does not know, first "
            f"{shown}; give the -a it was trained with"
        )


def _check_same_order(path: Path, config: TrainConfig, settings: Mapping[str, Any]) -> None:
    """Check that the rest of an epoch holds the images that were not seen yet.

    Raises:
        HawqError: another seed or number of images in a step.
    """
    for name in ("seed", "batch_size", "accumulate"):
        now = getattr(config, name)
        if settings[name] != now:
            raise HawqError(
                f"{path} was saved within an epoch with {name} {settings[name]}, given is {now}; "
                f"resume with --{name.replace('_', '-')} {settings[name]}"
            )
