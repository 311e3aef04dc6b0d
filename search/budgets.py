"""Parse budgets: `bops0.5` is relative to the uniform schemes, `size=8MB` is absolute."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from hawq.errors import UsageError
from hawq.scheme_names import canonical_name
from search.costs import COSTS, Cost

__all__ = ["Budget", "BudgetKind", "parse_budget"]

_FORM = re.compile(r"(?P<cost>[A-Za-z]+)(?P<mark>=?)(?P<amount>\d+(?:\.\d*)?|\.\d+)(?P<unit>[A-Za-z]*)")


class BudgetKind(Enum):
    """Tell how the amount of a budget is meant.

    RELATIVE: limit = cost(all 4 bit) + amount * (cost(all 8 bit) - cost(all 4 bit)), over the searched units alone.
    ABSOLUTE: limit = amount, over every unit of the network.
    """

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


@dataclass(frozen=True)
class Budget:
    """Limit one cost.

    Attributes:
        name: canonical spelling, for example `bops0.5` or `size=8MB`; it names the scheme.
        cost: what is limited.
        kind: how `amount` is meant.
        amount: share of the way from all 4 bit to all 8 bit, 0..1, or the limit in the cost's plain unit.
    """

    name: str
    cost: Cost
    kind: BudgetKind
    amount: float

    def limit(self, at_4: float, at_8: float, pinned: float) -> float:
        """Return the limit on the whole network, in the cost's plain unit.

        Args:
            at_4: cost of the searched units, all at 4 bits.
            at_8: cost of the searched units, all at 8 bits.
            pinned: cost of the units that are not searched.
        """
        if self.kind is BudgetKind.RELATIVE:
            return pinned + at_4 + self.amount * (at_8 - at_4)
        return self.amount


def parse_budget(text: str, costs: Mapping[str, Cost] = COSTS) -> Budget:
    """Read a budget: `size0.5`, `bops0.25`, `size=8MB`, `size=7.5MiB`, `bops=72G`, `latency=2.7ms`.

    HAWQ's spellings, `modelsize_0.5` and `bops_0.5`, are read as well, see `canonical_name`.

    Args:
        text: the budget.
        costs: what can be limited, by name; latency is among them where there is a table of it.

    Raises:
        UsageError: the text is no budget, its cost or unit is unknown, or a relative amount is outside 0..1.
    """
    match = _FORM.fullmatch(canonical_name(text))
    if match is None:
        raise UsageError(
            f"{text!r} is no budget; write a relative one such as bops0.5 or an absolute one such as size=8MB "
            f"(costs: {', '.join(costs)})"
        )
    cost, amount, unit = _cost(match["cost"], text, costs), float(match["amount"]), match["unit"]
    if match["mark"] == "=":
        if unit not in cost.suffixes:
            raise UsageError(f"budget {text!r}: unit {unit!r} is not one of {', '.join(cost.suffixes)}")
        return Budget(f"{cost.name}={amount:g}{unit}", cost, BudgetKind.ABSOLUTE, amount * cost.suffixes[unit])
    if unit:
        raise UsageError(f"budget {text!r}: an absolute budget needs '=', write {cost.name}={match['amount']}{unit}")
    if not 0 <= amount <= 1:
        raise UsageError(
            f"budget {text!r}: {amount:g} is outside 0..1, where 0 is all 4 bit and 1 is all 8 bit; "
            f"for an absolute limit write for example {cost.name}={amount:g}{cost.symbol}"
        )
    return Budget(f"{cost.name}{amount:g}", cost, BudgetKind.RELATIVE, amount)


def _cost(name: str, text: str, costs: Mapping[str, Cost]) -> Cost:
    for cost in costs.values():
        if name.lower() in (cost.name, *cost.aliases):
            return cost
    if name.lower() == "latency":
        raise UsageError(
            f"budget {text!r}: latency needs a table measured on the target; make one with `hawq profile` "
            "and pass it as --latency-table FILE"
        )
    raise UsageError(f"budget {text!r}: cost {name!r} is unknown; known are {', '.join(costs)}")
