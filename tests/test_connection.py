"""The five ZeroMQ channels: signed, encrypted, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

from .conftest import RunningKernel

SILENCE = 1000  # milliseconds in which an answer would have come: the right key is answered within tens of milliseconds


async def test_a_wrong_key_is_ignored(kernel: RunningKernel) -> None:
    stranger = kernel.manager.client(session=Session(key=b"not the key"))
    stranger.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=True)
    try:
        for channel in (stranger.shell_channel, stranger.control_channel):
            message = stranger.session.msg(
                "execute_request", {"code": "open('/tmp/hacked', 'w').close()", "silent": False}
            )
            channel.send(message)
        assert await kernel.run("import os; print(os.path.exists('/tmp/hacked'))") == "False"
        assert not await stranger.shell_channel.socket.poll(SILENCE)
    finally:
        stranger.stop_channels()
    assert await kernel.run("import os; print(os.path.exists('/tmp/hacked'))") == "False"


async def test_code_is_not_sent_in_plain_text(kernel: RunningKernel) -> None:
    """A client without the server's CurveZMQ key gets nowhere, even with the session's key."""
    info = kernel.manager.get_connection_info()
    assert {"curve_publickey", "curve_secretkey"} <= set(info)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.sndtimeo = SILENCE
        socket.connect(f"tcp://127.0.0.1:{info['shell_port']}")
        session = Session(key=info["key"])
        with contextlib.suppress(zmq.Again):  # refused before there is anybody to send to
            session.send(socket, "kernel_info_request")
        assert not await asyncio.to_thread(socket.poll, SILENCE)


async def test_the_connection_file_serves_other_clients(kernel: RunningKernel) -> None:
    from jupyter_client.asynchronous.client import AsyncKernelClient

    client = AsyncKernelClient(connection_file=kernel.manager.connection_file)
    client.load_connection_file()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=20)
        assert (await client.execute("1", reply=True, timeout=20))["content"]["status"] == "ok"
    finally:
        client.stop_channels()
    assert Path(kernel.manager.connection_file).stat().st_mode & 0o077 == 0
    assert json.loads(Path(kernel.manager.connection_file).read_text())["ip"] == "127.0.0.1"


async def test_the_key_is_not_in_the_containers_sight(kernel: RunningKernel, engine: Any) -> None:
    """What the engine shows of a container opens neither its kernel nor its supervisor."""
    inspected = engine.run("inspect", engine.the_container())
    assert kernel.manager.session.key.decode() not in inspected
    assert kernel.provisioner._container.persisted()["token"] not in inspected


async def test_ports_that_the_manager_names_are_used(
    start_kernel: Callable[..., Any], engine: Any, notebook_directory: Path
) -> None:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    manager = AsyncKernelManager(kernel_name="container-python", shell_port=port)
    await manager.start_kernel()
    try:
        assert manager.shell_port == port
    finally:
        await manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("policy", ["required", "disabled"])
async def test_encryption_policy(policy: str, engine: Any, notebook_directory: Path) -> None:
    """Encrypted whenever both sides can, whatever the manager asks at the least."""
    manager = AsyncKernelManager(kernel_name="container-python", transport_encryption=policy)
    await manager.start_kernel()
    try:
        assert manager.curve_publickey
    finally:
        await manager.shutdown_kernel(now=True)
