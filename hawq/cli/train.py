"""`hawq train`, also `python quant_train.py`: fine-tune a quantized network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hawq.cli import options as opt

if TYPE_CHECKING:
    from torch import nn

    from hawq.cli.session import Session

_TRAIN, _QUANT, _DISTILL = "Training", "Quantization", "Distillation"
_METHODS = ("none", "kd_naive")


def train(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=0, help="Passes over the data; 0 calibrates alone.", rich_help_panel=_TRAIN),
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.", rich_help_panel=_TRAIN)] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", "-b", min=1, help="Images per step.", rich_help_panel=_TRAIN)
    ] = None,
    momentum: Annotated[
        float | None, typer.Option("--momentum", help="Momentum of SGD.", rich_help_panel=_TRAIN)
    ] = None,
    wd: Annotated[
        float | None, typer.Option("--wd", "--weight-decay", help="Weight decay.", rich_help_panel=_TRAIN)
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on from this checkpoint.", rich_help_panel=_TRAIN)
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", "-e", help="Only evaluate the checkpoint.", rich_help_panel=_TRAIN)
    ] = False,
    data_percentage: Annotated[
        float, typer.Option("--data-percentage", min=0, max=1, help="Part of the training set.", rich_help_panel=_TRAIN)
    ] = 1.0,
    save_minutes: Annotated[
        float, typer.Option("--save-minutes", min=0, help="Between two checkpoints, at most.", rich_help_panel=_TRAIN)
    ] = 5.0,
    clip_grad_norm: Annotated[
        float | None,
        typer.Option("--clip-grad-norm", min=0, help="Largest norm of a step's gradient.", rich_help_panel=_TRAIN),
    ] = None,
    label_smoothing: Annotated[
        float,
        typer.Option("--label-smoothing", min=0, max=1, help="Share spread over all classes.", rich_help_panel=_TRAIN),
    ] = 0.0,
    distill_method: Annotated[
        str, typer.Option("--distill-method", help="none, or KD_naive: learn from a teacher.", rich_help_panel=_DISTILL)
    ] = "none",
    teacher_arch: Annotated[
        str | None,
        typer.Option("--teacher-arch", help="Teacher.", show_default="the float network", rich_help_panel=_DISTILL),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option("--teacher-weights", help="Its weights.", show_default="download", rich_help_panel=_DISTILL),
    ] = None,
    distill_alpha: Annotated[
        float, typer.Option("--distill-alpha", help="Share of the teacher, 0..1.", rich_help_panel=_DISTILL)
    ] = 0.95,
    temperature: Annotated[
        float, typer.Option("--temperature", help="That logits are divided by.", rich_help_panel=_DISTILL)
    ] = 6.0,
    fix_bn: Annotated[
        bool, typer.Option("--fix-BN/--no-fix-BN", help="Fold running statistics.", rich_help_panel=_QUANT)
    ] = True,
    act_range_momentum: Annotated[
        float, typer.Option(help="Of activation ranges, 0..1; -1: running min and max.", rich_help_panel=_QUANT)
    ] = 0.99,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Zero points for signed activations.", rich_help_panel=_QUANT)
    ] = False,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    workers: opt.WorkersOption = 0,
    device: opt.DeviceOption = "cpu",
    seed: opt.SeedOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Fine-tune a network at the bits of a scheme; evaluation is in exact integers.

    Example: python quant_train.py --quant-scheme bops0.5

    Settings that are not given come from the data set's recipe; HAWQ's (lr 1e-4, weight decay 1e-4, batch 128, 90
    epochs) where there is none.
    """
    from dataclasses import replace

    from hawq.cli.console import console, print_json
    from hawq.cli.session import DataRequest, open_session
    from hawq.cli.training_progress import training_progress
    from hawq.errors import UsageError
    from hawq.qat.checkpoint import load_quantized
    from hawq.qat.plan import QuantOptions
    from hawq.schemes import resolve_scheme
    from hawq.train.criterion import Criterion, CrossEntropy, Distillation
    from hawq.train.evaluate import accuracy
    from hawq.train.float import FloatRequest
    from hawq.train.quantized import QuantizedRun, train_quantized
    from hawq.train.recipes import quantized_recipe

    method = distill_method.lower()
    if method not in _METHODS:
        raise UsageError(f"--distill-method {distill_method!r}: allowed are none and KD_naive")
    session = open_session(
        FloatRequest(arch, num_classes, pretrained, weights, seed),
        DataRequest(data, data_path, data_percentage, size, mean, std, interpolation),
        run_dir,
    )
    bits = resolve_scheme(quant_scheme, arch, session.graph)
    folder = session.run.scheme(bits.scheme)
    if evaluate:
        model = load_quantized(resume or session.run.best(bits.scheme), session.graph)
        result = accuracy(model, session.data.batches("test", 128, workers=workers))
    else:
        settings = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "momentum": momentum, "weight_decay": wd,
                 "clip_norm": clip_grad_norm}  # fmt: skip
        recipe = replace(quantized_recipe(session.data.name), seed=seed)
        config = replace(recipe, **{name: value for name, value in settings.items() if value is not None})
        options = QuantOptions(fix_bn, act_range_momentum, asymmetric)
        hard = CrossEntropy(label_smoothing)
        criterion: Criterion = hard
        if method == "kd_naive":
            teacher = _teacher(session, teacher_arch, teacher_weights).to(device)
            criterion = Distillation(teacher, hard, distill_alpha, temperature)
        quantized = QuantizedRun(bits, options, config, folder, device, resume, workers, 60 * save_minutes, criterion)
        try:
            _, result = train_quantized(
                quantized, session.graph, session.data, lambda: training_progress(f"training {bits.scheme}")
            )
        except KeyboardInterrupt:
            console.print(
                f"stopped; every step so far is kept: go on with --resume {folder / 'checkpoint.pt'}", soft_wrap=True
            )
            raise
    console.print(f"{bits.scheme}: top-1 {result.top1:.2f}% over {result.images} images, computed in integers")
    given = {"-a": arch, "--data": data, "--data-path": data_path, "--quant-scheme": quant_scheme, "--size": size,
             "--mean": mean, "--std": std, "--interpolation": interpolation, "--run-dir": run_dir}  # fmt: skip
    command = opt.following("hawq export --target llvm", given)
    console.print(f"checkpoint: {folder / 'best.pt'}; next: {command}", soft_wrap=True)
    if as_json:
        print_json({"scheme": bits.scheme, "top1": result.top1, "top5": result.top5, "images": result.images})


def _teacher(session: "Session", arch: str | None, weights: Path | None) -> "nn.Module":
    """Return the teacher, in evaluation mode: the float network of the run, or another one."""
    from hawq.models import create_model

    if arch is None:
        return session.model.eval()
    classes = session.data.num_classes if weights is not None else None
    return create_model(arch, num_classes=classes, pretrained=weights is None, weights=weights).eval()
