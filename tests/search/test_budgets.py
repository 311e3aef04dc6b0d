import pytest

from hawq.errors import UsageError
from search.budgets import Budget, BudgetKind, parse_budget
from search.costs import COSTS


@pytest.mark.parametrize(
    ("text", "name", "kind", "amount"),
    [
        ("bops0.5", "bops0.5", BudgetKind.RELATIVE, 0.5),
        ("size0.25", "size0.25", BudgetKind.RELATIVE, 0.25),
        ("size.5", "size0.5", BudgetKind.RELATIVE, 0.5),
        ("bops1", "bops1", BudgetKind.RELATIVE, 1.0),
        ("modelsize_0.5", "size0.5", BudgetKind.RELATIVE, 0.5),
        ("bops_0.75", "bops0.75", BudgetKind.RELATIVE, 0.75),
        ("size=8MB", "size=8MB", BudgetKind.ABSOLUTE, 8e6),
        ("size=8MiB", "size=8MiB", BudgetKind.ABSOLUTE, 8 * 2**20),
        ("size=7.5KiB", "size=7.5KiB", BudgetKind.ABSOLUTE, 7680),
        ("bops=72G", "bops=72G", BudgetKind.ABSOLUTE, 72e9),
    ],
)
def test_spellings(text, name, kind, amount):
    assert parse_budget(text) == Budget(name, COSTS[name.rstrip("0123456789.").split("=")[0]], kind, amount)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bops", "is no budget; write a relative one such as bops0.5"),
        ("", "is no budget"),
        ("bops-0.5", "is no budget"),
        ("energy0.5", "cost 'energy' is unknown; known are size, bops"),
        ("latency0.5", "latency needs a table measured on the target"),
        ("latency=2.7ms", "latency needs a table measured on the target"),
        ("size=8", "unit '' is not one of B, KB, MB, KiB, MiB"),
        ("bops=8MB", "unit 'MB' is not one of K, M, G, T"),
        ("size8MB", "an absolute budget needs '=', write size=8MB"),
        ("bops72", "72 is outside 0..1"),
    ],
)
def test_what_is_no_budget_is_explained(text, says):
    with pytest.raises(UsageError) as error:
        parse_budget(text)
    assert says in str(error.value)


def test_a_relative_limit_lies_between_the_uniform_schemes_and_counts_pinned_units():
    assert parse_budget("size0").limit(10, 20, 3) == 13
    assert parse_budget("size0.25").limit(10, 20, 3) == 15.5
    assert parse_budget("size1").limit(10, 20, 3) == 23


def test_an_absolute_limit_is_the_whole_network():
    assert parse_budget("size=12B").limit(10, 20, 3) == 12
