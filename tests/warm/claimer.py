"""A process that claims from the pool, again and again, and starts a kernel in each container: one line of JSON for each.

As `input` arrives, it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

from container_kernels import workdir
from container_kernels.config import home, host_environment
from container_kernels.kernel_container import KernelContainer, Start
from container_kernels.pool.asking import encrypts
from container_kernels.pool.claiming import Pool, Warm
from container_kernels.pool.ledger import Slot
from container_kernels.spec import parse

PAUSE = 0.2  # seconds, when nothing is warm


async def start(container: KernelContainer, slot: Slot, deadline: float) -> dict[str, Any]:
    key = {"key": "a-key", "signature_scheme": "hmac-sha256"}
    return await container.start(Start(key, slot.curve, {}, cwd=None), deadline)


async def main(claims: int, config: dict[str, Any]) -> None:
    spec = parse(config, {}, os.environ)
    mounts = workdir.plan(spec, cwd=os.getcwd(), root=None, home=home())
    log = logging.getLogger("claimer")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    waits = 0
    while claims:
        pool = Pool(spec, host_environment(), encrypts=encrypts(), log=log)
        begin = time.monotonic()
        with pool.start_under_way:
            found = await pool.start(mounts, start, f"kernel-{claims}")
        if not isinstance(found, Warm):
            waits += 1
            tell(miss=found.reason)
            await asyncio.sleep(PAUSE)
            continue
        took = time.monotonic() - begin
        await found.container.end()
        pool.ended(found.container.name)
        tell(name=found.container.name, seconds=took, python=found.facts.get("python"))
        claims -= 1


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
