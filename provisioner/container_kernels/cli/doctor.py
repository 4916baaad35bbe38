"""`doctor`: whether a kernel would start here, and if not, why."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..command import recording
from ..engines import ENGINES
from .output import console, print_json, reporting

if TYPE_CHECKING:
    from ..doctor import Check

NAME = "doctor"
HELP = "Check the engines, the images and the kernelspecs, and start a kernel."

STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "failed": "bold red"}
INDENT = " " * 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP} The exit status is 0 only if a kernel would start."
    parser.add_argument(
        "--kernel", default="container-python", metavar="NAME", help="The kernelspec to start (default: %(default)s)."
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Use this engine; default: the first that works.")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="Start an engine's service that is stopped, and build images that are missing.",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="Write what an issue needs into this new file, without what is private; measures some starts for it.",
    )
    parser.add_argument("--json", action="store_true", help="Print JSON, once all is known.")


async def run(arguments: argparse.Namespace) -> int:
    from ..doctor import would_start

    if arguments.report is not None:
        from ..doctor.report import check_target, write

        check_target(arguments.report)
        with recording() as calls:
            checks = await _examined(arguments)
        with reporting() as report:
            report.doing("Measuring how fast kernels start")
            await write(arguments.report, arguments.kernel, checks, calls, report.line)
    else:
        checks = await _examined(arguments)
    starts = would_start(checks)
    if arguments.json:
        print_json({"would_start": starts, "checks": [asdict(check) for check in checks]})
    elif not starts:
        _tell("failed", "No kernel would start here.")
    if arguments.report is not None:
        said = f"The report is in {arguments.report}. Read it before you send it to anybody."
        print(said, file=sys.stderr if arguments.json else sys.stdout)
    return 0 if starts else 1


async def _examined(arguments: argparse.Namespace) -> list[Check]:
    """All checks, told as they come."""
    from ..doctor import examine

    checks = []
    repairing = reporting if arguments.fix else None
    async for check in examine(kernel=arguments.kernel, engine=arguments.engine, repairing=repairing):
        checks.append(check)
        if not arguments.json:
            _tell(check.verdict, f"{check.name}: {check.found}", check.remedy, check.detail)
    return checks


def _tell(verdict: str, said: str, remedy: str = "", detail: str = "") -> None:
    from rich.text import Text

    screen = console()
    style = STYLES[verdict]
    screen.print(
        Text.assemble((f"{verdict:<8}", style), "  ", (said, style if verdict == "skipped" else "")), soft_wrap=True
    )
    if verdict != "ok" and remedy:
        screen.print(f"{INDENT}{remedy}", soft_wrap=True)
    for line in detail.splitlines() if verdict == "failed" else ():
        screen.print(Text(f"{INDENT}{line}", style="dim"), soft_wrap=True)
