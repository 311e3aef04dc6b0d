"""Define the errors that end a command with a message instead of a traceback."""

__all__ = ["HawqError", "UsageError"]


class HawqError(Exception):
    """Report that the work failed: a mismatch, an infeasible budget, a broken file.

    The message says what was given, what is allowed and what to do next.
    """

    exit_code = 1


class UsageError(HawqError):
    """Report that the request itself was wrong: an unknown name, a missing file, options that contradict."""

    exit_code = 2
