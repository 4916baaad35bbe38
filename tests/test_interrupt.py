"""An interrupt reaches whatever the cell is doing, in both of Jupyter's interrupt modes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import RunningKernel, eventually_async

WORK = {
    "sleep": "import time; {mark}; time.sleep(60)",
    "loop": "{mark}\nwhile True: pass",
    "subprocess": "import subprocess; subprocess.run(['sh', '-c', 'echo begun; sleep 60'])",
    "shell": "!echo begun; sleep 60",
    "child": "import subprocess, time; child = subprocess.Popen(['sleep', '60']); {mark}; time.sleep(60)",
}
MARK = "print('begun', flush=True)"
# A signal between Python's last look for signals and the call that blocks interrupts neither, on a plain kernel as here: people press again.
ATTEMPTS = 3


async def interrupt_when_begun(kernel: RunningKernel, code: str) -> dict[str, Any]:
    begun = asyncio.Event()

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and "begun" in message["content"]["text"]:
            begun.set()

    running = asyncio.ensure_future(kernel.client.execute_interactive(code, timeout=20, output_hook=hear))
    await asyncio.wait_for(begun.wait(), 20)
    for _ in range(ATTEMPTS):
        await kernel.manager.interrupt_kernel()
        if (await asyncio.wait([running], timeout=4))[0]:
            break
    reply: dict[str, Any] = (await running)["content"]
    return reply


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("mode", ["message", "signal"])
async def test_interrupt(mode: str, name: str, start_kernel: Callable[..., Any]) -> None:
    kernel = await start_kernel()
    kernel.manager.kernel_spec.interrupt_mode = mode
    reply = await interrupt_when_begun(kernel, WORK[name].format(mark=MARK))
    if name != "shell":  # IPython prints ^C for that one, and may go on
        assert reply.get("ename") == "KeyboardInterrupt"
    if name == "child":
        assert await kernel.run("print(child.wait(timeout=10) != 0)") == "True"
    assert await kernel.run("print('alive')") == "alive"


async def test_interrupt_in_numpy(start_kernel: Callable[..., Any]) -> None:
    kernel = await start_kernel("container-data")
    work = f"import numpy; a = numpy.ones((500, 500)); {MARK}\nwhile True: a = a @ a * 0"
    assert (await interrupt_when_begun(kernel, work))["ename"] == "KeyboardInterrupt"


async def test_an_interrupt_of_a_dead_kernel_spares_the_next(kernel: RunningKernel) -> None:
    """Jupyter's autorestart interrupts first: a request by message would wait for the next kernel, and hit its first cell."""
    for _ in range(3):
        await kernel.execute("import os; os._exit(1)")
        await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
        await kernel.manager.restart_kernel(now=True)
        assert await kernel.run("import time; time.sleep(0.5); print('spared')") == "spared"


async def test_interrupt_while_idle_is_harmless(kernel: RunningKernel) -> None:
    await kernel.manager.interrupt_kernel()
    await kernel.provisioner.send_signal(2)
    assert await kernel.run("print('alive')") == "alive"
