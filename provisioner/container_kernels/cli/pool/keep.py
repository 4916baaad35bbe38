"""`pool keep`: what is wanted is warm for as long as this runs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import Any

NAME = "keep"
HELP = "Fill what is wanted, whenever it is not warm, until this is ended."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP} Ctrl-C and SIGTERM end it; what is warm stays so. A Jupyter server does the same by itself, and only one process at a time does it."


async def run(_: argparse.Namespace) -> int:
    """Ends with 0 at SIGTERM; a Ctrl-C is the caller's."""
    from ...config import host_environment, read_spec
    from ...pool.keeping import keep, keeper_lock
    from ...pool.ledger import Ledger

    ledger, environ, log = Ledger.of_this_user(), host_environment(), _log_to_stdout()
    with ledger.lock(keeper_lock(environ)) as is_first:
        pass  # `keep` takes it
    if is_first:
        log.info("Keeping the pool. Ctrl-C ends this.")
    else:
        log.info("Another process keeps the pool, such as a Jupyter server. This one takes over when that has ended.")
    keeping = asyncio.ensure_future(keep(ledger, environ, read_spec({}, {}).pool_memory_budget, log))
    was_told = False

    def end() -> None:
        nonlocal was_told
        was_told = True
        keeping.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    try:
        await keeping
    except asyncio.CancelledError:
        if not was_told:
            raise
    return 0


class _Lines(logging.StreamHandler[Any]):
    """Ends the program when nobody reads any more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # logging's name
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError):
            raise error
        super().handleError(record)


def _log_to_stdout() -> logging.Logger:
    log = logging.getLogger(__name__)
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = _Lines(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    return log
