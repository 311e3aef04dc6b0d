"""Say where in the user's model an operation stands, for names and for error messages."""

from dataclasses import dataclass

__all__ = ["Site"]


@dataclass(frozen=True)
class Site:
    """Locate one operation.

    Attributes:
        op: readable name of the operation, for example `conv2d`.
        path: module path of the innermost module that executes it, "" for the model itself.
        leaf: whether that module has no submodules, so that its path names the operation well enough.
        source: `file:line` in the model's code.
    """

    op: str
    path: str
    leaf: bool
    source: str

    def __str__(self) -> str:
        """Return `op in module 'path' (file:line)`."""
        where = f"module {self.path!r}" if self.path else "the model's forward"
        return f"{self.op} in {where} ({self.source})"
