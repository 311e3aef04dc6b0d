"""How sure a scheme is: resampled sensitivities, and when a measurement may stop."""

import pytest
import torch
from test_scheme import graph  # noqa: F401  (a fixture)

from hawq.bitconfig import UnitBits
from hawq.sensitivity import Operand, Sensitivity, Term, UnitSensitivity
from hawq.sensitivity.measure import ROUND
from search.budgets import parse_budget
from search.confidence import UntilStable, resample
from search.problem import options
from search.scheme import Question

FOUR, EIGHT = UnitBits(4, 4), UnitBits(8, 8)


def _measured(batches, **samples):
    """Return sensitivities that only 4 bits cost; units without samples cost nothing."""
    units = {
        unit: UnitSensitivity(1, (Term(Operand.WEIGHT, {4: 1.0, 8: 0.0}, tuple(samples.get(unit, [0.0] * batches))),))
        for unit in ("stem", "conv1", "conv2", "down", "head")
    }
    return Sensitivity("test", "key", tuple((str(i), 10) for i in range(batches)), {}, {}, units)


@pytest.fixture
def question(graph):  # noqa: F811
    """Afford 8 bits for conv2 (576 weights) or for conv1 and down (320), not for both."""
    return Question("net", graph, (parse_budget("size0.75"),), options((4, 8)))


def test_a_clear_case_never_changes(question):
    sure = resample(question, _measured(8, conv2=[5.0, 6.0] * 4, conv1=[1.0, 0.5] * 4))
    assert sure.solution.bits == {"conv1": FOUR, "down": FOUR, "conv2": EIGHT}
    assert (sure.agreement, sure.regret, sure.resamples) == (1.0, 0.0, 50)
    assert set(sure.changes.values()) == {0.0}


def test_a_near_tie_changes_in_about_half_of_the_resamples(question):
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 64, generator=generator, dtype=torch.float64)
    noise -= noise.mean(1, keepdim=True)
    sure = resample(question, _measured(64, conv2=(1.001 + noise[0]).tolist(), conv1=(1 + noise[1]).tolist()), 400)
    assert sure.solution.bits["conv2"] == EIGHT
    assert 0.4 < sure.changes["conv2"] < 0.6
    assert sure.changes["conv1"] == sure.changes["down"] == sure.changes["conv2"]
    assert sure.changes["conv1"] == pytest.approx(1 - sure.agreement)
    assert 0 < sure.regret < 0.1


def test_what_units_have_in_common_shakes_nothing(question):
    common = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    sure = resample(question, _measured(16, conv2=(1.05 * common).tolist(), conv1=common.tolist()))
    assert sure.agreement == 1


def test_the_same_seed_gives_the_same_answer_and_one_batch_none(question):
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64).tolist()
    measured = _measured(16, conv2=noise[0], conv1=noise[1])
    assert resample(question, measured, seed=3) == resample(question, measured, seed=3)
    single = resample(question, _measured(1, conv2=[1.0]))
    assert (single.agreement, single.regret, single.resamples) == (0.0, None, 0)


def test_it_looks_after_rounds_that_double(question, monkeypatch):
    looks = []
    monkeypatch.setattr("search.confidence.resample", lambda q, found: looks.append(len(found.batches)) or _Sure(0.0))
    enough = UntilStable(question)
    for batches in range(ROUND, 9 * ROUND, ROUND):
        assert not enough(_measured(batches, conv2=[1.0] * batches))
    assert looks == [ROUND, 2 * ROUND, 4 * ROUND, 8 * ROUND]


class _Sure:
    def __init__(self, agreement):
        self.agreement = agreement


def test_it_is_enough_when_shares_are_known_and_resamples_agree(question):
    clear, noisy = [5.0, 5.1] * 4, [0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0]
    enough = UntilStable(question, relative_error=0.1, agreement=0.9)
    assert enough(_measured(8, conv2=clear, conv1=[1.0, 1.1] * 4))
    assert not enough(_measured(8, conv2=clear, conv1=noisy))
    assert not enough(_measured(7, conv2=clear[:7], conv1=[1.0] * 7))
