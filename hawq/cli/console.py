"""Print for people on stderr and for programs on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

__all__ = ["console", "print_json", "print_table", "progress", "steps", "track"]

_LOG_WIDTH = 120

console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _LOG_WIDTH)
"""Where everything for people goes; logs get a width that holds the tables."""

_T = TypeVar("_T")


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress bars with the time left on a terminal; show nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield bars


@contextmanager
def steps() -> Iterator[Callable[[str, int, int, str], None]]:
    """Show a progress bar for each thing that is reported, by what it is, how far, of how much, and how it stands."""
    with progress() as bars:
        tasks: dict[str, TaskID] = {}

        def heard(what: str, done: int, total: int, status: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, status="")
            bars.update(tasks[what], completed=done, total=total, status=status)

        yield heard


def track(items: Iterable[_T], description: str, total: int | None = None) -> Iterator[_T]:
    """Yield the items while a progress bar follows them."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with progress() as bars:
        task = bars.add_task(description, total=total, status="")
        for item in items:
            yield item
            bars.advance(task)


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None
) -> None:
    """Print one table on stderr: text columns to the left, numbers to the right."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    rows = [list(row) for row in rows]
    for index, name in enumerate(header):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def _is_number(cell: object) -> bool:
    try:
        float(str(cell).rstrip("%").replace(",", "").split(" ")[0] or "x")
    except ValueError:
        return False
    return True


def print_json(document: Any) -> None:
    """Put one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, default=str) + "\n")
    sys.stdout.flush()
