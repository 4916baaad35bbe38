"""`logs`: what a kernel's container has printed."""

from __future__ import annotations

import argparse

from ..engines import ENGINES
from ..errors import SpecError
from ..inventory import containers, find

NAME = "logs"
HELP = "Print what a kernel and its supervisor have written to the container's log."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="A container's name or a kernel's id, or how one of them begins.")
    parser.add_argument("--tail", type=int, default=200, metavar="N", help="The last N lines (default: 200).")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="Look in this engine; default: in all that work.")


async def run(arguments: argparse.Namespace) -> int:
    if arguments.tail < 0:
        raise SpecError(f"--tail {arguments.tail} is not allowed.", hint="Allowed: a number of lines from 0.")
    container = find(await containers(arguments.engine), arguments.name)
    text = await container.engine.logs(container.name, tail=arguments.tail)
    print(text, end="" if not text or text.endswith("\n") else "\n")
    return 0
