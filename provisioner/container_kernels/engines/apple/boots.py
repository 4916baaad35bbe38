"""One virtual machine boots at a time.

The service has one lock for all boots, behind which creations, deletions and the ends of containers queue as well. Who waits for a
boot waits here, so that the service stays free for whoever does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import platformdirs

from ...errors import CommandTimeout
from ...locks import is_had

LOOK = 0.02  # seconds between looks at the lock, which tells nobody that it is free


@contextlib.asynccontextmanager
async def turn(deadline: float) -> AsyncIterator[None]:
    """Inside, no other machine of this person's is booted by us, in any process.

    Raises CommandTimeout at the deadline (of `time.monotonic`). Where the lock cannot be made, the service's own has to do.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            descriptor = _opened()
            held.callback(os.close, descriptor)
            while not is_had(descriptor):
                if time.monotonic() > deadline:
                    raise CommandTimeout(
                        "No turn to boot came in time: other virtual machines are starting.",
                        hint="Raise startup_timeout, or start fewer kernels at once.",
                    )
                await asyncio.sleep(LOOK)
        yield


def _opened() -> int:
    directory = platformdirs.user_cache_path("container-kernels", appauthor=False)
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / "apple-boot.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
