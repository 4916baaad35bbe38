"""`doctor`: whether a kernel would start here, and if not, why."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..engines import ENGINES
from .output import console, print_json

NAME = "doctor"
HELP = "Check the engines, the images and the kernelspecs, and start a kernel."

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}
INDENT = " " * 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP} The exit status is 0 only if a kernel would start."
    parser.add_argument(
        "--kernel", default="container-python", metavar="NAME", help="The kernelspec to start (default: %(default)s)."
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Use this engine; default: the first that works.")
    parser.add_argument("--json", action="store_true", help="Print JSON, once all is known.")


async def run(arguments: argparse.Namespace) -> int:
    from ..doctor import examine, would_start

    checks = []
    async for check in examine(kernel=arguments.kernel, engine=arguments.engine):
        checks.append(check)
        if not arguments.json:
            _tell(check.verdict, f"{check.name}: {check.found}", check.remedy, check.detail)
    starts = would_start(checks)
    if arguments.json:
        print_json({"would_start": starts, "checks": [asdict(check) for check in checks]})
    elif not starts:
        _tell("failed", "No kernel would start here.")
    return 0 if starts else 1


def _tell(verdict: str, said: str, remedy: str = "", detail: str = "") -> None:
    from rich.text import Text

    screen = console()
    screen.print(Text.assemble((f"{verdict:<8}", STYLES[verdict]), "  ", said), soft_wrap=True)
    if verdict != "ok" and remedy:
        screen.print(f"{INDENT}{remedy}", soft_wrap=True)
    for line in detail.splitlines() if verdict == "failed" else ():
        screen.print(Text(f"{INDENT}{line}", style="dim"), soft_wrap=True)
