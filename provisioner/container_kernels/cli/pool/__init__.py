"""`pool`: the containers that are ready before a kernel asks for one."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from ...errors import ContainerKernelError
from . import drain, fill, keep, status

NAME = "pool"
HELP = "Keep containers warm, so that kernels start in an instant."

ACTIONS = (status, fill, keep, drain)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action in ACTIONS:
        of_action = actions.add_parser(action.NAME, help=action.HELP, description=action.HELP)
        of_action.set_defaults(action=action)
        action.configure(of_action)


async def run(arguments: argparse.Namespace) -> int:
    with _told():
        status: int = await arguments.action.run(arguments)
    return status


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the system says of the pool's files is told like any error; that nobody reads our output is no matter of theirs."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ContainerKernelError(
            f"The pool's files cannot be used: {error}.",
            hint="They lie in Jupyter's runtime directory: see `jupyter --runtime-dir`.",
        ) from error
