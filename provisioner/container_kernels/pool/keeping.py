"""Who fills the pool, and when: one process at a time for each engine, when nobody starts a kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping

from ..engines import ENGINES, choose, working
from ..errors import ContainerKernelError
from .decision import SETTLE, next_look
from .filling import Filler
from .ledger import Ledger
from .recipe import place, place_digest

TURN = 0.2  # seconds between looks at a lock that another filler holds
STANDBY = 5.0  # seconds between looks at a keeper's lock, which is held for as long as a server runs
AFTER_ERROR = 30.0
GLANCE = 0.5  # seconds between looks at whether the ledger has changed
LONGEST_FILL = 600.0  # seconds for a helper; what is left is the next one's


def keeper_lock(environ: Mapping[str, str]) -> str:
    """The lock that is held by who fills for all processes that talk to the same engines."""
    return f"keeper-{place_digest(place(environ))}"


async def keep(ledger: Ledger, environ: Mapping[str, str], budget: int | None, log: logging.Logger) -> None:
    """The pool is as it is wanted, for as long as this runs. Where another process keeps it, this one waits to take over."""
    while True:
        try:
            with ledger.lock(keeper_lock(environ)) as ours:
                while ours:
                    before = ledger.signature()
                    wait = await look_after_all(ledger, environ, budget, log)
                    await _until_changed(ledger, before, wait)
            await asyncio.sleep(STANDBY)
        except (ContainerKernelError, OSError) as error:
            log.warning("The pool is not kept for a while: %s", error)
            await asyncio.sleep(AFTER_ERROR)
        except Exception:  # whatever it was, the next look may go well
            log.exception("The pool is not kept for a while.")
            await asyncio.sleep(AFTER_ERROR)


async def look_after_all(ledger: Ledger, environ: Mapping[str, str], budget: int | None, log: logging.Logger) -> float:
    """All is done that can be done now; returns the seconds until there may be more. Errors are told in the log."""
    waits = [60.0]
    await _look_for_stronger_engine(ledger, log)
    for name in sorted({each.recipe.engine for each in ledger.wanted()} & ENGINES.keys()):
        try:
            await working(name)
            async with turn(ledger, name, SETTLE) as ours:
                if not ours:
                    waits.append(SETTLE)
                    continue
                filler = Filler(ENGINES[name], ledger, place(environ), budget, log)
                snapshot = await filler.look()
                waits.append(0.0 if await filler.do(snapshot) else next_look(snapshot, time.time()))
        except (ContainerKernelError, OSError) as error:
            log.warning("The pool of %s is not filled: %s", name, error)
            waits.append(AFTER_ERROR)
    return min(waits)


async def fill_once(ledger: Ledger, environ: Mapping[str, str], budget: int | None, log: logging.Logger) -> None:
    """Nothing is left to do, or time is over; for a helper, which then ends."""
    deadline = time.monotonic() + LONGEST_FILL
    await _look_for_stronger_engine(ledger, log)
    for name in sorted({each.recipe.engine for each in ledger.wanted()} & ENGINES.keys()):
        with contextlib.suppress(ContainerKernelError, OSError):
            await working(name)
            async with turn(ledger, name, LONGEST_FILL) as ours:
                filler = Filler(ENGINES[name], ledger, place(environ), budget, log)
                while ours and time.monotonic() < deadline:
                    snapshot = await filler.look()
                    if await filler.do(snapshot):
                        continue
                    if not snapshot.busy:
                        break
                    await asyncio.sleep(SETTLE / 2)


async def _look_for_stronger_engine(ledger: Ledger, log: logging.Logger) -> None:
    """A start that finds a warm container asks no engine: one that was taken for want of a better is forgotten once there is a better."""
    try:
        if weaker := ledger.weaker_engines():
            _, chosen = await choose()
            for key, known in weaker.items():
                if known.engine != chosen.engine:
                    ledger.forget_engine(key)
    except (ContainerKernelError, OSError) as error:
        log.debug("No engine is better than those that are known: %s", error)


@contextlib.asynccontextmanager
async def turn(ledger: Ledger, name: str, patience: float) -> AsyncIterator[bool]:
    """The engine's lock, as soon as it is free; False when that takes longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        with ledger.lock(name) as free:
            if free or time.monotonic() > deadline:
                yield free
                return
        await asyncio.sleep(TURN)


async def _until_changed(ledger: Ledger, before: object, wait: float) -> None:
    """Others have started a kernel, or want something else, or the time is over."""
    deadline = time.monotonic() + wait
    # Files tell nobody that they have changed, without a library for each system.
    while (left := deadline - time.monotonic()) > 0 and ledger.signature() == before:  # noqa: ASYNC110
        await asyncio.sleep(min(GLANCE, left))
