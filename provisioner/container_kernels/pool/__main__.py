"""`python -m container_kernels.pool`: the helper of a process that will soon be gone. It fills what is wanted, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

from .. import config
from .keeping import fill_once, turn
from .ledger import Ledger

QUEUE = 30.0  # seconds to wait for another helper, which may have looked too early to see what we are for
NICE = 19


async def main(budget: int | None) -> None:
    ledger = Ledger.of_this_user()
    async with turn(ledger, "helper", QUEUE) as ours:
        if ours:
            await fill_once(ledger, config.host_environment(), budget, logging.getLogger(__name__))


if __name__ == "__main__":
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # a lock or a pipe that the caller has inherited ends with the caller
    with contextlib.suppress(OSError):  # a terminal's end, or its Ctrl-C, is not ours
        os.setsid()
    os.nice(NICE)
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else None))
