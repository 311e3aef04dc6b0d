"""Imports go one way: hawq.integer at the bottom, search and tvm_export above hawq, hawq.cli above all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for package in ("hawq", "search", "tvm_export") for path in sorted((ROOT / package).rglob("*.py"))]


_PLAIN = ("hawq.errors", "hawq.files", "hawq.hardware", "hawq.images", "hawq.outputs")
"""What runs without torch as well."""


def _imported(path):
    """Yield every module a file imports, inside functions too, as a dotted name with its line."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def _within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _forbidden(path):
    """Return what a file of this place must not import, apart from what it may."""
    place = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    if _within(place, ["hawq.integer"]):
        return ["hawq", "search", "tvm_export"], ["hawq.integer", "hawq.errors", "hawq.files", "hawq.outputs"]
    if _within(place, ["hawq.runtime"]):
        return ["hawq", "search", "tvm_export", "torch", "tvm"], ["hawq.runtime", *_PLAIN]
    if place in _PLAIN:
        return ["hawq", "search", "tvm_export"], ["hawq.errors"]
    if _within(place, ["hawq.cli", "hawq.__main__"]):
        return [], []
    if _within(place, ["hawq"]):
        return ["search", "tvm_export", "hawq.cli"], []
    if _within(place, ["search"]):
        return ["tvm_export", "hawq.cli"], []
    return ["search", "hawq.cli"], []


def test_there_is_something_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == {"hawq", "search", "tvm_export"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    forbidden, allowed = _forbidden(path)
    wrong = [
        f"line {line}: {name}"
        for name, line in _imported(path)
        if _within(name, forbidden) and not _within(name, allowed)
    ]
    assert not wrong


def test_the_check_sees_imports_inside_functions_and_relative_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "hawq" / "integer" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    import search.solve\nfrom ..graph import ir\nfrom . import ops\n")
    assert sorted(_imported(path)) == [("hawq.graph.ir", 3), ("hawq.integer.ops", 4), ("search.solve", 2)]


def _run(code):
    environment = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)


def test_import_hawq_works_without_cuda_and_loads_nothing_heavy():
    heavy = ["torch", "tvm", "torchvision", "pulp", "sklearn", "typer"]
    done = _run(f"import sys, hawq; print(hawq.__version__, *(m for m in {heavy} if m in sys.modules))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [__import__("hawq").__version__]


def test_the_integer_program_loads_without_tvm_or_a_solver():
    done = _run("import sys, hawq.integer, hawq.qat; print([m for m in ('tvm', 'pulp', 'typer') if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_loader_of_libraries_loads_neither_torch_nor_tvm():
    done = _run(
        "import sys, hawq.runtime; print([m for m in ('torch', 'tvm', 'typer', 'safetensors') if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["hawq", "search", "tvm_export"])
def test_packages_declare_their_types(package):
    assert (ROOT / package / "py.typed").is_file()
