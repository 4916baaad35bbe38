"""A queue for what an engine does badly when it does much of it at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator

from .control import unending


class Turns:
    """At most `places` at once, in the order in which they were asked for, from any thread and event loop of this process."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # those whose turn it is are the parent's

    def _begin(self) -> None:
        self._free = self._places
        self._queue: deque[concurrent.futures.Future[None]] = deque()
        self._lock = threading.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """It is the caller's turn inside; who is cancelled while waiting leaves the queue."""
        mine: concurrent.futures.Future[None] = unending()
        with self._lock:
            self._queue.append(mine)
        self._admit()
        try:
            await asyncio.wrap_future(mine)
            yield
        finally:
            with self._lock:
                if mine in self._queue:
                    self._queue.remove(mine)
                else:
                    self._free += 1
            self._admit()

    def _admit(self) -> None:
        with self._lock:
            while self._free and self._queue:
                self._free -= 1
                self._queue.popleft().set_result(None)
