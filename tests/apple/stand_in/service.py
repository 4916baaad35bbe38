"""Whether the service is there, and who it says that it is."""

from __future__ import annotations

from .errors import no_service
from .world import World

COMMIT = "abc1234"


def line(world: World) -> str:
    return f"container CLI version {world.version} (build: release, commit: {COMMIT})"


def server(world: World) -> str:
    return f"container-apiserver version {world.version} (build: release, commit: {COMMIT})"


def is_up(world: World) -> bool:
    return "service" not in world.faults()


def need(world: World) -> None:
    """Nearly every command asks it."""
    if not is_up(world):
        raise no_service("failed to list containers")
