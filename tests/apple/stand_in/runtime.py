"""One container's `container-runtime-linux`: boots it, forwards its ports, and sees it end.

    python -m tests.apple.stand_in.runtime VERSION ENGINE STATE ID

It outlives the command that has started it, and tells it by its standard output, in lines of JSON: `{"started": true, "log_from": …}` or
`{"error": [code, message]}`, then `{"exit": status}`, which nothing else ever keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from . import forwarding, under
from .errors import AppleError
from .world import Record, World

DRAINING = 3.0  # seconds that a command has for what was printed last
NO_VIRTUALIZATION = "Virtualization is not available on this hardware"


class Runtime:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.sockets: list[tuple[socket.socket, int]] = []  # where it listens, and for which port of the container
        self.address: str | None = None
        self.record: Record = {}

    def boot(self) -> bool:
        """The container runs and its ports are bound; nobody else boots meanwhile. False: it does not, and who asked knows why."""
        with self.world.lock():
            self.world.log_boot("begin", self.name)
            try:
                return self._boot()
            except AppleError as error:
                self._close()
                self.world.update(self.name, networks=[], runtime=None)
                tell({"error": [error.code, error.message]})
                return False
            except Exception:
                self._close()
                tell({"broken": traceback.format_exc()})
                raise
            finally:
                self.world.log_boot("end", self.name)

    def _boot(self) -> bool:
        self.world.boot_time()
        record = self.world.record(self.name)
        if record is None or self.world.is_destroyed():
            raise AppleError("notFound", f"container with ID {self.name} not found")
        if self.world.faults().get("virtualization") == "unavailable":
            raise AppleError("unsupported", NO_VIRTUALIZATION)
        if under.runs(self.world, record):  # which the service does not know of
            raise AppleError("invalidState", f"container {self.name} is not stopped")
        for mount in record["config"]["mounts"]:
            if mount["kind"] == "virtiofs" and not os.path.exists(mount["source"]):
                raise AppleError("invalidArgument", f"mount source path '{mount['source']}' does not exist")
        connected = record["config"]["network"] != "none"
        if connected:
            self.world.take_address()
            self.sockets = forwarding.bind(record["config"]["ports"])
        if forsaken():  # the machine would be there, but nobody asks it to start the process
            self._close()
            return False
        log_from = time.time() if record["made"] else None
        under.boot(self.world, record)
        self._started(record, connected, log_from)
        return True

    def _started(self, record: Record, connected: bool, log_from: float | None) -> None:
        found = under.attachment(self.world, record) if connected else None
        self.address = found["address"] if found else None
        self.record = record
        self.world.update(
            self.name, made=True, status="running", started=time.time(), runtime=os.getpid(), networks=[found] if found else [],
            log_from=log_from, ghost=False,
        )  # fmt: skip
        tell({"started": True, "log_from": log_from})

    async def watch(self) -> None:
        """Until the container has ended, and the service has taken notice."""
        servers = [await forwarding.serve(listener, self._target(port), self.world) for listener, port in self.sockets]
        status = await self._ended()
        for server in servers:
            server.close()
        self._close()
        await asyncio.to_thread(self._take_notice)
        tell({"exit": status})
        if self.record["remove"]:
            await asyncio.to_thread(drained)
            under.remove(self.world, self.record)

    def _target(self, port: int) -> tuple[str, int] | None:
        return (self.address, port) if self.address else None

    async def _ended(self) -> int:
        waiting = await asyncio.create_subprocess_exec(
            *under.wait(self.world, self.record), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        output, _ = await waiting.communicate()
        return int(output) if output.strip() else 255

    def _take_notice(self) -> None:
        """The end of a container waits for a boot, as all does that changes what the service knows."""
        with self.world.lock():
            record = self.world.record(self.name)
            if record is None or record["under"] != self.record["under"]:
                return  # it was deleted, and another may have its name
            if record["remove"]:
                self.world.forget(self.name)
            else:
                self.world.update(self.name, status="stopped", networks=[], runtime=None)

    def _close(self) -> None:
        for listener, _ in self.sockets:
            listener.close()
        self.sockets = []


def tell(what: dict[str, Any]) -> None:
    """To the command that asked, if it is still there."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def forsaken() -> bool:
    """Nobody reads our output any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def drained() -> None:
    """The command has what was printed, or has had time for it."""
    deadline = time.monotonic() + DRAINING
    while not forsaken() and time.monotonic() < deadline:
        time.sleep(0.02)


def main() -> None:
    version, engine, state, name = sys.argv[1:]
    world = World(Path(state), version, engine)
    mark = world.directory / "runtimes" / str(os.getpid())
    mark.touch()
    try:
        runtime = Runtime(world, name)
        if runtime.boot():
            asyncio.run(runtime.watch())
    finally:
        mark.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
