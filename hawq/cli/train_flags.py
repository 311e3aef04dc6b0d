"""Declare the options of `hawq train`, a group for each panel of its help."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hawq.errors import UsageError

if TYPE_CHECKING:
    from hawq.bitconfig import BitConfig
    from hawq.quantizers import QuantOptions

__all__ = ["DistillFlags", "LogFlags", "OptimizerFlags", "QuantFlags", "RateFlags", "SpeedFlags", "TrainFlags"]


class _Method(StrEnum):
    NONE = "none"
    KD_NAIVE = "KD_naive"


class _Mode(StrEnum):
    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


class _Interval(StrEnum):
    STEP = "step"
    EPOCH = "epoch"


class _Precision(StrEnum):
    BF16 = "bf16"
    FP16 = "fp16"


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


_RECIPE = "the data set's recipe"
_TRAIN, _STEPS, _RATE = "Training", "Optimizer", "Learning rate"
_SPEED, _LOGS, _DISTILL, _QUANT = "Speed", "Logs", "Distillation", "Quantization"


@dataclass(frozen=True)
class TrainFlags:
    """How long to train, on what, and what is kept."""

    epochs: Annotated[
        int | None,
        _option(_TRAIN, "--epochs", min=0, help="Passes over the data; 0 calibrates alone.", show_default=_RECIPE),
    ] = None
    batch_size: Annotated[
        int | None,
        _option(_TRAIN, "--batch-size", "-b", min=1, help="Images computed at once.", show_default=_RECIPE),
    ] = None
    accumulate: Annotated[
        int, _option(_TRAIN, "--accumulate", min=1, help="Batches whose gradients make one step.")
    ] = 1
    resume: Annotated[
        Path | None,
        _option(
            _TRAIN,
            "--resume",
            help="Go on from this checkpoint. From one of another scheme, or of HAWQ's own, take the weights.",
        ),
    ] = None
    resume_quantize: Annotated[
        bool, _option(_TRAIN, "--resume-quantize", help="Take its activation ranges, too, where they fit.")
    ] = False
    start_epoch: Annotated[
        int, _option(_TRAIN, "--start-epoch", min=0, help="Epochs that count as done, for the schedule.")
    ] = 0
    evaluate: Annotated[bool, _option(_TRAIN, "--evaluate", "-e", help="Only evaluate the checkpoint.")] = False
    data_percentage: Annotated[
        float, _option(_TRAIN, "--data-percentage", min=0, max=1, help="Part of the training set, 0..1.")
    ] = 1.0
    label_smoothing: Annotated[
        float, _option(_TRAIN, "--label-smoothing", min=0, max=1, help="Share of a label spread over all classes.")
    ] = 0.0
    mixup: Annotated[
        float | None,
        _option(_TRAIN, "--mixup", metavar="ALPHA", help="Mix images in pairs by Beta(ALPHA, ALPHA); 0.2 is mild."),
    ] = None
    ema: Annotated[
        float | None,
        _option(
            _TRAIN,
            "--ema",
            metavar="DECAY",
            help="Evaluate and keep the average of the weights over the last 1/(1-DECAY) steps; 0.999.",
        ),
    ] = None
    evaluate_times: Annotated[
        int, _option(_TRAIN, "--evaluate-times", min=-1, help="Evaluations during one epoch; -1: one, at its end.")
    ] = -1
    patience: Annotated[
        int | None,
        _option(_TRAIN, "--patience", min=1, metavar="EPOCHS", help="Stop when top-1 got no better for so long."),
    ] = None
    checkpoint_iter: Annotated[
        int,
        _option(
            _TRAIN,
            "--checkpoint-iter",
            min=-1,
            metavar="STEP",
            help="After this step write every feature map as integers to features-STEP.safetensors; -1: never.",
        ),
    ] = -1
    save_minutes: Annotated[
        float, _option(_TRAIN, "--save-minutes", min=0, help="Between two checkpoints, at most.")
    ] = 5.0


@dataclass(frozen=True)
class OptimizerFlags:
    """What a step does."""

    optimizer: Annotated[
        str | None,
        _option(
            _STEPS,
            "--optimizer",
            metavar="NAME[:KEY=VALUE,...]",
            help="sgd:momentum=0.9,nesterov=false or adamw:beta1=0.9,beta2=0.999,eps=1e-08 (with a lower --lr).",
            show_default=_RECIPE,
        ),
    ] = None
    momentum: Annotated[float | None, _option(_STEPS, "--momentum", help="Of sgd.", show_default=_RECIPE)] = None
    nesterov: Annotated[bool, _option(_STEPS, "--nesterov", help="Let sgd look ahead by one momentum step.")] = False
    wd: Annotated[
        float | None, _option(_STEPS, "--wd", "--weight-decay", min=0, help="Weight decay.", show_default=_RECIPE)
    ] = None
    decay_small: Annotated[
        bool,
        _option(_STEPS, "--decay-small/--no-decay-small", help="Decay of 1-d tensors and depthwise weights."),
    ] = True
    group: Annotated[
        list[str] | None,
        _option(
            _STEPS,
            "--group",
            metavar="PATTERN:lr=X,wd=Y",
            help="Parameters with a rate of X times --lr, a weight decay of Y: '*.quantizer.*:lr=0.1'. May be given "
            "again; the last one that holds a parameter rules. Parameters of quantizers have no decay.",
        ),
    ] = None
    clip_grad_norm: Annotated[
        float | None, _option(_STEPS, "--clip-grad-norm", min=0, help="Largest norm of a step's gradient.")
    ] = None


@dataclass(frozen=True)
class RateFlags:
    """How fast to learn, and when."""

    lr: Annotated[float | None, _option(_RATE, "--lr", min=0, help="Highest learning rate.", show_default=_RECIPE)] = (
        None
    )
    lr_schedule: Annotated[
        str | None,
        _option(
            _RATE,
            "--lr-schedule",
            metavar="NAME[:KEY=VALUE,...]",
            help="step:period=30,gamma=0.1 (HAWQ's), cosine:floor=0, polynomial:power=1,floor=0, "
            "sgdr:period=10,growth=2,floor=0, exponential:gamma=0.95, one-cycle:rise=0.3 or constant. Periods are "
            "epochs, floors shares of --lr.",
            show_default=_RECIPE,
        ),
    ] = None
    warmup: Annotated[float, _option(_RATE, "--warmup", min=0, metavar="EPOCHS", help="Rise along a line first.")] = 0.0
    lr_interval: Annotated[_Interval, _option(_RATE, "--lr-interval", help="When the rate moves.")] = _Interval.STEP


@dataclass(frozen=True)
class SpeedFlags:
    """How the same is computed faster."""

    amp: Annotated[
        _Precision | None,
        _option(_SPEED, "--amp", help="Compute convolutions in half precision; quantizers stay in float32."),
    ] = None
    channels_last: Annotated[
        bool, _option(_SPEED, "--channels-last", help="Keep images and weights in the order NHWC.")
    ] = False
    compile: Annotated[
        bool, _option(_SPEED, "--compile", help="Compile forward and backward pass; pays in long trainings.")
    ] = False


@dataclass(frozen=True)
class LogFlags:
    """What is said while it trains, and where the metrics go besides metrics.csv and metrics.jsonl."""

    tensorboard: Annotated[
        bool, _option(_LOGS, "--tensorboard", help="Write TensorBoard's events beside the checkpoint.")
    ] = False
    print_freq: Annotated[
        int | None,
        _option(_LOGS, "--print-freq", "-p", min=1, metavar="STEPS", help="Print a line after every so many steps.",
                show_default="a bar on a terminal, else a line a minute"),
    ] = None  # fmt: skip
    mlflow: Annotated[bool, _option(_LOGS, "--mlflow", help="Log to MLflow, at MLFLOW_TRACKING_URI.")] = False


@dataclass(frozen=True)
class DistillFlags:
    """What to learn from a teacher."""

    distill_method: Annotated[
        _Method,
        _option(_DISTILL, "--distill-method", case_sensitive=False, help="KD_naive: learn from a teacher."),
    ] = _Method.NONE
    teacher_arch: Annotated[
        str | None, _option(_DISTILL, "--teacher-arch", help="Teacher.", show_default="the float network")
    ] = None
    teacher_weights: Annotated[
        Path | None, _option(_DISTILL, "--teacher-weights", help="Its weights.", show_default="download")
    ] = None
    distill_alpha: Annotated[float, _option(_DISTILL, "--distill-alpha", help="Share of the teacher, 0..1.")] = 0.95
    temperature: Annotated[float, _option(_DISTILL, "--temperature", help="That logits are divided by.")] = 6.0


@dataclass(frozen=True)
class QuantFlags:
    """How numbers become codes."""

    weight_quantizer: Annotated[
        str | None,
        _option(_QUANT, "--weight-quantizer", metavar="NAME", help="lsq, dorefa, ... (docs/quantizers).",
                show_default="minmax"),
    ] = None  # fmt: skip
    act_quantizer: Annotated[
        str | None,
        _option(_QUANT, "--act-quantizer", metavar="NAME", help="lsq, pact, ... (docs/quantizers).",
                show_default="minmax"),
    ] = None  # fmt: skip
    quant_mode: Annotated[
        _Mode,
        _option(_QUANT, "--quant-mode", help="asymmetric: zero points for tensors that go negative."),
    ] = _Mode.SYMMETRIC
    asymmetric: Annotated[bool, _option(_QUANT, "--asymmetric", help="The same as --quant-mode asymmetric.")] = False
    channel_wise: Annotated[
        bool, _option(_QUANT, "--channel-wise/--no-channel-wise", help="A weight scale for every output channel.")
    ] = True
    weight_group: Annotated[
        int | None,
        _option(_QUANT, "--weight-group", min=0, metavar="N", help="A weight scale for N output channels; 0: a layer.",
                show_default="1"),
    ] = None  # fmt: skip
    weight_norm: Annotated[
        str,
        _option(_QUANT, "--weight-norm", metavar="NAME",
                help="Of weights that share a scale, before they are quantized: none, mean, var or var-mean."),
    ] = "none"  # fmt: skip
    bias_bit: Annotated[
        int,
        _option(
            _QUANT,
            "--bias-bit",
            min=0,
            max=32,
            help="Bits of biases beside a shift for each channel; 0 and 32: all there are.",
        ),
    ] = 32
    weight_percentile: Annotated[
        float,
        _option(_QUANT, "--weight-percentile", metavar="P", help="Clip weights beyond percentile P: 99.9; 0: none."),
    ] = 0.0
    act_percentile: Annotated[
        float,
        _option(_QUANT, "--act-percentile", metavar="P", help="Clip activations beyond percentile P: 99.9; 0: none."),
    ] = 0.0
    act_range_momentum: Annotated[
        float, _option(_QUANT, "--act-range-momentum", help="Of activation ranges, 0..1; -1: running min and max.")
    ] = 0.99
    fix_bn: Annotated[
        bool | None,
        _option(_QUANT, "--fix-BN/--no-fix-BN", help="Keep batch norm's running statistics, folded.",
                show_default="on, off with units of 2 bits or less, whose statistics are others"),
    ] = None  # fmt: skip
    bn_momentum: Annotated[
        float, _option(_QUANT, "--bn-momentum", help="Weight of a batch in statistics that are not fixed, 0..1.")
    ] = 0.1
    fix_bn_threshold: Annotated[
        int | None,
        _option(_QUANT, "--fix-BN-threshold", min=0, metavar="BATCHES", help="Fold them after so many, in any case."),
    ] = None
    step_gradient: Annotated[
        str,
        _option(_QUANT, "--step-gradient", metavar="NAME",
                help="Factor on gradients of what is learned: paper, none, fan-scale, scale-fan, element-scale or "
                "scale-element (docs/quantizers/lsq.md)."),
    ] = "paper"  # fmt: skip
    sign_gradient: Annotated[
        str, _option(_QUANT, "--sign-gradient", help="Of binary activations: identity, ste, triangle or ste-scale.")
    ] = "triangle"
    pad_after_quant: Annotated[
        bool, _option(_QUANT, "--pad-after-quant", help="Pad binary maps with zero instead of the code of zero.")
    ] = False
    fixed_point_quantization: Annotated[
        bool,
        _option(_QUANT, "--fixed-point-quantization", help="Evaluate by fake quantization instead of integers."),
    ] = False

    def options(self, bits: "BitConfig") -> "QuantOptions":
        """Return the library's options for training a scheme.

        Raises:
            UsageError: a number is not allowed, no such quantizer, or a percentile beside another quantizer.
        """
        from hawq.quantizers import QuantOptions
        from hawq.train.recipes import keeps_statistics

        weight, weight_percentile = _range_rule("weight", self.weight_quantizer, self.weight_percentile)
        activation, act_percentile = _range_rule("act", self.act_quantizer, self.act_percentile)
        return QuantOptions(
            fix_bn=keeps_statistics(bits) if self.fix_bn is None else self.fix_bn,
            bn_momentum=self.bn_momentum,
            fix_bn_after=self.fix_bn_threshold,
            act_range_momentum=self.act_range_momentum,
            asymmetric=self.asymmetric or self.quant_mode is _Mode.ASYMMETRIC,
            weight_quantizer=weight,
            act_quantizer=activation,
            weight_percentile=weight_percentile,
            act_percentile=act_percentile,
            weight_group=self._weight_group(),
            weight_norm=self.weight_norm,
            bias_bits=self.bias_bit or 32,
            pad_after_quant=self.pad_after_quant,
            step_gradient=self.step_gradient,
            sign_gradient=self.sign_gradient,
            fixed_point=self.fixed_point_quantization,
        )

    def _weight_group(self) -> int:
        """Return the output channels that share a scale, 0 for all of a layer.

        Raises:
            UsageError: both options speak of them and disagree.
        """
        if self.weight_group is None:
            return 1 if self.channel_wise else 0
        if not self.channel_wise and self.weight_group:
            raise UsageError(
                f"--no-channel-wise and --weight-group {self.weight_group} exclude each other; leave one out"
            )
        return self.weight_group


def _range_rule(kind: str, name: str | None, percentile: float) -> tuple[str, float]:
    """Return the quantizer and the percentile that options ask for: a percentile asks for `percentile`."""
    if not percentile:
        return name or "minmax", 99.9
    if name not in (None, "percentile"):
        raise UsageError(f"--{kind}-percentile {percentile:g} and --{kind}-quantizer {name} exclude each other")
    return "percentile", percentile
