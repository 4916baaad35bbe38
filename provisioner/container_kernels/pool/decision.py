"""What is to be done for the pool, from what there is: nothing here waits, reads or writes.

First what must go, then at most one container to make; the next look decides anew.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from .records import SKEW, Failure, Slot, Wanted

RESERVE = 512 << 20  # bytes of the host's memory that stay free for a person's work
RECENT = 4  # recipes of an engine that are kept warm
FORGOTTEN = 7 * 24 * 3600.0  # seconds without use
SETTLE = 2.0  # seconds after a start in which nothing is made: the first cell is running
RENEWAL = 0.15  # of a slot's life: then the next one is made
JITTER = 0.15  # of a slot's life, so that slots made together do not end together
PLAIN, MODULE, LARGEST = (
    64 << 20,
    32 << 20,
    256 << 20,
)  # bytes of a container that nobody has measured: alone, by preload, at most
SOONEST, LATEST = 1.0, 60.0  # seconds between looks


@dataclass(frozen=True)
class SlotView:
    """What a decision needs to know of a slot: no secrets."""

    fingerprint: str
    name: str
    key: str
    created: float
    expires: float
    memory: int

    @classmethod
    def of(cls, slot: Slot) -> SlotView:
        return cls(slot.fingerprint, slot.name, slot.key, slot.created, slot.expires, slot.memory)

    @property
    def renewal(self) -> float:
        """When the next one is to be made."""
        return self.expires - RENEWAL * (self.expires - self.created)


@dataclass(frozen=True)
class Snapshot:
    """What there is. All slots are of the engine whose recipes are in `wanted`.

    `images` has the image's id by recipe: empty where the engine has no such image, absent where it could not be asked. `available` is the
    host's free memory, `used` what all our containers have, `budget` what they may have, in bytes. `busy`: a start is under way, or has
    ended less than SETTLE seconds ago.
    """

    wanted: tuple[Wanted, ...]
    slots: tuple[SlotView, ...]
    failures: Mapping[str, Failure]
    images: Mapping[str, str]
    available: int
    used: int
    budget: int
    busy: bool


@dataclass(frozen=True)
class Remove:
    """The slot is to be claimed, and its container removed."""

    name: str
    reason: str


@dataclass(frozen=True)
class Forget:
    """The recipe is not wanted any more."""

    key: str
    reason: str


@dataclass(frozen=True)
class Fill:
    """One container of the recipe is to be made."""

    key: str


def decide(snapshot: Snapshot, now: float) -> list[Remove | Forget | Fill]:
    """What to do now, in this order."""
    forgotten = {each.key: reason for each in snapshot.wanted if (reason := _past(each, now))}
    kept = _kept(snapshot, now)
    removed = _useless(snapshot, kept, forgotten, now)
    good = [slot for slot in snapshot.slots if slot.name not in removed]
    removed |= _surplus(kept, good, now)
    removed |= _given_up(snapshot, kept, removed)
    left = [slot for slot in snapshot.slots if slot.name not in removed]
    return [
        *(Remove(name, reason) for name, reason in removed.items()),
        *(Forget(key, reason) for key, reason in forgotten.items()),
        *(Fill(key) for key in _lacking(snapshot, kept, left, now)[:1]),
    ]


def next_look(snapshot: Snapshot, now: float) -> float:
    """Seconds until time alone may have changed what `decide` says of the snapshot, once that is done."""
    moments = [now + LATEST, *(each.last_used + FORGOTTEN for each in snapshot.wanted)]
    moments += [moment for slot in snapshot.slots for moment in (slot.renewal, slot.expires)]
    moments += [failure.not_before for failure in snapshot.failures.values()]
    moments += [now + SETTLE] if snapshot.busy else []
    return max(SOONEST, min(moment for moment in moments if moment > now) - now)


def expiry(now: float, ttl: float, source: random.Random) -> float:
    """When a slot that is made now is to end."""
    return now + ttl * source.uniform(1 - JITTER, 1)


def estimate(wanted: Wanted, slots: Iterable[SlotView]) -> int:
    """Bytes of one more container: what the largest of its kind has, or else a guess."""
    known = max((slot.memory for slot in slots if slot.key == wanted.key), default=wanted.memory)
    if known:
        return known
    preload = wanted.recipe.settings.get("preload")
    return min(PLAIN + MODULE * (len(preload) if isinstance(preload, (list, tuple)) else 0), LARGEST)


# -- The rules


def _past(wanted: Wanted, now: float) -> str:
    """Why the recipe is not wanted any more; empty if it is. One used far in the future is from before a clock was set back."""
    if wanted.size <= 0:
        return "its pool_size is 0"
    return "not used for a long time" if abs(now - wanted.last_used) > FORGOTTEN else ""


def _kept(snapshot: Snapshot, now: float) -> list[Wanted]:
    """Those to be kept warm, the most recently used first."""
    some = sorted((each for each in snapshot.wanted if not _past(each, now)), key=_recency)
    by_engine = groupby(sorted(some, key=lambda each: each.recipe.engine), key=lambda each: each.recipe.engine)
    return sorted((each for _, group in by_engine for each in list(group)[:RECENT]), key=_recency)


def _recency(wanted: Wanted) -> tuple[float, str]:
    return -wanted.last_used, wanted.key


def _useless(snapshot: Snapshot, kept: Iterable[Wanted], forgotten: Mapping[str, str], now: float) -> dict[str, str]:
    """Slots that no kernel will start in, by name, with the reason."""
    images = {each.key: snapshot.images.get(each.key) for each in kept}
    fingerprints = {each.key: each.recipe.fingerprint(image) for each in kept if (image := images[each.key])}
    useless = {}
    for slot in snapshot.slots:
        if slot.key in forgotten:
            useless[slot.name] = forgotten[slot.key]
        elif slot.key not in images:
            rarely = any(each.key == slot.key for each in snapshot.wanted)
            useless[slot.name] = "others are used more recently" if rarely else "nobody wants it"
        elif slot.created > now + SKEW:
            useless[slot.name] = "from the future"
        elif slot.expires <= now:
            useless[slot.name] = "expired"
        elif images[slot.key] is not None and fingerprints.get(slot.key) != slot.fingerprint:
            useless[slot.name] = "its image is another now"
    return useless


def _surplus(kept: Iterable[Wanted], good: list[SlotView], now: float) -> dict[str, str]:
    """Slots above the size: first those that are to be renewed, then the oldest."""
    surplus: dict[str, str] = {}
    for wanted in kept:
        own = [slot for slot in good if slot.key == wanted.key]
        own.sort(key=lambda slot: (slot.renewal > now, slot.created, slot.name))
        surplus |= {slot.name: "there are newer ones" for slot in own[: max(0, len(own) - wanted.size)]}
    return surplus


def _given_up(snapshot: Snapshot, kept: list[Wanted], removed: Mapping[str, str]) -> dict[str, str]:
    """Idle slots whose memory is needed, least recently used recipes first."""
    estimates = {each.key: estimate(each, snapshot.slots) for each in snapshot.wanted}

    def memory(slot: SlotView) -> int:
        return slot.memory or estimates.get(slot.key, PLAIN)

    needed = max(RESERVE - snapshot.available, snapshot.used - snapshot.budget)
    needed -= sum(memory(slot) for slot in snapshot.slots if slot.name in removed)
    given_up = {}
    for wanted in reversed(kept):
        for slot in sorted(snapshot.slots, key=lambda slot: (slot.created, slot.name)):
            if needed > 0 and slot.key == wanted.key and slot.name not in removed:
                given_up[slot.name] = "its memory is needed"
                needed -= memory(slot)
    return given_up


def _lacking(snapshot: Snapshot, kept: Iterable[Wanted], left: Iterable[SlotView], now: float) -> list[str]:
    """Recipes of which a container can be made now, the most recently used first."""
    if snapshot.busy:
        return []
    fresh = [slot.key for slot in left if slot.renewal > now]
    room = min(snapshot.available - RESERVE, snapshot.budget - snapshot.used)
    return [
        each.key
        for each in kept
        if fresh.count(each.key) < each.size
        and snapshot.images.get(each.key)
        and not (each.key in snapshot.failures and snapshot.failures[each.key].holds(now))
        and estimate(each, snapshot.slots) <= room
    ]
