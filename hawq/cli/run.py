"""`hawq run`: an exported library on image files, with TVM's runtime alone."""

from pathlib import Path
from typing import Annotated

import typer

from hawq.cli import options as opt


def run(
    folder: Annotated[Path, typer.Argument(help="Folder of model.so and manifest.json.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to name for each image.")] = 5,
    repeat: Annotated[int, typer.Option("--repeat", min=0, help="Time the first batch this often.")] = 0,
    threads: opt.ThreadsOption = None,
    tvm_runtime: Annotated[
        Path | None,
        typer.Option("--tvm-runtime", help="Folder of libtvm_runtime.so.", show_default="that of apache-tvm"),
    ] = None,
    logits: Annotated[Path | None, typer.Option("--logits", help="Write the integer logits to this .npy file.")] = None,
    raw: Annotated[Path | None, typer.Option("--raw", help="Write the prepared images here, as bare bytes.")] = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Run an exported library on images and name the best classes.

    Example: hawq run runs/resnet20_cifar10-digits/bops0.5/export/llvm photo.png --repeat 100

    Where torch is not installed: python -m hawq.runtime DIR IMAGE...
    """
    from hawq.cli.console import console, print_json
    from hawq.runtime.command import RunRequest, describe, run_images

    request = RunRequest(folder, tuple(images), top, repeat, threads, tvm_runtime, logits, raw)
    document = run_images(request)
    for line in describe(document):
        console.print(line, markup=False, soft_wrap=True)
    if as_json:
        print_json(document)
