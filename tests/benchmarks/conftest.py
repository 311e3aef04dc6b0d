"""Import the scripts of benchmarks/."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """Import a script of the folder by name, as one that runs there does."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if (FOLDER / f"{name}.py").is_file():
                del sys.modules[name]
