"""Define the errors that end a command with a message instead of a traceback."""

__all__ = ["HawqError", "UsageError", "reason"]


class HawqError(Exception):
    """Report that the work failed: a mismatch, an infeasible budget, a broken file.

    The message says what was given, what is allowed and what to do next.
    """

    exit_code = 1


class UsageError(HawqError):
    """Report that the request itself was wrong: an unknown name, a missing file, options that contradict."""

    exit_code = 2


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
