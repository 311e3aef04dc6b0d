"""Our libraries in benchmarks/cpu.py: uniform8, bops0.5 and uniform4, and uniform8 compiled for lesser CPUs."""

from pathlib import Path
from typing import Any

from cpu_sides import Candidate, Side, Subject, register

__all__ = ["scheme_of"]


def scheme_of(name: str, arch: str, graph: Any) -> Any:
    """Return a bit config: the searched or published one, else the best one if all weights were equally sensitive.

    That one minimises sum_i n_i * 4^-b_i over n_i weights of b_i bits, the size of rounding errors, within the budget.

    Args:
        name: uniform8, uniform4, or a budget such as bops0.5.
        arch: name of the network.
        graph: the network.
    """
    from hawq.errors import UsageError
    from hawq.schemes import resolve_scheme
    from search import Question, find_scheme, parse_budget

    try:
        return resolve_scheme(name, arch, graph)
    except UsageError:
        question = Question(arch, graph, (parse_budget(name),))
        return find_scheme(question, lambda unit, bits: question.facts[unit].weights * 4.0**-bits.weight).config


@register("uniform8-avxvnni", "uniform8", "alderlake")
@register("uniform8-avx2", "uniform8", "haswell")
@register("uniform4", "uniform4")
@register("bops0.5", "bops0.5")
@register("uniform8", "uniform8")
class _Ours(Side):
    """A library of a scheme; every integer of it is compared with the reference executor before it is timed.

    Args:
        scheme: uniform8, uniform4, or a budget.
        mcpu: LLVM's name of the CPU it is compiled for; by default this machine's.
    """

    def __init__(self, scheme: str, mcpu: str | None = None) -> None:
        self.title = f"hawq, {scheme}" + (f" for {mcpu}" if mcpu else "")
        self.usual = mcpu is None
        self._scheme, self._mcpu = scheme, mcpu

    def _library(self, folder: Path) -> Path:
        return folder / self.title

    def prepare(self, subject: Subject, folder: Path) -> str:
        from hawq.qat.model import QuantizedModel
        from tvm_export import export, load, verify

        graph, images = subject.graph(), subject.images()
        model = QuantizedModel(graph, scheme_of(self._scheme, subject.network, graph))
        model.calibrate([images])
        program = model.eval().lower()
        library = export(program, "llvm", self._library(folder), batch=subject.batch, mcpu=self._mcpu).parent
        report = verify(program, load(library), images, until="all")
        report.raise_if_failed()
        return f"{report.integers:,} integers equal"

    def load(self, subject: Subject, folder: Path, threads: int) -> list[Candidate]:
        from tvm_export import load

        return [Candidate("", load(self._library(folder)).runner(subject.images()))]
