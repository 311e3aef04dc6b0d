"""Assemble the `hawq` command."""

import importlib
import os
import sys
import time

import typer

from hawq import __version__
from hawq.cli.console import console
from hawq.cli.processes import hush_followers, is_follower
from hawq.errors import HawqError

__all__ = ["app", "main"]

app = typer.Typer(
    name="hawq",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Quantize a CNN to 4 and 8 bits, compile it, and prove that every integer is the same everywhere.\n\n"
    "Start with [bold]hawq demo[/bold]; then search, train, export, verify, bench.",
)

_LEADER_SECONDS = 5.0
"""Within which the leader has said why all processes end, and torchrun has ended the others."""

_COMMANDS = ("demo", "search", "explain", "costs", "ptq", "analyze", "train", "eval", "export", "verify", "run",
             "bench", "profile")  # fmt: skip


def _version(show: bool) -> None:
    if show:
        typer.echo(f"hawq {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _register() -> None:
    """Add every command; a command's module holds a function of its own name and imports heavy packages inside it."""
    for name in _COMMANDS:
        module = importlib.import_module(f"hawq.cli.{name}")
        app.command(name)(getattr(module, name))


def run(application: typer.Typer) -> None:
    """Run an application and turn HawqError and Ctrl-C into a message and an exit code.

    Of the processes that torchrun starts the first one speaks; another one where it alone fails.
    """
    # One core is left to the rest of the machine: on a busy one, threads that wait for each other run ten times slower.
    # Under torchrun each process has one thread, however many there are, so that all numbers of them find the same.
    threads = 1 if "WORLD_SIZE" in os.environ else max(1, (os.cpu_count() or 2) - 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    hush_followers()
    try:
        application()
    except HawqError as error:
        if is_follower():
            time.sleep(_LEADER_SECONDS)
            console.quiet = False
        console.print(f"[bold red]error:[/bold red] {error}", markup=True, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.print("[bold]interrupted[/bold]; files written so far are complete, run the same command to go on")
        sys.exit(130)


def main() -> None:
    """Run the `hawq` command."""
    _register()
    run(app)
