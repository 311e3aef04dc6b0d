"""The 18 published programs (methods.md, section 3): 17 shipped assignments are optimal, one is not."""

import json
import time
from pathlib import Path

import pytest

from hawq.errors import HawqError, UsageError
from search.published import published_programs
from search.solve import solve

INPUTS = Path(__file__).parents[3] / "shared" / "notes" / "published_ilp_inputs.json"
NOT_OPTIMAL = ("resnet50", "size0.25")
PROGRAMS = [
    (arch, f"{cost}{alpha}")
    for arch in ("resnet18", "resnet50")
    for cost in ("size", "bops", "latency")
    for alpha in (0.75, 0.5, 0.25)
]


@pytest.fixture(scope="module")
def programs():
    if not INPUTS.is_file():
        pytest.skip(f"{INPUTS.name} is not here: it lies in ../shared/notes beside the repository")
    return {(program.arch, program.scheme): program for program in published_programs(INPUTS)}


def test_there_are_eighteen(programs):
    assert list(programs) == PROGRAMS


@pytest.mark.parametrize(("arch", "scheme"), PROGRAMS)
def test_the_published_programs(programs, arch, scheme):
    program = programs[arch, scheme]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        solution = solve(program.problem)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.1
    assert program.gain(solution.bits) == pytest.approx(program.optimum_gain, abs=1e-6)
    assert solution.bits == program.optimum
    if (arch, scheme) == NOT_OPTIMAL:
        assert program.problem.constraints[0].total(program.shipped) <= program.problem.constraints[0].limit
        assert solution.objective < program.problem.objective(program.shipped) - 0.008
    else:
        assert solution.bits == program.shipped


def test_a_file_that_holds_no_programs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        published_programs(tmp_path / "absent.json")
    for text in ("[]", "{}", '{"models": {"resnet18": {}}}', "{"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(HawqError, match="does not hold the inputs of the published programs"):
            published_programs(tmp_path / "x.json")
    unknown = {"models": {"resnet34": {"layers": [], "tied_pairs": [], "solutions": {}}}}
    (tmp_path / "x.json").write_text(json.dumps(unknown))
    with pytest.raises(HawqError, match="does not hold"):
        published_programs(tmp_path / "x.json")
