"""Modules that are imported before the kernel starts: there at once, and whatever must not be shared is each kernel's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import EngineUnderTest, RunningKernel

DATA = ["numpy", "pandas", "matplotlib.pyplot"]
PRELOADED = f"import sys; print([name for name in {DATA} if name in sys.modules])"

# What no two kernels may have in common.
DRAWN = """
import json, numpy, os, random, secrets, ssl, tempfile, uuid
print(json.dumps({
    "random": random.random(),
    "numpy.random": numpy.random.rand(),
    "numpy.random.default_rng": numpy.random.default_rng().random(),
    "os.urandom": os.urandom(8).hex(),
    "secrets": secrets.token_hex(8),
    "ssl": ssl.RAND_bytes(8).hex(),
    "uuid1": str(uuid.uuid1()),
    "uuid4": str(uuid.uuid4()),
    "tempfile": tempfile.mktemp(),
    "history": get_ipython().history_manager.session_number,
    "session": get_ipython().kernel.session.session,
}))
"""
MULTIPLICATION = """
import numpy, os
before = len(os.listdir("/proc/self/task"))
a = numpy.random.rand(300, 300)
b = a @ a
assert numpy.allclose(b[:2, :2], [[sum(a[i, k] * a[k, j] for k in range(300)) for j in range(2)] for i in range(2)])
print(len(os.listdir("/proc/self/task")) - before, len(os.sched_getaffinity(0)))
"""


async def restart(kernel: RunningKernel) -> None:
    await kernel.manager.restart_kernel(now=True)
    await kernel.client.wait_for_ready(timeout=30)


async def outputs(kernel: RunningKernel, code: str) -> list[str]:
    """The kinds of data that the cell shows."""
    shown: list[str] = []

    def keep(message: dict[str, Any]) -> None:
        shown.extend(message["content"].get("data", ()))

    reply = await kernel.client.execute_interactive(code, timeout=30, output_hook=keep, allow_stdin=False)
    assert reply["content"]["status"] == "ok", reply
    return shown


async def test_no_two_forks_share_what_is_drawn(start_kernel: Callable[..., Any]) -> None:
    kernel = await start_kernel("container-data")
    drawn = []
    for _ in range(3):
        assert await kernel.run(PRELOADED) == str(DATA)
        drawn.append(json.loads(await kernel.run(DRAWN)))
        await restart(kernel)
    for name in drawn[0]:
        assert len({each[name] for each in drawn}) == 3, name


async def test_a_plot_is_shown_by_the_first_cell(start_kernel: Callable[..., Any]) -> None:
    kernel = await start_kernel("container-data")
    for _ in range(2):
        shown = await outputs(kernel, "import matplotlib.pyplot as plt; plt.plot([1, 3, 2]);")
        assert "image/png" in shown
        await restart(kernel)


async def test_many_threads_multiply_after_a_fork(start_kernel: Callable[..., Any]) -> None:
    """The template's numpy has started OpenBLAS's threads, which no fork has; OpenBLAS makes them again."""
    kernel = await start_kernel("container-data")
    for _ in range(2):
        made, processors = map(int, (await kernel.run(MULTIPLICATION)).split())
        assert made or processors == 1
        await restart(kernel)


async def test_a_module_that_cannot_be_shared_is_left_out(
    start_kernel: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    notebook_directory: Path,
    engine: EngineUnderTest,
) -> None:
    (notebook_directory / "starts_a_thread.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=[600], daemon=True).start()"
    )
    (notebook_directory / "plain.py").touch()
    arguments = os.environ["CONTAINER_KERNELS_ENGINE_ARGS"]
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE_ARGS", f"{arguments},--env,PYTHONPATH={notebook_directory}")
    monkeypatch.setenv("CONTAINER_KERNELS_PRELOAD", "starts_a_thread,plain")
    kernel = await start_kernel()
    asked = "import sys; print([name for name in ('starts_a_thread', 'plain') if name in sys.modules])"
    assert await kernel.run(asked) == "['plain']"
    assert await kernel.run("import starts_a_thread; print('by itself')") == "by itself"
    log = await kernel.provisioner._container.engine.logs(engine.the_container(), tail=10_000)
    assert "preload: starts_a_thread is left out: it starts a thread when it is imported" in log
    assert log.count("left out") == 1
