"""Lines below a table that are copied from it: a command in a table's cell would be cut where the terminal ends."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text


def lines_to_copy(title: str, lines: Iterable[tuple[str, str]]) -> Text:
    """Names, each with what is said of it, on a line of its own however narrow the terminal is.

    The console must not crop it: ``console.print(..., crop=False)``.
    """
    shown = Text(title, style="italic", no_wrap=True, overflow="ignore")
    for name, said in lines:
        shown.append(f"\n  {name}: {said}", style="not italic")
    return shown
