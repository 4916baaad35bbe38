"""A published port: a listener on the host, and for each client a connection to the container's own address.

The host's side accepts whether or not anything listens in the container. There is no half-close: the end of one side ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Sequence
from typing import Any

from .errors import AppleError
from .world import World

CONNECTING = 10.0  # seconds that the container has to answer
RESET = struct.pack("ii", 1, 0)


def bind(published: Sequence[dict[str, Any]]) -> list[tuple[socket.socket, int]]:
    """Listeners on exactly the addresses and ports that were asked for, each with its port of the container."""
    bound: list[tuple[socket.socket, int]] = []
    try:
        for spec in published:
            for offset in range(spec["size"]):
                listener = _listen(spec, spec["host_port"] + offset)
                bound.append((listener, spec["container_port"] + offset))
    except AppleError:
        for listener, _ in bound:
            listener.close()
        raise
    return bound


def _listen(spec: dict[str, Any], port: int) -> socket.socket:
    if ":" in spec["host"]:
        raise AppleError("unsupported", "cannot configure IPv6 port forwarding for container with unknown IPv6 address")
    if port < 1024 and spec["host"] != "0.0.0.0":
        raise AppleError(
            "internalError",
            f"Permission denied while binding to host port {port}. Binding to ports below 1024 requires root privileges.",
        )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((spec["host"], port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:  # whose number is 48 on a Mac
            raise AppleError(
                "unknown",
                f"bind(descriptor:ptr:bytes:) failed: Address already in use (errno: 48) [{spec['host']}:{port}]",
            ) from None
        raise AppleError("unknown", f"bind failed: {error.strerror} [{spec['host']}:{port}]") from None
    return listener


async def serve(listener: socket.socket, target: tuple[str, int] | None, world: World) -> asyncio.Server:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # This side's privacy setting, or a container that has ended: accepted, and lost.
        if target is None or world.faults().get("ports") == "reset":
            _reset(writer)
            return
        with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.CancelledError):
            other_reader, other_writer = await asyncio.wait_for(asyncio.open_connection(*target), CONNECTING)
            await _until_one_ends(_copy(reader, other_writer), _copy(other_reader, writer))
            other_writer.close()
        writer.close()

    return await asyncio.start_server(forward, sock=listener)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def _until_one_ends(*directions: Any) -> None:
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
