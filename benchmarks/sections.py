"""Keep what a benchmark measured in a page of the documentation, between marks, beside prose that people write."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["markdown_table", "write_section"]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_section(page: Path, name: str, text: str) -> None:
    """Replace a section of a page; where the page or the section does not exist, add it at the end.

    Args:
        page: Markdown file.
        name: in the marks.
        text: what stands between them.
    """
    from hawq.files import write_atomically

    begin, end = f"<!-- begin {name} (written by a benchmark) -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    old = page.read_text() if page.is_file() else ""
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    new = pattern.sub(lambda _: section, old) if pattern.search(old) else f"{old.rstrip()}\n\n{section}\n".lstrip()
    write_atomically(page, lambda path: path.write_text(new))
