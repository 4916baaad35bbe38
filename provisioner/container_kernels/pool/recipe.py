"""How to make one warm container, and the key by which a kernel finds those that fit it.

What is in the key is all but what is left out by name: a field that is new somewhere tells containers apart until somebody decides otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from .. import __version__
from ..engines.protocol import ContainerRequest
from ..guest import wire
from .checked import checked, plain

GUEST = Path(wire.__file__).parent

# The variables that say which engine a command line talks to.
PLACE = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "CONTAINER_HOST",
    "CONTAINER_CONNECTION",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
)


def place(environ: Mapping[str, str]) -> dict[str, str]:
    """Which engine the command lines talk to, as far as variables say it."""
    return {name: environ[name] for name in PLACE if name in environ}


def place_digest(some: Mapping[str, str]) -> str:
    """A short name of a place; a person's usual one, where no variable is set, has one as well."""
    return _digest(dict(some))[:16]


@cache
def guest_digest() -> str:
    """The guest's version: what its files are called and hold, when this process first asks."""
    digest = hashlib.sha256()
    for path in sorted(GUEST.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def identities(request: ContainerRequest) -> tuple[str, ...]:
    """Of each mounted directory, device and inode; empty for what is not there."""
    found = []
    for mount in request.mounts:
        try:
            status = os.stat(mount.source)
            found.append(f"{status.st_dev}:{status.st_ino}")
        except OSError:
            found.append("")
    return tuple(found)


@dataclass(frozen=True)
class Recipe:
    """How to make one warm container, and which kernels it fits. Made by `of`.

    `place` holds the variables that say which engine is meant, `settings` the guest's; `curve` tells whether the parked kernel is to have
    CurveZMQ keys. `sources` tells the mounted directories from others that have their paths later: a mount stays with the directory.
    """

    engine: str
    place: Mapping[str, str]
    request: ContainerRequest
    settings: Mapping[str, Any]
    curve: bool
    sources: tuple[str, ...]

    @classmethod
    def of(
        cls,
        engine: str,
        place: Mapping[str, str],
        request: ContainerRequest,
        settings: Mapping[str, Any],
        curve: bool,
    ) -> Recipe:
        """Without what each container has of its own: name, ports, labels, and how long it waits for its first host."""
        blank = replace(request, name="", ports=(), labels={})
        lasting = {name: value for name, value in settings.items() if name != "time_to_live"}
        return cls(engine, place, blank, lasting, curve, identities(blank))

    @property
    def is_up_to_date(self) -> bool:
        """Whether its directories are still the same."""
        return identities(self.request) == self.sources

    @cached_property
    def key(self) -> str:
        """The same for two recipes if their containers, of the same image, are alike."""
        return _digest({"recipe": self.to_json(), "guest": guest_digest(), "version": __version__})

    def fingerprint(self, image_id: str) -> str:
        """The same for two containers if one may stand for the other: an image's name may lead to another image tomorrow."""
        return _digest([self.key, image_id])

    def to_json(self) -> dict[str, Any]:
        return dict(plain(self))

    @classmethod
    def from_json(cls, value: object) -> Recipe:
        """Raises ValueError for what `to_json` of this version does not give."""
        return checked(cls, value)


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
