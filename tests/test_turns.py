"""Starts queue for an engine: a few at a time, in order, from whichever loop they come."""

from __future__ import annotations

import asyncio
import threading

import pytest

from container_kernels.turns import Turns


class Workers:
    """Each begins when it has its turn, and ends when it is told."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[int] = []
        self.most = 0
        self._at_work = 0
        self._ends: dict[int, asyncio.Event] = {}

    async def work(self, number: int) -> None:
        self._ends[number] = asyncio.Event()
        async with self.turns.turn():
            self.begun.append(number)
            self._at_work += 1
            self.most = max(self.most, self._at_work)
            try:
                await self._ends[number].wait()
            finally:
                self._at_work -= 1

    def end(self, number: int) -> None:
        self._ends[number].set()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_few_at_a_time_in_the_order_asked() -> None:
    workers = Workers(Turns(2))
    tasks = [asyncio.create_task(workers.work(number)) for number in range(6)]
    for number in range(6):
        await settled()
        assert workers.begun == list(range(min(number + 2, 6)))
        workers.end(number)
    await asyncio.gather(*tasks)
    assert workers.most == 2


async def test_who_is_cancelled_gives_its_place_to_the_next() -> None:
    workers = Workers(Turns(1))
    tasks = [asyncio.create_task(workers.work(number)) for number in range(4)]
    await settled()
    tasks[1].cancel()  # it waits
    await settled()
    tasks[0].cancel()  # it works
    await settled()
    assert workers.begun == [0, 2]
    workers.end(2)
    await settled()
    workers.end(3)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert workers.begun == [0, 2, 3]


async def test_an_error_is_no_reason_to_keep_the_place() -> None:
    turns = Turns(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            async with turns.turn():
                raise ValueError("no")


def test_several_loops_share_the_places() -> None:
    turns, lock = Turns(2), threading.Lock()
    at_work, most, done = 0, 0, 0

    async def work() -> None:
        nonlocal at_work, most, done
        async with turns.turn():
            with lock:
                at_work += 1
                most = max(most, at_work)
            await asyncio.sleep(0.001)
            with lock:
                at_work -= 1
                done += 1

    async def many() -> None:
        await asyncio.gather(*(work() for _ in range(10)))

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (done, most) == (40, 2)
