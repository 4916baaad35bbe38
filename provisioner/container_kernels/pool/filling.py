"""Making warm containers, and taking away those that are not wanted any more."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import psutil

from .. import __version__, owner
from ..engines.protocol import LABEL, OWNER_LABEL, POOL_LABEL, Engine
from ..errors import ContainerKernelError, EngineUnavailable
from ..kernel_container import KernelContainer, new_name
from .decision import LARGEST, SETTLE, Fill, Forget, Remove, SlotView, Snapshot, decide, expiry
from .ledger import Claim, DamagedSlot, Ledger, LedgerError, Slot, SlotFile, Wanted
from .recipe import Recipe, guest_digest, place_digest
from .removal import remove_slot

FILLING = 120.0  # seconds for one container to become warm
DISCLAIMED = 30.0  # seconds after a claim that came to nothing: the container may be about to end by itself
AFTER_EXPIRY = 60.0  # seconds that a container outlives its slot: a claim at the last moment still finds it

_jitter = random.SystemRandom()


class Filler:
    """Brings the pool of one engine to what is wanted, one container at a time. For the holder of the engine's lock.

    `place` says which engine of that name this process talks to: what is wanted of another one is let be. `budget` is in bytes, for all
    our containers together; None is half of the machine's memory. A person who waits is not kept by starts or earlier failures:
    `at_once`. Methods raise what the engine and the ledger raise.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        place: Mapping[str, str],
        budget: int | None,
        log: logging.Logger,
        *,
        at_once: bool = False,
    ) -> None:
        self.engine = engine
        self.ledger = ledger
        self.place = dict(place)
        self._place_digest = place_digest(place)
        self.budget = psutil.virtual_memory().total // 2 if budget is None else budget
        self.log = log
        self.at_once = at_once

    # -- What there is

    async def look(self) -> Snapshot:
        """What there is, after what is dead was taken out of the ledger."""
        files = self.ledger.slots()
        alive = await self._sweep(files)
        wanted = self._wanted()
        slots = tuple(view for file in files if file.name in alive and (view := self._view(file)) is not None)
        return Snapshot(
            wanted=wanted,
            slots=slots,
            failures=self._failures(wanted),
            images={each.key: await self._image(each.recipe.request.image) for each in wanted},
            available=psutil.virtual_memory().available,
            used=await self._used(alive, slots),
            budget=self.budget,
            busy=not self.at_once and self._is_busy(),
        )

    def _wanted(self) -> tuple[Wanted, ...]:
        """What is wanted of this engine. A recipe whose directories are gone, or others now, is not wanted any more."""
        found = []
        for each in self.ledger.wanted():
            if self._is_ours(each.recipe):
                if each.recipe.is_up_to_date:
                    found.append(each)
                else:
                    self.ledger.forget(each.key)
        return tuple(found)

    def _is_ours(self, recipe: Recipe) -> bool:
        return recipe.engine == self.engine.name and dict(recipe.place) == self.place

    async def _sweep(self, files: Collection[SlotFile]) -> set[str]:
        """Names of the containers that the engine has. The ledger's entries of others are gone, and what a killed filler was making."""
        claims, making = self.ledger.claims(), self.ledger.making()
        alive = {state.name for state in await self.engine.list()}
        for file in files:
            if file.name not in alive and self._view(file) is not None:
                await self.drop(file.name)
        for claim in claims:
            if not self._has(claim):
                continue
            if claim.name in alive and not claim.kernel_id and time.time() - claim.since > DISCLAIMED:
                await self.engine.remove(claim.name)
                self.ledger.release(claim.name)
            elif claim.name not in alive:
                self.ledger.release(claim.name)
        for unfinished in making:
            if self._has(unfinished) and await owner.is_gone(unfinished.owner):
                if unfinished.name not in self._known():
                    await self.engine.remove(unfinished.name)
                self.ledger.made(unfinished.name)
        return alive

    def _has(self, claim: Claim) -> bool:
        return claim.engine == self.engine.name and claim.place == self._place_digest

    def _known(self) -> set[str]:
        """Names of what was finished: in the pool, or claimed from it. In this order: a claim goes from one to the other."""
        return {file.name for file in self.ledger.slots()} | {claim.name for claim in self.ledger.claims()}

    def _view(self, file: SlotFile) -> SlotView | None:
        """None for what is nobody's business here: claimed meanwhile, or another engine's."""
        try:
            slot = self.ledger.peek(file)
        except DamagedSlot:
            return SlotView(file.fingerprint, file.name, "", file.modified, 0.0, 0)
        if slot is None or slot.container.get("engine") != self.engine.name or slot.place != self._place_digest:
            return None
        return SlotView.of(slot)

    def _failures(self, wanted: Collection[Wanted]) -> dict[str, Any]:
        if self.at_once:
            return {}
        return {each.key: failure for each in wanted if (failure := self.ledger.failure(each.key)) is not None}

    async def _image(self, reference: str) -> str:
        image = await self.engine.image(reference)
        return image.id if image else ""

    async def _used(self, alive: Collection[str], slots: Collection[SlotView]) -> int:
        """Bytes that our containers use. An engine takes seconds to tell: it is asked only where the answer may matter."""
        of_slots = sum(slot.memory for slot in slots)
        if len(alive) == len(slots):
            return of_slots
        memory = psutil.virtual_memory()
        most = memory.total - memory.available
        if most + LARGEST <= self.budget:
            return most
        return sum(usage.memory for usage in await self.engine.usage())

    def _is_busy(self) -> bool:
        now = time.time()
        return self.ledger.starts_under_way(now) or 0 <= now - self.ledger.last_start() < SETTLE

    # -- What to do

    async def do(self, snapshot: Snapshot) -> bool:
        """What can be done now is done; False when that was nothing. A container that cannot be made is a failure, noted and raised."""
        self._note_images(snapshot)
        todo = decide(snapshot, time.time())
        for action in todo:
            match action:
                case Remove():
                    self.log.info("The warm container %s is given up: %s.", action.name, action.reason)
                    await self.drop(action.name)
                case Forget():
                    self.ledger.forget(action.key)
                case Fill():
                    wanted = next(each for each in snapshot.wanted if each.key == action.key)
                    await self._fill(wanted, snapshot.images[action.key])
        self.ledger.trim()
        return bool(todo)

    async def drop(self, name: str) -> None:
        """The slot is gone, then its container; not one that was claimed meanwhile."""
        for file in self.ledger.slots():
            if file.name == name:
                await remove_slot(self.ledger, self.engine, file)

    async def _fill(self, wanted: Wanted, image_id: str) -> None:
        try:
            slot = await self._made(wanted, image_id)
        except EngineUnavailable:
            raise
        except ContainerKernelError as error:
            self.ledger.failed(wanted.key, str(error), time.time())
            raise
        self.ledger.succeeded(wanted.key)
        self._note(wanted.key, memory=slot.memory)
        self.log.info("The container %s is warm.", slot.name)

    def _note_images(self, snapshot: Snapshot) -> None:
        """Starts find the slots of these images, also those that are there already while what was known of a recipe was lost."""
        for key, image_id in snapshot.images.items():
            if image_id:
                self._note(key, image_id=image_id)

    def _note(self, key: str, **changes: Any) -> None:
        """What is wanted may have been used, or forgotten, since it was looked at."""
        latest = self.ledger.wanted_by(key)
        if latest is not None and (changed := replace(latest, **changes)) != latest:
            self.ledger.want(changed)

    async def _made(self, wanted: Wanted, image_id: str) -> Slot:
        """A warm container, in the ledger. Nothing is left of it when this raises or is cancelled."""
        recipe, name, ours = wanted.recipe, new_name(), await owner.this_process()
        labels = {LABEL: __version__, POOL_LABEL: recipe.key, OWNER_LABEL: ours}
        deadline = time.monotonic() + FILLING
        self.ledger.make(name, self.engine.name, self._place_digest, ours)
        try:
            container = await KernelContainer.launch(
                self.engine,
                replace(recipe.request, name=name, labels=labels),
                {**recipe.settings, "time_to_live": FILLING},
                ports=None,
                wanted={},
                deadline=deadline,
                log=self.log,
            )
            created = time.time()
            expires = expiry(created, wanted.ttl, _jitter)
            curve = curve_keys() if recipe.curve else {}
            answer = await container.shelve(expires - created + AFTER_EXPIRY, curve, deadline)
            memory = answer.get("memory")
            slot = Slot(
                fingerprint=recipe.fingerprint(image_id),
                name=name,
                container=container.persisted(),
                curve=curve,
                parked=answer.get("parked") is True,
                created=created,
                expires=expires,
                memory=memory if isinstance(memory, int) else 0,
                owner=ours,
                key=recipe.key,
                guest=guest_digest(),
                place=self._place_digest,
            )
            try:
                if not recipe.is_up_to_date:
                    raise LedgerError("A directory that is to be mounted was replaced.")
                self.ledger.put(slot)
            except BaseException:
                await container.discard()
                raise
        finally:
            self.ledger.made(name)
        return slot


def curve_keys() -> dict[str, str]:
    """A pair of the container's own: a kernel that waits has bound its sockets, and cannot be given one later."""
    import zmq

    public, secret = zmq.curve_keypair()
    return {"curve_publickey": public.decode(), "curve_secretkey": secret.decode()}
