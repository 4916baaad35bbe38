"""A kernel that dies says why: to the client whose cell was running, in the log, to `poll`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from .conftest import EngineUnderTest, RunningKernel, eventually_async

pytestmark = pytest.mark.apple

DEATHS = {
    "import os; os._exit(3)": (3, "The kernel exited with code 3."),
    "import os; os.kill(os.getpid(), 9)": (-9, "The kernel was killed by SIGKILL."),
    "import ctypes; ctypes.string_at(0)": (-11, "The kernel was killed by SIGSEGV."),
    "x = bytearray(1 << 30)": (-9, "The kernel ran out of memory: it was killed at the container's limit of 300 MiB."),
}


@pytest.mark.parametrize("code", DEATHS)
async def test_the_running_cell_is_told(
    code: str, start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_MEMORY", "300m")
    kernel = await start_kernel()
    status, reason = DEATHS[code]
    reply, _ = await kernel.execute(code)
    assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "KernelDied", reason)
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
    with caplog.at_level(logging.ERROR):
        assert await kernel.provisioner.poll() == status
        assert await kernel.provisioner.poll() == status
    assert caplog.text.count(reason) == 1
    # The container and its supervisor have survived.
    await kernel.manager.restart_kernel(now=True)
    assert await kernel.run("print('again')") == "again"


async def test_a_headless_run_raises_the_reason(
    engine: EngineUnderTest, notebook_directory: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_MEMORY", "300m")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = bytearray(1 << 30)")])
    with pytest.raises(CellExecutionError, match=r"out of memory.*300 MiB"):
        await NotebookClient(notebook, kernel_name="container-python", timeout=60).async_execute()
    assert "out of memory" in caplog.text


async def test_a_wanted_end_is_no_death(kernel: RunningKernel, caplog: pytest.LogCaptureFixture) -> None:
    await kernel.manager.restart_kernel()
    await kernel.manager.restart_kernel(now=True)
    await kernel.manager.shutdown_kernel()
    assert "died" not in caplog.text


async def test_idle_kernel_that_is_killed_dies_at_once(kernel: RunningKernel) -> None:
    """With no cell running there is nobody to tell, and nothing to wait for."""
    pid = await kernel.run("import os; print(os.getpid())")
    await kernel.run(
        f"import subprocess; subprocess.Popen(['sh', '-c', 'sleep 0.2; kill -9 {pid}'], start_new_session=True)"
    )
    assert await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None) == -9


async def test_a_death_leaves_no_file_behind(kernel: RunningKernel, notebook_directory: Path) -> None:
    """Podman's monitor writes one where it was started."""
    await kernel.execute("x = bytearray(4 << 30)")
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
    assert not list(notebook_directory.iterdir())
