"""`hawq eval`: quality of the float network, and of a scheme in integers."""

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
    """Measure the float network and a scheme's integer program on the test images.

    Classifiers: top-1 and top-5; segmentation: mIOU; detection: mAP as of VOC 2007 and of VOC 2012.

    Example: hawq eval --quant-scheme uniform8 --target llvm
    """
    from hawq.cli.console import print_json
    from hawq.cli.quality import compare_quality
    from hawq.cli.session import DataRequest, open_session
    from hawq.qat.checkpoint import load_quantized
    from hawq.schemes import scheme_of
    from hawq.train.float import FloatRequest

    session = open_session(
        FloatRequest(arch, num_classes, pretrained, weights),
        DataRequest(data, data_path, size=size, mean=mean, std=std, interpolation=interpolation),
        run_dir,
    )
    networks, scheme = {"float": session.model}, scheme_of(quant_scheme, arch)
    if session.run.best(scheme).is_file():
        networks[f"{scheme}, integers"] = load_quantized(session.run.best(scheme), session.graph)
    if target is not None:
        from tvm_export import load

        networks[f"{scheme}, {target}"] = load(session.run.export(scheme, target)).logits
    figures = compare_quality(session, networks, images=images, workers=workers)
    if as_json:
        print_json(figures)
