"""Write a found scheme to its file, and tell people how it came about and how sure it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawq.bitconfig import BitConfig, UnitBits
from hawq.cli import options as opt
from hawq.cli.console import console, print_table
from search.costs import save_costs

if TYPE_CHECKING:
    from hawq.cli.session import Session
    from hawq.sensitivity import Sensitivity
    from search.confidence import Confidence
    from search.scheme import Scheme

__all__ = ["omega_text", "point_on", "report", "save_scheme", "scheme_facts"]

_DOUBT = 0.1
"""Units whose bits change in more than this share of the resamples are named."""


def save_scheme(
    scheme: "Scheme", measured: "Sensitivity", sure: "Confidence", session: "Session", output: Path | None = None
) -> Path:
    """Write the bit config, with how it came about, and the run's unit costs; return the config's path."""
    path = output or BitConfig.default_path(scheme.config.arch, scheme.config.scheme)
    scheme.config.save(path, search=scheme_facts(scheme, measured, sure))
    save_costs(session.run.costs, scheme.facts, range(2, 9))
    return path


def scheme_facts(scheme: "Scheme", measured: "Sensitivity", sure: "Confidence") -> dict[str, Any]:
    """Return what the bit config is kept with: budgets, costs, solver, sensitivities and confidence."""
    solution = scheme.solution
    return {
        "budgets": {name: {"limit": limit, "cost": solution.costs[name]} for name, limit in solution.limits.items()},
        "totals": scheme.totals,
        "objective": solution.objective,
        "gap": solution.gap,
        "solver": solution.solver,
        "sensitivity": {
            "metric": measured.metric,
            "options": dict(measured.options),
            "images": measured.images,
            "key": measured.key,
        },
        "confidence": {
            "resamples": sure.resamples,
            "agreement": sure.agreement,
            "regret": sure.regret,
            "changes": {unit: share for unit, share in sure.changes.items() if share},
        },
        "environment": dict(measured.environment),
    }


def report(scheme: "Scheme", measured: "Sensitivity", sure: "Confidence", agreement: float) -> None:
    """Print the units, the totals, the budgets and how sure the scheme is."""
    rows = []
    least = min(scheme.question.allowed)
    for name, fact in scheme.facts.items():
        searched = name in scheme.solution.bits
        changes = f"{sure.changes[name]:.0%}" if searched else "-"
        bits = f"{scheme.config.units[name]}" + ("" if searched else " *")
        omega = omega_text(measured, name, least)
        rows.append([name, f"{fact.weights:,}", f"{fact.macs / 1e6:.3f}", omega, bits, changes])
    print_table(
        f"{scheme.config.arch}, {scheme.config.scheme}",
        ["unit", "weights", "MACs (M)", f"Omega at {least} bits", "bits", "changes"],
        rows,
        caption=f"changes: share of {sure.resamples} resamples with other bits; * not searched: first and last units",
    )
    costs = scheme.question.costs
    totals = [
        [name, *(f"{costs[cost].scaled(value):.3f}" for cost, value in row.items())]
        for name, row in scheme.totals.items()
    ]
    header = ["scheme", *(f"{cost.name} ({cost.symbol})" for cost in costs.values())]
    print_table("Totals, all units", header, totals)
    solution = scheme.solution
    for budget in scheme.question.budgets:
        used, allowed = (budget.cost.scaled(x[budget.name]) for x in (solution.costs, solution.limits))
        console.print(f"budget {budget.name}: {used:.3f} of {allowed:.3f} {budget.cost.symbol}")
    console.print(f"sum of Omega {solution.objective:.4g}, gap {solution.gap:.2g} ({solution.solver})")
    console.print(_verdict(sure, agreement))


def omega_text(measured: "Sensitivity", unit: str, bits: UnitBits) -> str:
    """Return Omega with its standard error, where there is one."""
    error = measured.error(unit, bits)
    return f"{measured.omega(unit, bits):.3g}" + ("" if error is None else f" ± {error:.2g}")


def _verdict(sure: "Confidence", agreement: float) -> str:
    if sure.regret is None:
        return "not stable: a single batch cannot be resampled; measure more --images or smaller --batch-size"
    share = f"{sure.agreement:.0%} of {sure.resamples} resamples give this very scheme"
    if sure.agreement >= agreement:
        return f"stable: {share}"
    doubtful = [f"{unit} ({share:.0%})" for unit, share in sure.changes.items() if share > _DOUBT]
    units = f"; in doubt: {', '.join(doubtful)}" if doubtful else ""
    return (
        f"[bold yellow]not stable[/]: {share}, the scheme loses {sure.regret:.2%} of the sum of Omega on average"
        f"{units}. Measure more --images, or --pin the units"
    )


def point_on(scheme: str, path: Path, given: Mapping[str, object]) -> None:
    """Name the file that was written and the command that uses it."""
    command = opt.following(f"python quant_train.py --quant-scheme {scheme}", given)
    console.print(f"bit config: {path}; next: {command}", soft_wrap=True)
