"""Recipes, slots and what is wanted, as tests need them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from container_kernels.engines.protocol import ContainerRequest, Mount
from container_kernels.guest import wire
from container_kernels.pool.ledger import Slot, SlotFile, Wanted
from container_kernels.pool.recipe import Recipe, guest_digest, place_digest

NOW = float(int(time.time()))  # the files that tests make are of this moment, too
IMAGE = "sha256:1f"
PLACE = place_digest({})
REQUEST = ContainerRequest(
    name="container-kernels-1",
    image="container-kernels/python",
    command=("python3", "-c", "pass"),
    cpus=2.0,
    memory=2 << 30,
    pids=512,
    mounts=(Mount("/guest", "/opt/guest", True), Mount("/home/a", "/home/a")),
    labels={"io.container-kernels": "1"},
)
SETTINGS = {"time_to_live": 120.0, "scratch": "/tmp", "umask": 18, "preload": [], "template": True}


def recipe(**settings: Any) -> Recipe:
    """Another one for other settings of the guest."""
    return Recipe.of("docker", {}, REQUEST, {**SETTINGS, **settings}, False)


def wanted(some: Recipe | None = None, **changes: Any) -> Wanted:
    return replace(Wanted(some or recipe(), size=1, ttl=1000.0, image_id=IMAGE, last_used=NOW), **changes)


def slot(number: int = 1, some: Recipe | None = None, **changes: Any) -> Slot:
    name = changes.get("name", f"container-kernels-{number:012x}")
    some = some or recipe()
    ports = {each: 20_000 + 10 * number + i for i, each in enumerate([*wire.KERNEL_PORTS, "supervisor"])}
    made = Slot(
        fingerprint=some.fingerprint(IMAGE),
        name=name,
        container={
            "engine": "docker",
            "name": name,
            "image": "i",
            "host": "127.0.0.1",
            "token": f"secret-{number}",
            "ports": ports,
        },
        curve={},
        parked=True,
        created=NOW,
        expires=NOW + 1000,
        memory=50 << 20,
        owner="1:2:here",
        key=some.key,
        guest=guest_digest(),
        place=PLACE,
    )
    return replace(made, **changes)


def file_of(some: Slot) -> SlotFile:
    return SlotFile(some.fingerprint, some.name, some.created)
