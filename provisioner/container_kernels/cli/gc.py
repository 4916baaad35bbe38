"""`gc`: containers whose process has gone are gone too."""

from __future__ import annotations

import argparse
import asyncio

from ..engines import ENGINES
from ..errors import ContainerKernelError
from ..inventory import Container, containers, remove
from .output import print_json

NAME = "gc"
HELP = "Remove containers that the process which made them has left behind."

Outcomes = list[tuple[Container, ContainerKernelError | None]]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP} Containers end by themselves when their process is gone; this is for those that could not. "
        "One that another host's process has made is let be, and so are those that are warm."
    )
    parser.add_argument("--dry-run", action="store_true", help="Say what would be removed, and remove nothing.")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Those of this engine; default: of all that work.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")


async def run(arguments: argparse.Namespace) -> int:
    there = await containers(arguments.engine)
    left = await asyncio.gather(*(container.is_orphan() for container in there))
    orphans = [container for container, is_orphan in zip(there, left, strict=True) if is_orphan]
    outcomes: Outcomes = [(orphan, None) for orphan in orphans] if arguments.dry_run else await remove(orphans)
    if arguments.json:
        print_json([_as_json(orphan, error, arguments.dry_run) for orphan, error in outcomes])
    else:
        _tell(outcomes, arguments.dry_run)
    return next((error.exit_code for _, error in outcomes if error is not None), 0)


def _as_json(orphan: Container, error: ContainerKernelError | None, dry_run: bool) -> dict[str, object]:
    return {
        "kernel_id": orphan.kernel_id,
        "name": orphan.name,
        "engine": orphan.engine.name,
        "removed": not dry_run and error is None,
        "error": error and str(error),
    }


def _tell(outcomes: Outcomes, dry_run: bool) -> None:
    for orphan, error in outcomes:
        said = "Would remove" if dry_run else "Removed" if error is None else "Could not remove"
        reason = "" if error is None else f": {error.message}"
        print(f"{said} {orphan.name} ({orphan.whose}, {orphan.engine.name}){reason}")
    if not outcomes:
        print("No container was left behind.")
