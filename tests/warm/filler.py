"""A filler, for a test that kills it: it makes warm containers for as long as it runs, and lets others have their turn."""

from __future__ import annotations

import asyncio
import logging
import sys

from container_kernels.config import host_environment
from container_kernels.engines import ENGINES
from container_kernels.errors import ContainerKernelError
from container_kernels.pool.filling import Filler
from container_kernels.pool.keeping import turn
from container_kernels.pool.ledger import Ledger
from container_kernels.pool.recipe import place

AT_A_TURN = 3  # containers
PAUSE = 0.05  # seconds


async def main(engine: str) -> None:
    ledger = Ledger.of_this_user()
    log = logging.getLogger(__name__)
    filler = Filler(ENGINES[engine], ledger, place(host_environment()), 64 << 30, log, at_once=True)
    while True:
        async with turn(ledger, engine, 60) as ours:
            for _ in range(AT_A_TURN if ours else 0):
                try:
                    if not await filler.do(await filler.look()):
                        break
                except ContainerKernelError as error:  # as a keeper would, it goes on
                    print(f"failed: {error}", flush=True)
        await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
