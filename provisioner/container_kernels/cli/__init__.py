"""The command line: `jupyter container-kernels`, or `container-kernels`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .. import __version__
from ..errors import ContainerKernelError
from . import build, doctor, gc, install, load, logs, pool, ps, stop

INTERRUPTED = 130  # as a shell has it: 128 and SIGINT


class Command(Protocol):
    """What each module of a command has; a module satisfies it by its names alone (PEP 544).

    A command imports what is slow to import when it runs, so that `--help` is quick.
    """

    NAME: str
    HELP: str

    # The parser knows the command's options.
    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    # The command is done; its exit status is returned. A ContainerKernelError is told to the person.
    async def run(self, arguments: argparse.Namespace) -> int: ...


COMMANDS: list[Command] = [doctor, build, load, install, ps, logs, stop, gc, pool]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of the command in `argv`, which has been run, and whose errors have been told."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        status = asyncio.run(command.run(arguments))
        sys.stdout.flush()
    except ContainerKernelError as error:
        print(told(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at its end: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def told(error: ContainerKernelError) -> str:
    """The problem on a line, then the remedy, then what the engine said, indented."""
    detail = "\n".join(f"    {line}" for line in error.detail.splitlines())
    return "\n".join(part for part in (f"Error: {error.message}", error.hint, detail) if part)


def _parser() -> argparse.ArgumentParser:
    called_by_jupyter = Path(sys.argv[0]).name.startswith("jupyter-")
    parser = argparse.ArgumentParser(
        prog="jupyter container-kernels" if called_by_jupyter else "container-kernels",
        description="Jupyter kernels, each inside a container of its own.",
    )
    parser.add_argument("--version", action="version", version=f"container-kernels {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        of_command = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        of_command.set_defaults(command=command)
        command.configure(of_command)
    return parser
