"""Hand a choice problem, or its relaxation, to a solver through PuLP: HiGHS, or CBC where HiGHS is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pulp

from hawq.bitconfig import UnitBits
from hawq.errors import HawqError

__all__ = ["SOLVERS", "Choice", "Found", "Row", "minimise", "relax"]

Choice = tuple[int, UnitBits]
"""Index of a tie group, and the bits its units get."""

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Row:
    """State sum(coefficients of the chosen) <= bound.

    Attributes:
        coefficients: of every choice.
        bound: on their sum.
        scale: what both were divided by, in the unit of the cost.
    """

    coefficients: Mapping[Choice, float]
    bound: float
    scale: float = 1.0


@dataclass(frozen=True)
class Found:
    """Hold what a solver returned.

    Attributes:
        chosen: one choice of every group, in order.
        distance: how far the objective may still be from the optimum, at most.
        optimal: whether it is proven optimal.
        solver: the solver's name.
    """

    chosen: tuple[Choice, ...]
    distance: float
    optimal: bool
    solver: str


@dataclass(frozen=True)
class _Solver:
    name: str
    make: Callable[[float], pulp.LpSolver]
    bound: Callable[[pulp.LpProblem], float]


def _highs(time_limit: float) -> pulp.LpSolver:
    # HiGHS stops at a gap of 1e-4 and allows violations of 1e-6 unless told otherwise
    return pulp.HiGHS(
        msg=False,
        gapRel=0.0,
        gapAbs=_TOLERANCE / 10,
        threads=1,
        timeLimit=time_limit,
        mip_feasibility_tolerance=_TOLERANCE,
        primal_feasibility_tolerance=_TOLERANCE,
        dual_feasibility_tolerance=_TOLERANCE,
    )


def _cbc(time_limit: float) -> pulp.LpSolver:
    options = [f"primalTolerance {_TOLERANCE}", f"dualTolerance {_TOLERANCE}", "increment 1e-12"]
    return pulp.PULP_CBC_CMD(msg=False, gapRel=0.0, gapAbs=0.0, threads=1, timeLimit=time_limit, options=options)


_SOLVERS = (
    _Solver("HiGHS", _highs, lambda program: float(program.solverModel.getInfo().mip_dual_bound)),
    _Solver("CBC", _cbc, lambda program: float(pulp.value(program.objective))),
)

SOLVERS = ("HiGHS", "CBC")
"""Names of the solvers, in the order in which they are tried."""


def minimise(
    choices: Sequence[Choice],
    objective: Mapping[Choice, float],
    rows: Sequence[Row],
    time_limit: float,
    solvers: Sequence[str] = SOLVERS,
) -> Found | None:
    """Choose the bits of every group so that the objective is least and every row holds.

    Args:
        choices: the allowed (group, bits) pairs; groups are numbered from 0 without gaps.
        objective: coefficient of every choice; scaled so that differences below 1e-9 do not matter.
        rows: constraints, scaled alike.
        time_limit: seconds.
        solvers: names to try, in order; the first that is installed is used.

    Returns:
        The best assignment found, or None where none exists.

    Raises:
        HawqError: no solver is installed, or none found an assignment in time.
    """
    program, variables = _program(choices, objective, rows, pulp.LpBinary)
    solver, backend = _installed(solvers, time_limit)
    program.solve(backend)
    if program.status == pulp.LpStatusInfeasible:
        return None
    if program.status != pulp.LpStatusOptimal:
        raise HawqError(f"{solver.name} found no assignment in {time_limit:g} s; raise the budget a little")
    chosen = tuple(choice for choice in choices if variables[choice].value() > 0.5)
    optimal = program.sol_status == pulp.LpSolutionOptimal
    value = sum(objective[choice] for choice in chosen)
    return Found(chosen, 0.0 if optimal else max(0.0, value - solver.bound(program)), optimal, solver.name)


def relax(
    choices: Sequence[Choice],
    objective: Mapping[Choice, float],
    rows: Sequence[Row],
    time_limit: float = 60.0,
    solvers: Sequence[str] = SOLVERS,
) -> tuple[float, ...] | None:
    """Let every group mix its choices in shares that sum to 1, and return what a little more of each bound is worth.

    Args:
        choices: as for `minimise`.
        objective: as for `minimise`.
        rows: as for `minimise`.
        time_limit: seconds.
        solvers: as for `minimise`.

    Returns:
        Row by row, by how much the least objective falls for each unit that the bound rises (the dual of the linear
        program with its sign turned, 0 or more); None where no mixture meets the rows.

    Raises:
        HawqError: no solver is installed, or none finished in time.
    """
    program, _ = _program(choices, objective, rows, pulp.LpContinuous)
    solver, backend = _installed(solvers, time_limit)
    program.solve(backend)
    if program.status == pulp.LpStatusInfeasible:
        return None
    if program.status != pulp.LpStatusOptimal:
        raise HawqError(f"{solver.name} did not solve the relaxation in {time_limit:g} s")
    duals = (program.get_constraint_by_name(_row_name(index)).pi for index in range(len(rows)))
    return tuple(max(0.0, -float(dual)) for dual in duals)


def _installed(solvers: Sequence[str], time_limit: float) -> tuple[_Solver, pulp.LpSolver]:
    for solver in _SOLVERS:
        if solver.name in solvers and (backend := solver.make(time_limit)).available():
            return solver, backend
    raise HawqError("no MILP solver is installed; pip install highspy")


def _row_name(index: int) -> str:
    return f"row_{index}"


def _program(
    choices: Sequence[Choice], objective: Mapping[Choice, float], rows: Sequence[Row], category: str
) -> tuple[pulp.LpProblem, dict[Choice, pulp.LpVariable]]:
    program = pulp.LpProblem("bits", pulp.LpMinimize)
    variables = {
        (index, bits): program.add_variable(
            f"x_{index:04d}_w{bits.weight}_a{bits.activation}", lowBound=0, cat=category
        )
        for index, bits in choices
    }
    program += pulp.lpSum(objective[choice] * variables[choice] for choice in choices)
    by_group: dict[int, list[pulp.LpVariable]] = {}
    for choice in choices:
        by_group.setdefault(choice[0], []).append(variables[choice])
    for group in by_group.values():
        program += pulp.lpSum(group) == 1
    for index, row in enumerate(rows):
        total = pulp.lpSum(row.coefficients[choice] * variables[choice] for choice in choices)
        program += total <= row.bound, _row_name(index)
    return program, variables
