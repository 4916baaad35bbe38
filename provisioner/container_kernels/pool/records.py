"""What the ledger keeps: one warm container, who uses one, which recipes are wanted, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..guest import wire
from .recipe import Recipe, guest_digest

SKEW = 60.0  # seconds that two clocks may differ; what is later than that was written before a clock was set back
FIRST_WAIT = 30.0  # seconds after a failure
LONGEST_WAIT = 1800.0


@dataclass(frozen=True)
class Slot:
    """One warm container. It is a secret: whoever has `container`, which is `KernelContainer.persisted()`, can run code in it.

    `curve` holds the keys of a parked kernel. `memory` is in bytes, 0 where it is unknown; `owner` is the label of who made it; `key` the
    recipe's, `guest` the digest of the guest in it, and `place` that of the variables which say which engine has it.
    """

    fingerprint: str
    name: str
    container: Mapping[str, Any]
    curve: Mapping[str, str]
    parked: bool
    created: float
    expires: float
    memory: int
    owner: str
    key: str
    guest: str
    place: str

    def unusable(self, now: float, fingerprint: str) -> str:
        """Why no kernel of that fingerprint may start in it; empty if one may."""
        if self.fingerprint != fingerprint:
            return "another fingerprint"
        if self.guest != guest_digest():
            return "another guest"
        if self.created > now + SKEW:
            return "from the future"
        if self.expires <= now:
            return "expired"
        if not self._has_address():
            return "no address"
        return "" if self._has_keys() else "no keys"

    def _has_keys(self) -> bool:
        """A kernel that got other keys than its clients would answer nobody."""
        import zmq

        if not self.curve:
            return True
        try:
            public = zmq.curve_public(self.curve["curve_secretkey"].encode()).decode()
            return self.curve == {"curve_publickey": public, "curve_secretkey": self.curve["curve_secretkey"]}
        except (KeyError, ValueError, zmq.ZMQError):
            return False

    def _has_address(self) -> bool:
        ports = self.container.get("ports")
        texts = [self.container.get(name) for name in ("engine", "name", "image", "host", "token")]
        if not all(isinstance(text, str) and text for text in texts) or self.container["name"] != self.name:
            return False
        if not isinstance(ports, Mapping) or ports.keys() != {*wire.KERNEL_PORTS, "supervisor"}:
            return False
        numbers = list(ports.values())
        return all(type(port) is int and 0 < port < 1 << 16 for port in numbers) and len(set(numbers)) == len(numbers)


@dataclass(frozen=True)
class SlotFile:
    """A slot, as far as its file's name tells; `modified` is when it was put there."""

    fingerprint: str
    name: str
    modified: float

    @property
    def filename(self) -> str:
        return f"{self.fingerprint}.{self.name}.json"


@dataclass(frozen=True)
class Claim:
    """A container that was taken out of the pool, or is not in it yet. What nobody has told, or is damaged, is empty."""

    name: str
    kernel_id: str
    owner: str
    since: float
    engine: str
    place: str


@dataclass(frozen=True)
class Wanted:
    """So many containers of a recipe are to be warm, each for `ttl` seconds. `image_id` is empty until a filler has looked, and
    `memory`, what the last one that was made took, 0."""

    recipe: Recipe
    size: int
    ttl: float
    image_id: str
    last_used: float
    memory: int = 0

    @property
    def key(self) -> str:
        return self.recipe.key


@dataclass(frozen=True)
class Failure:
    """A recipe that could not be made: so many times in a row, and when to try again."""

    count: int
    last: float
    message: str
    not_before: float

    def after(self, message: str, now: float) -> Failure:
        """One more: each waits twice as long as the one before."""
        wait = min(FIRST_WAIT * 2 ** min(self.count, 16), LONGEST_WAIT)
        return Failure(self.count + 1, now, message[:2000], now + wait)

    def holds(self, now: float) -> bool:
        """Whether it is too early to try again; a clock that was set back does not make it later."""
        return self.last - SKEW <= now < min(self.not_before, self.last + LONGEST_WAIT)


NO_FAILURE = Failure(0, 0.0, "", 0.0)


@dataclass(frozen=True)
class Counts:
    """Starts that found a warm container, and those that did not, by reason. `last_seconds` is what the latest hit took."""

    hits: int = 0
    misses: Mapping[str, int] = field(default_factory=dict)
    last_hit: float = 0.0
    last_seconds: float = 0.0
