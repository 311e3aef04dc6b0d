"""`hawq train`, also `python quant_train.py`: fine-tune a quantized network."""

from functools import partial

from hawq.cli import options as opt
from hawq.cli.flags import takes_flags
from hawq.cli.processes import ProcessFlags, take_part
from hawq.cli.train_flags import (
    DistillFlags,
    LogFlags,
    OptimizerFlags,
    QuantFlags,
    RateFlags,
    SpeedFlags,
    TrainFlags,
)


@takes_flags
def train(
    *,
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    training: TrainFlags,
    steps: OptimizerFlags,
    rate: RateFlags,
    distill: DistillFlags,
    quant: QuantFlags,
    speed: SpeedFlags,
    logs: LogFlags,
    processes: ProcessFlags,
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
    epochs) where there is none. Several processes share the pieces of a step and come to what one comes to:
    torchrun --nproc-per-node 4 quant_train.py --batch-size 32 --accumulate 4 ...
    """
    from hawq.cli.console import console, print_json
    from hawq.cli.session import DataRequest, open_session
    from hawq.cli.train_report import save_report
    from hawq.cli.train_setup import criterion, logger_names, training_config
    from hawq.cli.training_progress import training_progress
    from hawq.distributed import world
    from hawq.schemes import check_exists, resolve_scheme
    from hawq.train.begin import Beginning
    from hawq.train.float import FloatRequest
    from hawq.train.quantized import QuantizedRun, evaluate_quantized, train_quantized
    from hawq.train.recipes import quantized_recipe

    device = processes.device(device)
    take_part(processes, device)
    group = world()
    check_exists(quant_scheme, arch)
    with group.leader_first():
        session = open_session(
            FloatRequest(arch, num_classes, pretrained, weights, seed),
            DataRequest(data, data_path, training.data_percentage, size, mean, std, interpolation),
            run_dir,
        )
    bits = resolve_scheme(quant_scheme, arch, session.graph)
    folder = session.run.scheme(bits.scheme)
    resume = training.resume or (session.run.best(bits.scheme) if training.evaluate else None)
    run = QuantizedRun(
        Beginning(bits, quant.options(bits), resume, training.resume_quantize),
        training_config(quantized_recipe(session.data.name), seed, training, steps, rate, speed),
        folder,
        device,
        workers,
        60 * training.save_minutes,
        criterion(training, distill, session, group.device(device)),
        logger_names(logs),
        training.start_epoch,
        None if training.checkpoint_iter < 0 else training.checkpoint_iter,
    )
    if training.evaluate:
        _, result = evaluate_quantized(run, session.graph, session.data, group)
    else:
        followed = partial(training_progress, f"training {bits.scheme}", logs.print_freq)
        try:
            _, result = train_quantized(run, session.graph, session.data, followed, group)
        except KeyboardInterrupt:
            console.print(
                f"stopped; every step so far is kept: go on with --resume {folder / 'checkpoint.pt'}", soft_wrap=True
            )
            raise
    if not group.leads:
        return
    report = save_report(result, folder)
    how = "simulated in float32" if quant.fixed_point_quantization else "computed in integers"
    console.print(f"{bits.scheme}: top-1 {result.top1:.2f}% over {result.images} images, {how}")
    given = {"-a": arch, "--data": data, "--data-path": data_path, "--quant-scheme": quant_scheme, "--size": size,
             "--mean": mean, "--std": std, "--interpolation": interpolation, "--run-dir": run_dir,
             "--num-classes": num_classes}  # fmt: skip
    command = opt.following("hawq export --target llvm", given)
    console.print(f"checkpoint: {folder / 'best.pt'}; next: {command}", soft_wrap=True)
    if as_json:
        print_json({"scheme": bits.scheme, **report})
