"""`stop`: containers of kernels are gone."""

from __future__ import annotations

import argparse

from ..engines import ENGINES
from ..inventory import containers, find, remove

NAME = "stop"
HELP = "End kernels, and remove their containers."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP} A Jupyter server that still has such a kernel sees it die, and may start another."
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="A container's name or a kernel's id, or how one of them begins."
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Look in this engine; default: in all that work.")


async def run(arguments: argparse.Namespace) -> int:
    """All are looked for before the first is removed: a wrong name removes nothing."""
    there = await containers(arguments.engine)
    found = {id(container): container for container in (find(there, name) for name in arguments.names)}
    outcomes = await remove(found.values())
    for container, error in outcomes:
        if error is None:
            print(f"Removed {container.name} ({container.whose}, {container.engine.name}).")
    for _, error in outcomes:
        if error is not None:
            raise error
    return 0
