"""What several commands print, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..image import Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED = 10_000  # columns: a program that reads the lines wants none of them cut


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> Console:
    """Where people read; lines are cut to the width of a terminal only."""
    from rich.console import Console

    screen = Console(highlight=False, markup=False)
    return screen if screen.is_terminal else Console(highlight=False, markup=False, width=UNLIMITED)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    console().print(table(columns, rows, right=right))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """The `right` columns are numbers."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


@contextmanager
def reporting() -> Iterator[Report]:
    """A terminal shows what is being done, and the latest line of it, beside a spinner; else what is begun is a line on stderr."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Report(lambda text: print(text, file=sys.stderr, flush=True))
        return
    begun = "Starting"
    with console.status(begun) as status:

        def doing(text: str) -> None:
            nonlocal begun
            begun = text
            status.update(escape(begun))

        def line(text: str) -> None:
            room = max(console.width - len(begun) - 6, 0)
            status.update(f"{escape(begun)} [dim]{escape(text.strip()[:room])}[/dim]")

        yield Report(doing, line)


def age(seconds: float) -> str:
    """The two largest units at the most: `8 s`, `5 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{max(int(seconds), 0)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 60 * 24:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"
