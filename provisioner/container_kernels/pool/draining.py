"""An end to what is warm: no container is left that waits for a kernel, and none is made until a kernel is started."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .. import owner
from ..engines import ENGINES, working
from ..engines.protocol import Engine
from ..errors import ContainerKernelError
from .asking import PATIENCE, engines_turn
from .ledger import Claim, DamagedSlot, Ledger, SlotFile, Wanted
from .recipe import place, place_digest
from .removal import remove_slot


@dataclass
class Drained:
    """What was done: containers that are gone, by engine and name; what is not wanted any more; and what went wrong."""

    removed: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[Wanted] = field(default_factory=list)
    errors: list[ContainerKernelError] = field(default_factory=list)


async def drain(ledger: Ledger, environ: Mapping[str, str], engine: str | None, log: logging.Logger) -> Drained:
    """Nothing waits in the engines that this process talks to, or in the named one. Kernels are not touched, nor what is elsewhere.

    An engine that does not work, or does not remove a container, is told in `errors`: it keeps nothing else from being drained.
    """
    drained = Drained()
    for name in [each for each in ENGINES if engine in (None, each)]:
        draining = _Draining(ledger, ENGINES[name], place(environ), drained)
        if not draining.has_to_do():
            continue
        try:
            async with engines_turn(ledger, name, PATIENCE, log.info):
                draining.forget()  # first: then nobody fills what is drained
                await working(name)
                await draining.remove_slots()
                await draining.remove_unfinished()
        except ContainerKernelError as error:
            drained.errors.append(error)
    return drained


@dataclass(frozen=True)
class _Draining:
    """Of one engine; for the holder of its lock."""

    ledger: Ledger
    engine: Engine
    place: Mapping[str, str]
    drained: Drained

    def has_to_do(self) -> bool:
        return bool(
            self._wanted()
            or self._unfinished()
            or any(self._is_ours(file) is not False for file in self.ledger.slots())
        )

    def _wanted(self) -> list[Wanted]:
        some = [each for each in self.ledger.wanted() if each.recipe.engine == self.engine.name]
        return [each for each in some if dict(each.recipe.place) == self.place]

    def _unfinished(self) -> list[Claim]:
        some = [each for each in self.ledger.making() if each.engine == self.engine.name]
        return [each for each in some if each.place == place_digest(self.place)]

    def _is_ours(self, file: SlotFile) -> bool | None:
        """Whether the slot is of this engine; None for one that is damaged, and may be of any."""
        try:
            slot = self.ledger.peek(file)
        except DamagedSlot:
            return None
        if slot is None:
            return False
        return slot.container.get("engine") == self.engine.name and slot.place == place_digest(self.place)

    def forget(self) -> None:
        for wanted in self._wanted():
            self.ledger.forget(wanted.key)
            self.drained.forgotten.append(wanted)

    async def remove_slots(self) -> None:
        there = {state.name for state in await self.engine.list()}
        for file in self.ledger.slots():
            ours = self._is_ours(file)
            if ours or (ours is None and file.name in there):
                with self._telling():
                    if await remove_slot(self.ledger, self.engine, file):
                        self.drained.removed.append((self.engine.name, file.name))

    async def remove_unfinished(self) -> None:
        """What a filler that was killed has left half made; one that works holds the engine's lock, and we have it."""
        unfinished = [each for each in self._unfinished() if await owner.is_gone(each.owner)]
        there = {state.name for state in await self.engine.list()}
        finished = {each.name for each in self.ledger.slots()} | {each.name for each in self.ledger.claims()}
        for each in unfinished:
            with self._telling():
                if each.name in there - finished:
                    await self.engine.remove(each.name)
                    self.drained.removed.append((self.engine.name, each.name))
                self.ledger.made(each.name)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except ContainerKernelError as error:
            self.drained.errors.append(error)
