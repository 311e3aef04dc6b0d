"""Spread the evaluations of an epoch over its steps."""

from hawq.errors import UsageError

__all__ = ["evaluation_steps"]


def evaluation_steps(steps: int, times: int) -> tuple[int, ...]:
    """Return after which steps of an epoch to evaluate: ceil(k * steps / times), k = 1..times.

    The last one is always the end of the epoch. An epoch shorter than `times` is evaluated after every step.

    Args:
        steps: of an epoch, at least 1.
        times: evaluations during one epoch; -1, as 1, for one at its end.

    Returns:
        Steps done, 1..steps, ascending.

    Raises:
        UsageError: `times` is neither positive nor -1.
    """
    if times < 1 and times != -1:
        raise UsageError(f"--evaluate-times {times} is not allowed: give the evaluations of one epoch, or -1 for one")
    times = max(times, 1)
    return tuple(sorted({-(-k * steps // times) for k in range(1, times + 1)}))
