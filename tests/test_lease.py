"""No orphan, whatever dies: a container whose host side has gone ends by itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from container_kernels import kernel_container
from container_kernels.engines.memory import MemoryEngine
from container_kernels.errors import EngineError
from container_kernels.ports import Ports

from .conftest import EngineUnderTest, RunningKernel, eventually, eventually_async

pytestmark = pytest.mark.apple

HOST = """
import asyncio, sys
from jupyter_client import AsyncKernelManager

async def main():
    manager = AsyncKernelManager(kernel_name="container-python")
    await manager.start_kernel()
    print("started", flush=True)
    if sys.argv[1] == "wait":
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["killed", "forgets to shut down"])
def test_the_host_dies(end: str, engine: EngineUnderTest, notebook_directory: Path) -> None:
    mode = "wait" if end == "killed" else "end"
    # Its connection file is nobody's to remove.
    environment = {**os.environ, "TMPDIR": str(notebook_directory)}
    host = subprocess.Popen([sys.executable, "-c", HOST, mode], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert host.stdout is not None
        assert host.stdout.readline().strip() == "started"
        assert engine.containers()
    finally:
        if end == "killed":
            host.kill()
        host.wait(timeout=30)
        host.communicate()
    assert not eventually(engine.containers, lambda names: not names, timeout=kernel_container.LEASE_GRACE + 10)


async def test_a_connection_that_breaks_comes_back(kernel: RunningKernel) -> None:
    """The supervisor's grace outlasts a hiccup of the port proxy."""
    control = kernel.provisioner._container._control
    broken = control._socket
    control._shut(broken)
    await eventually_async(lambda: control._socket, lambda sock: sock not in (None, broken))
    assert await kernel.manager.is_alive()
    await kernel.manager.restart_kernel(now=True)
    assert await kernel.run("print('alive')") == "alive"


async def test_a_container_without_a_kernel_ends(
    kernel: RunningKernel, engine: EngineUnderTest, monkeypatch: Any
) -> None:
    """`jupyter console` never says goodbye: it only ends the kernel, and then itself."""
    await kernel.run("import os, threading; threading.Timer(0.2, lambda: os._exit(0)).start()")
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
    assert engine.containers()  # a restart may follow
    kernel.provisioner._container._control.close()  # as the end of the client does
    assert not await eventually_async(
        engine.containers, lambda names: not names, timeout=kernel_container.LEASE_GRACE + 10
    )


async def test_a_lost_connection_is_not_a_lost_container(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """The container may still run: it is removed, and does not wait for its lease to end."""
    control = kernel.provisioner._container._control
    control._leaving.set()  # as after nonsense from the supervisor
    control._shut(control._socket)
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
    assert "is lost" in kernel.provisioner._container.reason
    await kernel.manager.shutdown_kernel(now=True)
    assert not engine.containers()


async def test_a_removal_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is always a worse error to tell: why the container is to be removed."""
    engine = MemoryEngine()
    engine.fail("remove", EngineError("the disk is on fire"))
    ports = Ports.choose()
    log = logging.getLogger("test")
    container = kernel_container.KernelContainer(engine, "container-kernels-x", "an/image", ports, "token", log)
    await container.discard()
    assert "the disk is on fire" in caplog.text
