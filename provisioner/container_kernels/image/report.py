"""Whom a build tells what it does."""

from __future__ import annotations

from dataclasses import dataclass

from ..engines.protocol import Progress


def silent(line: str) -> None:
    """Nobody reads it."""


@dataclass(frozen=True)
class Report:
    """`doing` is told each thing that is begun, `line` each line of the commands that do it."""

    doing: Progress
    line: Progress = silent
