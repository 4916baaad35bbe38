"""A pool of one test's own: with real containers, and with slots that lead to whatever a test wants."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from container_kernels.config import host_environment
from container_kernels.engines import ENGINES
from container_kernels.engines.protocol import NAME_PREFIX
from container_kernels.guest import wire
from container_kernels.pool.asking import encrypts, wish
from container_kernels.pool.checked import plain
from container_kernels.pool.filling import Filler
from container_kernels.pool.ledger import Ledger, Slot, SlotFile, Wanted
from container_kernels.pool.recipe import guest_digest, place, place_digest
from container_kernels.pool.refill import refill
from container_kernels.ports import HOST

from ..conftest import EngineUnderTest, tested_engines

TOKEN = "the-token-of-the-slot"  # of slots that lead nowhere

_log = logging.getLogger("tests.warm")

# For what is the same with every engine.
only_docker = pytest.mark.parametrize("engine", [name for name in tested_engines() if name == "docker"], indirect=True)


class PoolUnderTest:
    """The pool as kernels of this test see it. Nobody fills it but the test."""

    def __init__(self, engine: EngineUnderTest) -> None:
        self.engine = engine
        self.ledger = Ledger.of_this_user()
        self.directory = self.ledger._files.directory
        environ = place(host_environment())
        self.filler = Filler(ENGINES[engine.name], self.ledger, environ, 64 << 30, _log, at_once=True)
        self.config: dict[str, Any] = (
            KernelSpecManager().get_kernel_spec("container-python").metadata["kernel_provisioner"]["config"]
        )
        self._wanted: Wanted | None = None

    @property
    def wanted(self) -> Wanted:
        assert self._wanted is not None, "call `wish` first"
        return self._wanted

    async def wish(self) -> None:
        """The ledger has as wanted what `container-python` takes when it is started here."""
        wanted = await wish(self.ledger, self.config, {}, cwd=os.getcwd(), root=None, encrypts=encrypts())
        assert wanted is not None
        image = await self.filler.engine.image(wanted.recipe.request.image)
        assert image is not None
        self._wanted = replace(wanted, image_id=image.id)
        self.ledger.want(self._wanted)

    async def fill(self) -> list[Slot]:
        """There are as many warm containers as are wanted, also by a kernel that was started just now."""
        refill.now()
        while await self.filler.do(await self.filler.look()):
            pass
        return self.slots()

    async def drain(self) -> None:
        """None is warm."""
        for file in self.ledger.slots():
            await self.filler.drop(file.name)

    def slots(self) -> list[Slot]:
        """The oldest first."""
        return [slot for file in self.ledger.slots() if (slot := self.ledger.peek(file)) is not None]

    @property
    def fingerprint(self) -> str:
        return self.wanted.recipe.fingerprint(self.wanted.image_id)

    def slot(self) -> Slot:
        """The only one."""
        (slot,) = self.slots()
        return slot

    def path(self, slot: Slot | SlotFile) -> Path:
        return self.directory / "slots" / f"{slot.fingerprint}.{slot.name}.json"

    def change(self, slot: Slot, **fields: Any) -> None:
        """Its file says something else, and is as old as it was."""
        self.rewrite(slot, {**plain(slot), **fields})

    def rewrite(self, slot: Slot, content: object) -> None:
        path, age = self.path(slot), self.path(slot).stat().st_mtime_ns
        path.write_text(json.dumps(content))
        os.utime(path, ns=(age, age))

    def age(self, slot: Slot, seconds: float) -> None:
        """So long ago it was put there, whatever it is by now."""
        then = time.time() - seconds
        os.utime(self.path(slot), (then, then), follow_symlinks=False)

    def invent(self, *, port: int = 1, age: float = 10, **fields: Any) -> Slot:
        """A slot that looks as good as any, of a container whose supervisor is at the port; older than what a filler makes now."""
        name = f"{NAME_PREFIX}{uuid.uuid4().hex[:12]}"
        ports = {each: 2 + number for number, each in enumerate(wire.KERNEL_PORTS)}
        slot = Slot(
            fingerprint=self.fingerprint,
            name=name,
            container={
                "engine": self.engine.name,
                "name": name,
                "image": self.wanted.recipe.request.image,
                "host": HOST,
                "token": TOKEN,
                "ports": {**ports, "supervisor": port},
            },
            curve={},
            parked=True,
            created=time.time(),
            expires=time.time() + 1000,
            memory=50 << 20,
            owner="1:2:elsewhere",
            key=self.wanted.key,
            guest=guest_digest(),
            place=place_digest(place(host_environment())),
        )
        slot = replace(slot, **fields)
        self.ledger.put(slot)
        self.age(slot, age)
        return slot


@dataclass
class Program:
    """What listens at a port: each connection is given to `behave`, in a thread of its own. It keeps what it was told."""

    behave: Callable[[Program, socket.socket], None]
    port: int = 0
    heard: bytearray = field(default_factory=bytearray)
    connections: int = 0
    ended: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    def listen(self, sock: socket.socket) -> None:
        """Until the other end goes."""
        while data := sock.recv(1 << 16):
            self.heard += data

    def next_message(self, sock: socket.socket) -> dict[str, Any]:
        decoder = wire.Decoder()
        while data := sock.recv(1 << 16):
            self.heard += data
            for message in decoder.feed(data):
                return message
        return {}


@contextmanager
def program(behave: Callable[[Program, socket.socket], None]) -> Iterator[Program]:
    running = Program(behave)
    listener = socket.create_server((HOST, 0))
    running.port = listener.getsockname()[1]

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            behave(running, sock)
        running.ended += 1

    def accept() -> None:
        while not running.is_over.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            running.connections += 1
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.is_over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
