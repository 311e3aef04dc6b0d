"""Choose how many CPU threads run a library."""

import os
from pathlib import Path

from hawq.errors import UsageError

__all__ = ["cores", "describe_threads", "use_threads"]

_COUNT, _BIND = "TVM_NUM_THREADS", "TVM_BIND_THREADS"
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def use_threads(count: int | None) -> int:
    """Set the CPU threads of the libraries this process runs; call it before the first of them runs.

    TVM reads their number from the environment when it starts its threads. Left to itself it takes OMP_NUM_THREADS,
    or half the machine's logical CPUs.

    Args:
        count: threads; by default TVM_NUM_THREADS, else one for each physical core this process may run on.

    Returns:
        The number chosen.

    Raises:
        UsageError: it is no number of at least 1.
    """
    given = os.environ.get(_COUNT, str(cores())) if count is None else str(count)
    if not given.isdecimal() or int(given) < 1:
        source = _COUNT if count is None else "--threads"
        raise UsageError(
            f"{source} {given}: give at least 1 thread; this process may run on {_plural(cores(), 'core')}"
        )
    os.environ[_COUNT] = given
    # TVM binds thread i to CPU i: to one that is not ours, or to the other half of a core that is taken
    os.environ.setdefault(_BIND, str(int(_allowed() == list(range(cores())))))
    return int(given)


def cores() -> int:
    """Return how many physical cores this process may run on."""
    return len({_core(cpu) for cpu in _allowed()})


def describe_threads(count: int) -> str:
    """Return `2 threads`, with a warning where there are fewer cores."""
    text = _plural(count, "thread")
    return text if count <= cores() else f"{text} on {_plural(cores(), 'core')}, where more threads only wait"


def _allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _core(cpu: int) -> str:
    """Name the core of a logical CPU; a system that does not tell counts as one without hyper-threading."""
    path = Path(_SIBLINGS.format(cpu))
    return path.read_text() if path.is_file() else str(cpu)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
