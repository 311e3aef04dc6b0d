"""Tell people, and programs, what `hawq explain` found."""

from collections.abc import Mapping, Sequence
from math import inf, log
from typing import TYPE_CHECKING, Any

from hawq.cli.console import console, print_table
from hawq.cli.scheme_report import omega_text

if TYPE_CHECKING:
    from hawq.bitconfig import BitConfig, UnitBits
    from hawq.sensitivity import Sensitivity
    from search.costs import Cost
    from search.explain import Explanation, Step
    from search.scheme import Question

__all__ = ["facts_of", "report"]


def report(config: "BitConfig", question: "Question", measured: "Sensitivity", found: "Explanation") -> None:
    """Print the units, what each budget is worth, and the steps, those closest to flipping first."""
    costs = question.costs
    searched = {unit for group in question.groups for unit in group}
    rows = [
        [
            name,
            str(unit.bits) + ("" if name in searched else " *"),
            omega_text(measured, name, unit.bits),
            *(f"{cost.scaled(unit.costs[kind]):.3g}" for kind, cost in costs.items()),
        ]
        for name, unit in found.units.items()
    ]
    columns = [f"{kind} ({cost.symbol})" for kind, cost in costs.items()]
    print_table(
        f"{config.arch}, {config.scheme}: what each unit suffers and costs",
        ["unit", "bits", "Omega at its bits", *columns],
        rows,
        caption="* not searched: first and last units",
    )
    _print_budgets(costs, found)
    _print_steps(costs, found, columns)


def _print_budgets(costs: Mapping[str, "Cost"], found: "Explanation") -> None:
    for name, budget in found.budgets.items():
        cost = costs[budget.cost]
        used, limit = cost.scaled(budget.used), cost.scaled(budget.limit)
        price = budget.price * cost.suffixes[cost.symbol]
        worth = f"{price:.3g} of the sum of Omega for each {cost.symbol} more" if price else "0, it does not bind"
        console.print(f"budget {name}: {used:.4g} of {limit:.4g} {cost.symbol} used; shadow price {worth}")


def _print_steps(costs: Mapping[str, "Cost"], found: "Explanation", columns: Sequence[str]) -> None:
    priced = bool(found.budgets)
    rows = []
    for step in sorted(found.steps, key=_distance):
        changes = [f"{cost.scaled(step.costs[kind]):+.3g}" for kind, cost in costs.items()]
        extra = ["-" if step.worth is None else f"{step.worth:.2f}", "yes" if step.fits else "no"] if priced else []
        rows.append(["\n".join(step.before), _move(step), f"{step.omega:+.3g}", *changes, *extra])
    header = ["units (tied ones move together)", "step", "Omega", *columns]
    print_table(
        "One step up or down: changes" + (", the closest to flipping first" if priced else ""),
        [*header, "of price", "fits"] if priced else header,
        rows,
    )
    if priced:
        console.print(
            "of price: Omega gained or lost per cost, over the shadow price. Units stay because a step up gains less\n"
            "than 1 and a step down loses more than 1; near 1 they are about to flip. fits: every budget still holds"
        )


def _distance(step: "Step") -> float:
    """Return how far a step is from earning exactly the price; without a price all are alike."""
    if step.worth is None:
        return 0.0
    return abs(log(step.worth)) if step.worth > 0 else inf


def _move(step: "Step") -> str:
    """Return for example `4 -> 8`; tied units whose weights differ have a line each."""
    moves = [f"{bits} -> {step.after[unit]}" for unit, bits in step.before.items()]
    return moves[0] if len(set(moves)) == 1 else "\n".join(moves)


def facts_of(
    config: "BitConfig", question: "Question", measured: "Sensitivity", found: "Explanation"
) -> dict[str, Any]:
    """Return all of it as JSON types, costs in plain units (bytes, bit operations, ms)."""
    tied = {unit: [other for other in group if other != unit] for group in question.groups for unit in group}
    return {
        "arch": config.arch,
        "scheme": config.scheme,
        "sensitivity": {"metric": measured.metric, "images": measured.images, "key": measured.key},
        "budgets": {name: vars(budget) for name, budget in found.budgets.items()},
        "units": {
            name: {
                "bits": unit.bits._asdict(),
                "searched": name in tied,
                "tied": tied.get(name, []),
                "omega": unit.omega,
                "error": unit.error,
                "costs": unit.costs,
            }
            for name, unit in found.units.items()
        },
        "steps": [
            {
                "before": _bits(step.before),
                "after": _bits(step.after),
                "up": step.up,
                "omega": step.omega,
                "costs": step.costs,
                "worth": step.worth,
                "fits": step.fits,
            }
            for step in found.steps
        ],
    }


def _bits(bits: Mapping[str, "UnitBits"]) -> dict[str, dict[str, int]]:
    return {unit: pair._asdict() for unit, pair in bits.items()}
