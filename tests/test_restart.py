"""A restart replaces the kernel's process, and keeps its container; or not, where that is asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import EngineUnderTest, RunningKernel, eventually_async

pytestmark = pytest.mark.apple


def make_wheel(directory: Path) -> Path:
    """A small package, as a wheel."""
    wheel = directory / "tiny_package-1.0-py3-none-any.whl"
    info = "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_package.py", "answer = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"tiny_package.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return wheel


@pytest.mark.parametrize("user", ["auto", "12345:12345"])
async def test_what_pip_installed_survives(
    user: str, start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, notebook_directory: Path
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_USER", user)
    notebook_directory.chmod(0o755)
    kernel = await start_kernel()
    wheel = make_wheel(notebook_directory)
    await kernel.run(f"%pip install --no-index --no-deps {wheel}\nx = 1", timeout=90)
    await kernel.manager.restart_kernel()
    await kernel.client.wait_for_ready(timeout=30)
    assert await kernel.run("import tiny_package; print(tiny_package.answer, 'x' in globals())") == "42 False"


@pytest.mark.parametrize("now", [False, True])
async def test_the_container_ports_and_key_stay(now: bool, kernel: RunningKernel, engine: EngineUnderTest) -> None:
    before, container = kernel.manager.get_connection_info(), engine.the_container()
    for _ in range(2):
        await kernel.manager.restart_kernel(now=now)
        assert await kernel.run("print('here')") == "here"  # by the client that was made before
    assert kernel.manager.get_connection_info() == before
    assert engine.the_container() == container


async def test_a_fresh_restart_is_another_container(
    start_kernel: Callable[..., Any], engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_RESTART", "fresh")
    kernel = await start_kernel()
    before, container = kernel.manager.get_connection_info(), engine.the_container()
    await kernel.run("open('/tmp/left-behind', 'w').close()")
    await kernel.manager.restart_kernel()
    await kernel.reach_next_container(engine)
    assert await kernel.run("import os; print(os.path.exists('/tmp/left-behind'))") == "False"
    assert kernel.manager.get_connection_info() == before
    await eventually_async(engine.containers, lambda names: len(names) == 1)
    assert engine.the_container() != container


async def test_the_container_may_be_lost(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """Deleted behind our back: the kernel is dead, with a reason; a restart brings it back, at the same place."""
    before = kernel.manager.get_connection_info()
    engine.remove(engine.the_container())
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
    assert not await kernel.manager.is_alive()
    assert "is lost" in kernel.provisioner._container.reason
    await kernel.manager.restart_kernel(now=True)
    await kernel.reach_next_container(engine)
    assert await kernel.run("print('back')") == "back"
    assert kernel.manager.get_connection_info() == before


async def test_no_two_forks_draw_the_same(kernel: RunningKernel) -> None:
    draw = "import random, uuid, secrets; print(random.random(), uuid.uuid4(), secrets.token_hex())"
    first = await kernel.run(draw)
    await kernel.manager.restart_kernel(now=True)
    assert set(first.split()).isdisjoint((await kernel.run(draw)).split())
