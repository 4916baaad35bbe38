"""Work that is seen through, however often its caller is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from container_kernels.finish import finish


class Work:
    """Two steps, at which the test holds it."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.undoing = asyncio.Event()
        self.may_undo = asyncio.Event()
        self.fails = fails
        self.done: list[str] = []

    async def work(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        self.done.append("done")
        if self.fails:
            raise self.fails
        return "result"

    async def undo(self) -> None:
        self.undoing.set()
        await self.may_undo.wait()
        self.done.append("undone")


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_result() -> None:
    work = Work()
    work.may_end.set()
    assert await finish(work.work(), undo=work.undo) == "result"
    assert work.done == ["done"]


async def test_the_error_without_an_undo() -> None:
    work = Work(ValueError("no"))
    work.may_end.set()
    with pytest.raises(ValueError, match="no"):
        await finish(work.work(), undo=work.undo)
    assert work.done == ["done"]


@pytest.mark.parametrize("fails", [None, ValueError("no")])
async def test_cancelled_it_is_done_then_undone(fails: Exception | None) -> None:
    work = Work(fails)
    task = asyncio.create_task(finish(work.work(), undo=work.undo))
    await work.begun.wait()
    task.cancel()
    await turns()
    assert not task.done()
    assert work.done == []
    work.may_end.set()
    await work.undoing.wait()
    work.may_undo.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.done == ["done", "undone"]


async def test_cancelled_again_and_again() -> None:
    work = Work()
    task = asyncio.create_task(finish(work.work(), undo=work.undo))
    await work.begun.wait()
    for _ in range(3):
        task.cancel()
        await turns()
    assert not task.done()
    work.may_end.set()
    await work.undoing.wait()
    for _ in range(3):
        task.cancel()
        await turns()
    assert not task.done()
    work.may_undo.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.done == ["done", "undone"]


async def test_cancelled_without_an_undo() -> None:
    work = Work()
    task = asyncio.create_task(finish(work.work()))
    await work.begun.wait()
    task.cancel()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.done == ["done"]


async def test_a_time_limit_cancels_too() -> None:
    work = Work()

    class Cancelled(asyncio.Task[str]):
        """Lets the work end when it is cancelled, and not before."""

        def cancel(self, msg: Any = None) -> bool:
            work.may_end.set()
            return super().cancel(msg)

    task = Cancelled(finish(work.work()), loop=asyncio.get_running_loop())
    await work.begun.wait()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.001)
    assert work.done == ["done"]
