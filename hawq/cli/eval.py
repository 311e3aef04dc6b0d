"""`hawq eval`: accuracy of the float network, and of a scheme in integers."""

from typing import Annotated

import typer

from hawq.cli import options as opt


def eval(
    arch: opt.ArchOption = opt.DEFAULT_ARCH,
    data: opt.DataOption = opt.DEFAULT_DATA,
    data_path: opt.DataPathOption = None,
    quant_scheme: opt.SchemeOption = opt.DEFAULT_SCHEME,
    target: Annotated[str | None, typer.Option("--target", help="Also run the compiled library: llvm or cuda.")] = None,
    images: Annotated[int | None, typer.Option("--images", "-n", min=1, help="Test images at most.")] = None,
    run_dir: opt.RunDirOption = None,
    pretrained: opt.PretrainedOption = False,
    weights: opt.WeightsOption = None,
    num_classes: opt.NumClassesOption = None,
    size: opt.SizeOption = None,
    mean: opt.MeanOption = None,
    std: opt.StdOption = None,
    interpolation: opt.InterpolationOption = None,
    workers: opt.WorkersOption = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Measure top-1 and top-5 of the float network and of a scheme's integer program on the test images.

    Example: hawq eval --quant-scheme uniform8 --target llvm
    """
    import torch

    from hawq.cli.console import print_json, print_table
    from hawq.cli.session import DataRequest, open_session
    from hawq.qat.checkpoint import load_quantized
    from hawq.schemes import scheme_of
    from hawq.train.evaluate import accuracy
    from hawq.train.float import FloatRequest

    session = open_session(
        FloatRequest(arch, num_classes, pretrained, weights),
        DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation),
        run_dir,
    )
    models, scheme = {"float": session.model}, scheme_of(quant_scheme, arch)
    if session.run.best(scheme).is_file():
        models[f"{scheme}, integers"] = load_quantized(session.run.best(scheme), session.graph)
    if target is not None:
        from tvm_export import load

        models[f"{scheme}, {target}"] = load(session.run.export(scheme, target)).logits
    with torch.inference_mode():
        found = {
            name: accuracy(model, session.data.batches("test", 64, limit=images, workers=workers))
            for name, model in models.items()
        }
    reference = found["float"]
    rows = [[n, f"{a.top1:.2f}", f"{a.top5:.2f}", f"{a.agreement(reference):.2f}", a.images] for n, a in found.items()]
    print_table(f"{arch} on {session.data.name}", ["network", "top-1 %", "top-5 %", "same as float %", "images"], rows)
    if as_json:
        print_json({n: {"top1": a.top1, "top5": a.top5, "agreement": a.agreement(reference), "images": a.images}
                    for n, a in found.items()})  # fmt: skip
