"""What the ledger tells of the pool: no engine is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import owner
from ..engines.protocol import NAME_PREFIX
from ..kernel_container import GUEST_MOUNT
from .keeping import keeper_lock
from .ledger import Claim, Counts, DamagedSlot, Failure, Ledger, Slot, Wanted


@dataclass(frozen=True)
class OfRecipe:
    """One recipe. In the `warm` slots a kernel may start; `wanted` is None where nobody wants it any more, and some are left."""

    key: str
    wanted: Wanted | None
    warm: tuple[Slot, ...]
    unusable: tuple[Slot, ...]
    counts: Counts
    failure: Failure | None

    @property
    def size(self) -> int:
        return self.wanted.size if self.wanted else 0

    @property
    def engine(self) -> str:
        return self.wanted.recipe.engine if self.wanted else str(self.unusable[0].container.get("engine", ""))

    @property
    def image(self) -> str:
        return self.wanted.recipe.request.image if self.wanted else str(self.unusable[0].container.get("image", ""))

    @property
    def place(self) -> Mapping[str, str]:
        """The variables that say which engine is meant, as far as there are any."""
        return self.wanted.recipe.place if self.wanted else {}

    @property
    def directories(self) -> list[str]:
        """What of the host such a kernel sees: its working directory is the first, or lies in it."""
        return (
            [mount.source for mount in self.wanted.recipe.request.mounts if mount.target != GUEST_MOUNT.target]
            if self.wanted
            else []
        )


@dataclass(frozen=True)
class Status:
    """The pool at one moment. `making` are containers that will soon be warm; with a `keeper`, a process fills as long as it runs."""

    recipes: tuple[OfRecipe, ...]
    making: tuple[Claim, ...]
    keeper: bool


async def status(ledger: Ledger, environ: Mapping[str, str], now: float) -> Status:
    """The latest used recipe is the first. Raises what a ledger raises."""
    slots, counts = _slots(ledger), ledger.counts()
    wanted = {each.key: each for each in sorted(ledger.wanted(), key=lambda each: -each.last_used)}
    recipes = []
    for key in dict.fromkeys([*wanted, *(slot.key for slot in slots)]):
        own = [slot for slot in slots if slot.key == key]
        warm = tuple(slot for slot in own if key in wanted and not slot.unusable(now, _fingerprint(wanted[key])))
        unusable = tuple(slot for slot in own if slot not in warm)
        failure = ledger.failure(key) if key in wanted else None
        recipes.append(OfRecipe(key, wanted.get(key), warm, unusable, _grouped(counts.get(key, Counts())), failure))
    making = [each for each in ledger.making() if not await owner.is_gone(each.owner)]
    return Status(tuple(recipes), tuple(making), _has_keeper(ledger, environ))


def _slots(ledger: Ledger) -> list[Slot]:
    """The oldest first; what is damaged is no slot."""
    found = []
    for file in ledger.slots():
        try:
            slot = ledger.peek(file)
        except DamagedSlot:
            continue
        if slot is not None:
            found.append(slot)
    return found


def _grouped(counts: Counts) -> Counts:
    """Reasons without what follows a colon, and without the names of containers: each kind counts once."""
    misses: dict[str, int] = {}
    for reason, number in counts.misses.items():
        kind = re.sub(rf"{NAME_PREFIX}\S*", "a container", reason.partition(": ")[0])
        misses[kind] = misses.get(kind, 0) + number
    return replace(counts, misses=misses)


def _fingerprint(wanted: Wanted) -> str:
    return wanted.recipe.fingerprint(wanted.image_id)


def _has_keeper(ledger: Ledger, environ: Mapping[str, str]) -> bool:
    return ledger.is_locked(keeper_lock(environ))
