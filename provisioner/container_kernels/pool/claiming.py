"""A start from the pool: no engine is asked, and whatever is wrong with the pool, the caller can still start cold."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from .. import owner
from ..engines import ENGINES
from ..engines.protocol import EngineInfo
from ..errors import ContainerKernelError
from ..kernel_container import KernelContainer
from ..spec import Spec
from ..workdir import Workdir
from .decision import RESERVE
from .ledger import DamagedSlot, Ledger, Slot
from .recipe import Recipe, place, place_digest
from .refill import refill, start_helper
from .removal import remove_slot
from .wishes import asked_of_engines, recipe_for, want

ANSWER = 1.0  # seconds for a warm container to greet
TRYING = 3.0  # seconds for slots that do not serve; then the next is not tried
WARM_START = 5.0  # seconds for its kernel; a cold start takes less than what comes after

UNREADABLE = (
    OSError,
    ValueError,
    OverflowError,
    ContainerKernelError,
)  # what a ledger raises, and what is in it leads to

# Starts a kernel in the container until the deadline (of `time.monotonic`), and returns what the supervisor knows.
Start = Callable[[KernelContainer, Slot, float], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Warm:
    """A kernel that runs in a container of the pool."""

    container: KernelContainer
    facts: dict[str, Any]
    info: EngineInfo


@dataclass(frozen=True)
class Miss:
    """Why there is none, in few words. A container that is `nobodys` is to be removed by who fills the pool."""

    reason: str
    nobodys: bool = True


class Pool:
    """The pool as one kernel's start sees it. Whatever is wrong with it is told in the log, and raises nothing."""

    def __init__(self, spec: Spec, environ: Mapping[str, str], *, encrypts: bool, log: logging.Logger) -> None:
        self.spec = spec
        self.log = log
        self._environ = environ
        self._encrypts = encrypts
        self._ledger = Ledger.of_this_user()

    @property
    def start_under_way(self) -> contextlib.AbstractContextManager[None]:
        """Nobody fills the pool meanwhile."""
        return self._ledger.start_under_way()

    async def start(self, mounts: Workdir, start: Start, kernel_id: str) -> Warm | Miss:
        """Each slot that fits is tried, the oldest first; one that does not serve is dropped, and its container ends by itself."""
        if not self.spec.pool_size:
            return Miss("pool_size is 0")
        begin = time.monotonic()
        try:
            info = self._ledger.remembered_engine(asked_of_engines(self.spec, self._environ))
            if info is None:
                return Miss("no kernel like it was started here before")
            recipe = self._recipe(info, mounts)
            found = await self._try_all(recipe, info, start, kernel_id)
        except UNREADABLE as error:
            self.log.warning("The pool of warm containers cannot be used: %s", error)
            return Miss(f"the pool cannot be used: {error}")
        if isinstance(found, Warm):
            self._ledger.note_hit(recipe.key, time.monotonic() - begin)
        return found

    def _recipe(self, info: EngineInfo, mounts: Workdir) -> Recipe:
        return recipe_for(self.spec, info, mounts, self._environ, encrypts=self._encrypts)

    async def _try_all(self, recipe: Recipe, info: EngineInfo, start: Start, kernel_id: str) -> Warm | Miss:
        wanted = self._ledger.wanted_by(recipe.key)
        if wanted is None or not wanted.image_id:
            return Miss("no container was made for it yet")
        fingerprint = recipe.fingerprint(wanted.image_id)
        miss = Miss("no warm container is left")
        begin = time.monotonic()
        for file in self._ledger.slots(fingerprint):
            if time.monotonic() - begin > TRYING:
                break
            try:
                slot = self._ledger.take(file)
            except DamagedSlot as error:
                miss = self._dropped(file.name, Miss(error.message))
                continue
            if slot is None:  # another start was first
                continue
            try:
                self._ledger.claimed(slot.name, kernel_id, await owner.this_process())
                found = await _start_in(slot, fingerprint, info, start, self.log)
                if isinstance(found, Warm):
                    return found
            except BaseException:
                self._disclaim(slot.name)
                raise
            if found.nobodys:
                self._disclaim(slot.name)
            else:
                self.ended(slot.name)
            miss = self._dropped(slot.name, found)
        return miss

    def _disclaim(self, name: str) -> None:
        with contextlib.suppress(*UNREADABLE):
            self._ledger.disclaim(name)

    def _dropped(self, name: str, miss: Miss) -> Miss:
        self.log.info("The warm container %s was dropped: %s", name, miss.reason)
        return miss

    async def make_room(self) -> None:
        """Before a cold start: where the machine's memory is short, containers that wait for somebody give theirs back."""
        with contextlib.suppress(*UNREADABLE):
            here = place_digest(place(self._environ))
            for file in self._ledger.slots():
                if psutil.virtual_memory().available >= RESERVE:
                    return
                with contextlib.suppress(DamagedSlot):
                    slot = self._ledger.peek(file)
                    engine = ENGINES.get(str(slot.container.get("engine"))) if slot and slot.place == here else None
                    if engine is not None and await remove_slot(self._ledger, engine, file):
                        self.log.info("The warm container %s was given up: its memory is needed.", file.name)

    def started_cold(self, info: EngineInfo, mounts: Workdir, miss: Miss) -> None:
        """The next start of this kind finds a warm container, if there is to be one."""
        if not self.spec.pool_size:
            return
        try:
            self._ledger.remember_engine(asked_of_engines(self.spec, self._environ), info)
            self._ledger.note_miss(self._recipe(info, mounts).key, miss.reason)
        except UNREADABLE as error:
            self.log.warning("The next kernel will not be warm: %s", error)

    def refill(self, info: EngineInfo, mounts: Workdir) -> None:
        """Another container takes the place of the one that was claimed, or is the first of its kind; soon, and not by this thread."""
        refill.soon(
            lambda: self._want(info, mounts),
            lambda: start_helper(self._ledger, self._environ, self.spec.pool_memory_budget, self.log),
        )

    def _want(self, info: EngineInfo, mounts: Workdir) -> bool:
        """Whether who fills the pool has something to do; where it is turned off, only if it was not before."""
        try:
            recipe = self._recipe(info, mounts)
            was_wanted = self._ledger.wanted_by(recipe.key) is not None
            return want(self._ledger, recipe, self.spec) is not None or was_wanted
        except UNREADABLE as error:
            self.log.warning("The pool is not filled: %s", error)
            return False

    def ended(self, name: str) -> None:
        """The container is gone; most never were in the pool."""
        with contextlib.suppress(*UNREADABLE):
            self._ledger.release(name)


async def _start_in(slot: Slot, fingerprint: str, info: EngineInfo, start: Start, log: logging.Logger) -> Warm | Miss:
    if refusal := slot.unusable(time.time(), fingerprint):
        return Miss(refusal)
    engine = ENGINES.get(str(slot.container["engine"]))
    if engine is None:
        return Miss("its engine is not known", nobodys=False)
    now = time.monotonic()
    try:
        container = await KernelContainer.claim(engine, slot.container, deadline=now + ANSWER, log=log)
    except ContainerKernelError as error:
        return Miss(f"it does not answer: {error.message}")
    if container.had_kernel:
        container.abandon()
        return Miss("it has a kernel already", nobodys=False)
    try:
        return Warm(container, await start(container, slot, now + WARM_START), info)
    except ContainerKernelError as error:
        container.abandon()
        return Miss(f"no kernel starts in it: {error.message}")
    except BaseException:
        container.abandon()
        raise
