"""A kernel that another process takes over, by what `get_provisioner_info` gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from container_kernels.provisioner import ContainerProvisioner

from .conftest import RunningKernel, eventually_async


async def taken_over(kernel: RunningKernel) -> AsyncKernelManager:
    """A manager of another process, as if it had read a file."""
    info = json.loads(json.dumps(await kernel.provisioner.get_provisioner_info()))
    manager = AsyncKernelManager(kernel_name="container-python")
    manager.provisioner = provisioner = ContainerProvisioner(
        kernel_id=info["kernel_id"], kernel_spec=manager.kernel_spec, parent=manager
    )
    await provisioner.load_provisioner_info(info)
    manager.load_connection_info(provisioner.connection_info)
    return manager


async def test_it_lives_on(kernel: RunningKernel, notebook_directory: Path) -> None:
    (notebook_directory / "here.txt").write_text("x")
    await kernel.run("x = 42")
    manager = await taken_over(kernel)
    other = RunningKernel(manager, manager.client())
    other.client.start_channels()
    await other.client.wait_for_ready(timeout=20)
    try:
        assert await manager.is_alive()
        assert await other.run("print(x)") == "42"
        assert manager.resolve_path("here.txt") == str(notebook_directory / "here.txt")
    finally:
        other.client.stop_channels()
        await manager.shutdown_kernel(now=True)


async def test_one_that_has_ended_is_known_to_have(kernel: RunningKernel) -> None:
    await kernel.client.execute_interactive("import os; os._exit(3)", timeout=20, output_hook=lambda _: None)
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
    manager = await taken_over(kernel)
    provisioner: Any = manager.provisioner
    assert not await manager.is_alive()
    assert await provisioner.poll() is not None
    await provisioner.wait()
    assert not provisioner.has_process
    await provisioner.cleanup()
