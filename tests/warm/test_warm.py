"""A kernel from the pool is like any other: what it can be told late, it was told."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from ..conftest import EngineUnderTest, RunningKernel, eventually_async
from .pools import PoolUnderTest, only_docker

Starter = Callable[..., Any]

WHAT_IT_KNOWS = """
import json, os, sys
import IPython
from ipykernel.connect import get_connection_info
shell = get_ipython()
print(json.dumps({
    "cwd": os.getcwd(), "dhist": [str(entry) for entry in _dh], "starting_dir": shell.starting_dir, "path": sys.path[0], "argv": sys.argv[1::2],
    "session_name": globals().get("__session__"), "variable": os.environ.get("MY_VARIABLE"), "pager": os.environ.get("PAGER"),
    "temporary": __import__("tempfile").gettempdir(), "zone": __import__("time").tzname[0],
    "count": shell.execution_count, "inputs": len(In), "outputs": len(Out), "history": shell.history_manager.session_number,
    "key": get_connection_info(unpack=True)["key"].decode(), "name": __name__, "user_names": sorted(set(shell.user_ns) - set(shell.user_ns_hidden)),
    "pgid": os.getpgid(0) == os.getpid(), "sigint": __import__("signal").getsignal(2).__name__,
}))
"""


async def knowledge(kernel: RunningKernel) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(await kernel.run(WHAT_IT_KNOWS))
    return known


@pytest.mark.apple
async def test_a_warm_kernel_knows_what_a_cold_one_knows(
    pool: PoolUnderTest, start_kernel: Starter, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = notebook_directory / "folder"
    folder.mkdir()
    monkeypatch.setenv("CONTAINER_KERNELS_MOUNTS", json.dumps([{"source": str(notebook_directory)}]))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    asked = {
        **os.environ,
        "MY_VARIABLE": "mine",
        "PAGER": "less",
        "TMPDIR": "/var/tmp",
        "JPY_SESSION_NAME": "notebook.ipynb",
    }
    known = []
    for _ in range(2):
        kernel = await start_kernel(cwd=str(folder), env=asked)
        known.append({**await knowledge(kernel), "warm": kernel.provisioner.is_warm})
        assert known[-1].pop("key") == kernel.manager.session.key.decode()
        await kernel.manager.shutdown_kernel(now=True)
        await pool.fill()
    cold, warm = known
    assert (cold.pop("warm"), warm.pop("warm")) == (False, True)
    assert warm == cold
    assert warm["cwd"] == warm["starting_dir"] == str(folder)
    assert (warm["variable"], warm["session_name"], warm["zone"]) == ("mine", "notebook.ipynb", "JST")


@pytest.mark.apple
async def test_each_kernel_has_a_container_of_its_own(
    warm: PoolUnderTest, start_kernel: Starter, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "2")
    kernel = await start_kernel()  # the only one that is warm yet
    await warm.fill()
    kernels = [kernel, *await asyncio.gather(start_kernel(), start_kernel(), start_kernel())]
    assert [kernel.provisioner.is_warm for kernel in kernels].count(True) == 3
    hosts = [await kernel.run("import socket; print(socket.gethostname())") for kernel in kernels]
    assert len(set(hosts)) == 4 == len(engine.containers())
    for kernel in kernels:
        await kernel.manager.shutdown_kernel(now=True)
    assert await eventually_async(engine.containers, lambda names: not names) == []
    assert warm.ledger.claims() == []


async def test_no_two_of_the_pool_draw_the_same(
    warm: PoolUnderTest, start_kernel: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "2")
    drawn = []
    for _ in range(2):
        kernel = await start_kernel()
        assert kernel.provisioner.is_warm
        drawn.append(await kernel.run("import random, secrets, uuid; print(random.random(), secrets.token_hex(), uuid.uuid1(), uuid.uuid4())"))  # fmt: skip
        await kernel.manager.restart_kernel(now=True)
        drawn.append(await kernel.run("import random, secrets, uuid; print(random.random(), secrets.token_hex(), uuid.uuid1(), uuid.uuid4())"))  # fmt: skip
        await warm.fill()
    columns = zip(*(line.split() for line in drawn), strict=True)
    assert all(len(set(column)) == 4 for column in columns)


@pytest.mark.apple
async def test_a_warm_kernel_restarts_dies_and_is_interrupted_like_any_other(
    warm: PoolUnderTest, start_kernel: Starter, engine: EngineUnderTest
) -> None:
    kernel = await start_kernel()
    assert kernel.provisioner.is_warm
    before, container = kernel.manager.get_connection_info(), engine.the_container()
    await kernel.run("x = 1; open('/tmp/left-behind', 'w').close()")
    running = asyncio.create_task(kernel.execute("import time; print('began', flush=True); time.sleep(60)"))
    await asyncio.sleep(0)
    while not running.done():
        await asyncio.wait([running], timeout=0.5)
        await kernel.manager.interrupt_kernel()
    assert (await running)[0]["ename"] == "KeyboardInterrupt"
    await kernel.manager.restart_kernel()
    assert await kernel.run("import os; print('x' in globals(), os.path.exists('/tmp/left-behind'))") == "False True"
    assert (kernel.manager.get_connection_info(), engine.the_container()) == (before, container)
    reply, _ = await kernel.execute("import os; os.kill(os.getpid(), 9)")
    assert "SIGKILL" in reply["evalue"]
    await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code == -9)
    assert not await kernel.manager.is_alive()
    await kernel.manager.restart_kernel(now=True)
    assert await kernel.run("print('back')") == "back"


# What the parked kernel cannot be told any more: the container serves all the same.
TOO_LATE: dict[str, dict[str, Any]] = {
    "extra_arguments": {"extra_arguments": ["--HistoryManager.enabled=False"]},
    "ipython_dir": {"env": {"IPYTHONDIR": "/tmp/elsewhere"}},
    "python_path": {"env": {"PYTHONPATH": "/tmp/elsewhere"}},
}


@only_docker
@pytest.mark.parametrize("late", TOO_LATE)
async def test_what_comes_too_late_for_a_parked_kernel_is_heeded(
    late: str, warm: PoolUnderTest, start_kernel: Starter, engine: EngineUnderTest
) -> None:
    (slot,) = warm.slots()
    assert slot.parked
    options = dict(TOO_LATE[late])
    if "env" in options:
        options["env"] = {**os.environ, **options["env"]}
    kernel = await start_kernel(**options)
    assert kernel.provisioner.is_warm
    assert engine.the_container() == slot.name
    seen = await kernel.run("shell = get_ipython(); print(shell.history_manager.enabled, shell.ipython_dir)")
    enabled, directory = seen.split()
    assert enabled == str(late != "extra_arguments")
    assert (directory == "/tmp/elsewhere") == (late == "ipython_dir")


@only_docker
async def test_ports_that_are_given_are_no_case_for_the_pool(warm: PoolUnderTest, notebook_directory: Path) -> None:
    from container_kernels.ports import Ports

    wanted = Ports.choose().kernel["shell_port"]
    manager = AsyncKernelManager(kernel_name="container-python", shell_port=wanted)
    await manager.start_kernel()
    try:
        assert manager.get_connection_info()["shell_port"] == wanted
        assert manager.provisioner is not None
        assert not manager.provisioner.is_warm  # type: ignore[attr-defined]
        assert len(warm.slots()) == 1
    finally:
        await manager.shutdown_kernel(now=True)


@only_docker
@pytest.mark.parametrize(
    ("name", "value"), [("MEMORY", "1g"), ("CPUS", "1"), ("PIDS", "300"), ("USER", "root"), ("PRELOAD", "json")]
)
async def test_a_kernel_of_other_settings_starts_cold(
    name: str, value: str, warm: PoolUnderTest, start_kernel: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "USER" and os.getuid() == 0:
        value = "1000:1000"
        os.chmod(Path.cwd(), 0o777)
    monkeypatch.setenv(f"CONTAINER_KERNELS_{name}", value)
    kernel = await start_kernel()
    assert not kernel.provisioner.is_warm
    assert len(warm.slots()) == 1
    monkeypatch.delenv(f"CONTAINER_KERNELS_{name}")
    assert (await start_kernel()).provisioner.is_warm


async def test_an_image_that_was_built_anew_makes_old_slots_unusable(
    warm: PoolUnderTest, start_kernel: Starter, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next look at the pool removes them, and makes one of the new image."""
    image = f"container-kernels-test/renewed-{os.getpid()}"
    engine.run("tag", "container-kernels/python", image)
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", image)
    try:
        first = await start_kernel()
        await first.manager.shutdown_kernel(now=True)
        before = next(slot for slot in await warm.fill() if slot.container["image"] == image)
        (tmp_path / "Containerfile").write_text(f"FROM {image}\nENV RENEWED=1\n")
        engine.run("build", "--tag", image, "--file", str(tmp_path / "Containerfile"), str(tmp_path))
        after = next(slot for slot in await warm.fill() if slot.container["image"] == image)
        assert after.name != before.name
        assert before.name not in engine.containers()
        kernel = await start_kernel()
        assert kernel.provisioner.is_warm
        assert await kernel.run("import os; print(os.environ['RENEWED'])") == "1"
        await kernel.manager.shutdown_kernel(now=True)
    finally:
        await warm.drain()
        await eventually_async(engine.containers, lambda names: not names)
        engine.remove_image(image)


async def test_a_directory_that_was_made_anew_is_another_one(
    warm: PoolUnderTest, start_kernel: Starter, notebook_directory: Path, engine: EngineUnderTest
) -> None:
    """A mount stays with the directory that it was made of: results would be written to nowhere."""
    (before,) = warm.slots()
    notebook_directory.rename(notebook_directory.with_name("moved"))
    notebook_directory.mkdir()
    os.chdir(notebook_directory)
    kernel = await start_kernel()
    assert not kernel.provisioner.is_warm
    await kernel.run("open('result', 'w').close()")
    assert (notebook_directory / "result").exists()
    assert before.name not in [slot.name for slot in await warm.fill()]
    assert before.name not in engine.containers()
    assert (await start_kernel()).provisioner.is_warm


async def test_a_pool_that_is_turned_off_is_given_up(
    warm: PoolUnderTest, start_kernel: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "0")
    kernel = await start_kernel()
    assert not kernel.provisioner.is_warm
    assert await warm.fill() == []


@pytest.mark.apple
async def test_a_slot_that_nobody_claims_ends_by_itself(
    warm: PoolUnderTest, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a keeper or a sweep, and without its ledger."""
    from container_kernels.pool import filling

    await warm.drain()
    monkeypatch.setattr(filling, "AFTER_EXPIRY", 3.0)
    monkeypatch.setattr(filling, "expiry", lambda now, *_: now)
    (wanted,) = warm.ledger.wanted()
    slot = await warm.filler._made(wanted, "sha256:0")
    assert slot.name in engine.containers()
    assert await eventually_async(engine.containers, lambda names: not names, timeout=20) == []


@only_docker
async def test_a_container_that_is_waiting_holds_no_more_than_it_says(
    warm: PoolUnderTest, engine: EngineUnderTest
) -> None:
    (slot,) = warm.slots()
    usages = {usage.name: usage.memory for usage in await warm.filler.engine.usage()}
    assert slot.memory == pytest.approx(usages[slot.name], rel=0.1)
