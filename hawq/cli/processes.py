"""Take part in a training of several processes: HAWQ's --dist-* options in torchrun's terms."""

import logging
import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer

from hawq.cli.console import console
from hawq.errors import UsageError

__all__ = ["ProcessFlags", "hush_followers", "is_follower", "take_part"]

_PANEL = "Processes"


class _Backend(StrEnum):
    GLOO = "gloo"
    NCCL = "nccl"


def _option(*names: str, **settings: object) -> object:
    return typer.Option(*names, rich_help_panel=_PANEL, **settings)  # type: ignore[call-overload]


@dataclass(frozen=True)
class ProcessFlags:
    """Which of several processes this one is; torchrun says all of it by itself."""

    multiprocessing_distributed: Annotated[
        bool,
        _option("--multiprocessing-distributed", help="Start a process for every GPU, or core, of this machine."),
    ] = False
    world_size: Annotated[
        int,
        _option("--world-size", min=-1, help="Processes; machines with --multiprocessing-distributed.",
                show_default="1"),
    ] = -1  # fmt: skip
    rank: Annotated[
        int, _option("--rank", min=-1, help="Of this process, or machine: 0.. --world-size - 1.", show_default="0")
    ] = -1
    dist_url: Annotated[str, _option("--dist-url", help="Where the process of rank 0 listens.")] = (
        "tcp://127.0.0.1:29500"
    )
    dist_backend: Annotated[
        _Backend | None,
        _option("--dist-backend", help="What carries tensors.", show_default="gloo on CPUs, nccl on GPUs"),
    ] = None
    gpu: Annotated[int | None, _option("--gpu", min=0, help="Index of the GPU of a single process.")] = None

    def device(self, name: str) -> str:
        """Return the device, with the GPU that --gpu names."""
        return name if self.gpu is None else f"cuda:{self.gpu}"


def is_follower() -> bool:
    """Tell whether another process speaks and writes for this one."""
    return int(os.environ.get("RANK", "0")) > 0


def hush_followers() -> None:
    """Let only the process of rank 0 print."""
    console.quiet = is_follower()
    logging.disable(logging.WARNING if is_follower() else logging.NOTSET)


def take_part(flags: ProcessFlags, device: str) -> None:
    """Put this process where the flags say: into the environment that torchrun would give it.

    With --multiprocessing-distributed, torchrun replaces this process and runs the same command in several.

    Raises:
        UsageError: --rank is not of the --world-size, or --dist-url no tcp://HOST:PORT.
    """
    if "WORLD_SIZE" not in os.environ and (flags.multiprocessing_distributed or flags.world_size > 1):
        size, rank = max(1, flags.world_size), max(0, flags.rank)
        if rank >= size:
            raise UsageError(f"--rank {rank} with --world-size {size}: give a rank of 0..{size - 1}")
        host, port = _address(flags.dist_url)
        if flags.multiprocessing_distributed:
            _become_torchrun(size, rank, host, port, device)
        os.environ.update(WORLD_SIZE=str(size), RANK=str(rank), MASTER_ADDR=host, MASTER_PORT=str(port))
        os.environ.setdefault("LOCAL_RANK", str(flags.gpu if flags.gpu is not None else rank))
        hush_followers()
    if flags.dist_backend is not None:
        os.environ["HAWQ_DIST_BACKEND"] = flags.dist_backend.value


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "tcp" or not parts.hostname or not parts.port:
        raise UsageError(f"--dist-url {url!r}: give tcp://HOST:PORT, for example tcp://192.168.0.1:29500")
    return parts.hostname, parts.port


def _become_torchrun(machines: int, machine: int, host: str, port: int, device: str) -> None:
    """Run the same command once for every GPU, or every core, of this machine."""
    import torch

    here = torch.cuda.device_count() if device.startswith("cuda") else os.cpu_count() or 1
    where = [f"--nnodes={machines}", f"--node-rank={machine}", f"--master-addr={host}", f"--master-port={port}"]
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={here}", *where, *sys.argv]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, launch)
