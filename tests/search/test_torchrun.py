"""`torchrun -m hawq search` shares the batches and finds the same bytes as one process."""

import os
import subprocess
import sys

import pytest
from test_search_command import place  # noqa: F401  (a fixture)

ARGUMENTS = [
    "-a", "net.py:tiny", "--data", "npz", "--data-path", "images.npz", "--weights", "float.safetensors",
    "--images", "24", "-b", "2", "--budget", "bops0.5",
]  # fmt: skip


def _search(processes, folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    own = ["-m", "hawq", "search", *ARGUMENTS, "--run-dir", folder, "-o", f"{folder}.json", "--json"]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    result = subprocess.run([*command, *own], capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


def test_two_processes_find_what_one_finds(place):  # noqa: F811
    alone, shared = _search(1, "one"), _search(2, "two")
    files = [place / "{}" / "sensitivity-jacobian.json", place / "{}.json", place / "{}" / "costs.json"]
    for file in files:
        one, two = (place / str(file.relative_to(place)).format(name) for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), file
    assert shared.stdout.replace("two", "one") == alone.stdout  # one JSON document, from one process
    assert shared.stderr.count("bit config: two.json") == 1


@pytest.mark.slow
def test_four_processes_too(place):  # noqa: F811
    _search(1, "one")
    _search(4, "four")
    for name in ("{}/sensitivity-jacobian.json", "{}.json"):
        assert (place / name.format("one")).read_bytes() == (place / name.format("four")).read_bytes()
