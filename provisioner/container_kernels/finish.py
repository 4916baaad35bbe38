"""Seeing a thing through: a caller that is cancelled must not leave half of it behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def finish(work: Coroutine[Any, Any, Result], undo: Callable[[], Awaitable[object]] | None = None) -> Result:
    """The work is done, also when the caller is cancelled meanwhile; then it is undone, and the cancellation goes on.

    An engine's command that is cut off may still have its effect: only its end tells what there is to undo.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _ended(task)
        if undo is not None:
            await _ended(asyncio.ensure_future(undo()))
        raise


async def _ended(task: asyncio.Future[Any]) -> None:
    """Also when the caller is cancelled again. What became of it, nobody asks."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
