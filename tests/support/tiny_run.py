"""Set up a folder in which commands take milliseconds: a network's source, its weights and images."""

from pathlib import Path

import numpy as np
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from hawq.errors import HawqError
from hawq.files import write_tensors

NETWORK = '''
from torch import nn

class Tiny(nn.Module):
    """Stem, a block whose downsample branch is tied to its first convolution, head."""

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 1)
        self.conv3 = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, classes)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = self.relu(self.conv2(self.relu(self.conv1(x))) + self.down(x))
        return self.head(self.pool(self.relu(self.conv3(x))).flatten(1))

def tiny(num_classes=3):
    return Tiny(num_classes)
'''

OPTIONS = (
    "-a", "net.py:tiny", "--data", "npz", "--data-path", "images.npz", "--weights", "float.safetensors",
    "--images", "16", "-b", "8", "--run-dir", "run",
)  # fmt: skip


def set_up(place: Path) -> None:
    """Write `net.py`, `float.safetensors` and `images.npz`, the same every time."""
    (place / "net.py").write_text(NETWORK)
    names: dict = {}
    exec(NETWORK, names)
    torch.manual_seed(0)
    write_tensors(place / "float.safetensors", names["tiny"]().state_dict())
    rng = np.random.default_rng(0)
    arrays = {f"{s}_x": rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8) for s in ("train", "test")}
    arrays |= {f"{s}_y": rng.integers(0, 3, 24) for s in ("train", "test")}
    np.savez(place / "images.npz", **arrays)


def run_command(command, *arguments: str) -> Result:
    """Run a command function with `OPTIONS`; its HawqError is raised, any other failure is one of the test."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*OPTIONS, *arguments])
    if isinstance(result.exception, HawqError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result
