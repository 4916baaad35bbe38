"""Real engines for the tests: each test that takes `engine` runs on every one that this machine has."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

from container_kernels import engines

ENGINES = ("docker", "podman")
ABSENT_MAY_BE = "CONTAINER_KERNELS_TEST_ENGINES"  # names the engines to test, where not all are to be had


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker per engine: when Podman 4.3 starts and ends several containers at once, rules of its network are left behind that
    lead into the void. Tests of no engine go to whichever worker is free (`--dist loadgroup`)."""
    for item in items:
        for name in ENGINES:
            if name in item.nodeid.partition("[")[2]:
                item.add_marker(pytest.mark.xdist_group(name))


def tested_engines() -> tuple[str, ...]:
    """All of them, unless the environment names fewer: an engine that is missing fails its tests, it does not skip them."""
    return tuple(os.environ.get(ABSENT_MAY_BE, " ".join(ENGINES)).split())


@dataclass(frozen=True)
class EngineUnderTest:
    """One engine, and a label that every container of this test bears."""

    name: str
    label: str

    def containers(self) -> list[str]:
        """Names of this test's containers, running or not."""
        listed = subprocess.run(
            [self.name, "ps", "--all", "--format", "{{.Names}}", "--filter", f"label={self.label}"],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return listed.stdout.split()

    def the_container(self) -> str:
        (name,) = self.containers()
        return name

    def remove_image(self, image: str) -> None:
        """Podman refuses for a moment, while it still takes leave of a container of the image."""
        argv = [self.name, "rmi", "--force", image]
        done = eventually(
            lambda: subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False),
            lambda done: done.returncode == 0,
        )
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> str:
        """What the engine's command prints."""
        done = subprocess.run([self.name, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=tested_engines())
def engine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineUnderTest]:
    """Kernels of this test, also of its subprocesses, run on this engine; afterwards none of its containers is left."""
    name = str(request.param)
    assert shutil.which(name), f"{name} is not installed: `make setup` does it"
    label = f"io.container-kernels.test={uuid.uuid4().hex}"
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE", name)
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE_ARGS", f"--label,{label}")
    # A ledger of this test's own, and a pool only where the test is about it.
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "0")
    engines.forget()
    under_test = EngineUnderTest(name, label)
    yield under_test
    left = eventually(under_test.containers, lambda names: not names, timeout=20)
    for container in left:
        subprocess.run([name, "rm", "--force", container], check=False, capture_output=True, timeout=60)
    assert not left, f"the test has left containers behind: {left}"


def eventually(look: Callable[[], Any], good: Callable[[Any], bool], *, timeout: float = 10) -> Any:
    """What `look` sees once it is `good`, or at the end of `timeout` seconds, whatever it is then."""
    deadline = time.monotonic() + timeout
    pause = 0.02
    while True:
        seen = look()
        if good(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


async def eventually_async(look: Callable[[], Any], good: Callable[[Any], bool], *, timeout: float = 10) -> Any:
    return await asyncio.to_thread(eventually, look, good, timeout=timeout)


@pytest.fixture
def notebook_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of this test's own, which is the process's."""
    directory = tmp_path / "notebooks"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


class RunningKernel:
    """A kernel manager and a client of it, for tests that talk to one kernel."""

    def __init__(self, manager: AsyncKernelManager, client: Any) -> None:
        self.manager = manager
        self.client = client

    @property
    def provisioner(self) -> Any:
        return self.manager.provisioner

    async def reach_next_container(self, engine: EngineUnderTest) -> None:
        """The client of before reaches the kernel in another container, at the same ports.

        A rootful Podman forwards by address: who tries while a container is removed is stuck in its SYN for a minute or two. Who
        connects anew is not.
        """
        if engine.name == "podman":
            self.client.stop_channels()
            self.client = self.manager.client(session=Session(key=self.manager.session.key))
            self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)

    async def run(self, code: str, *, timeout: float = 30) -> str:
        """What the cell prints; its error, as an exception."""
        reply, printed = await self.execute(code, timeout=timeout)
        assert reply["status"] == "ok", reply
        return printed

    async def execute(self, code: str, *, timeout: float = 30) -> tuple[dict[str, Any], str]:
        printed: list[str] = []

        def keep(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = await self.client.execute_interactive(code, timeout=timeout, output_hook=keep, allow_stdin=False)
        return reply["content"], "".join(printed).strip()


@pytest.fixture
async def start_kernel(engine: EngineUnderTest, notebook_directory: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts kernels of `container-python`, which are shut down afterwards."""
    running: list[RunningKernel] = []

    async def start(kernel_name: str = "container-python", **kwargs: Any) -> RunningKernel:
        manager = AsyncKernelManager(kernel_name=kernel_name)
        await manager.start_kernel(**kwargs)
        # A session of its own: the manager's control requests count in the same numbers as a client that shares its session.
        client = manager.client(session=Session(key=manager.session.key))
        client.start_channels()
        kernel = RunningKernel(manager, client)
        running.append(kernel)
        await client.wait_for_ready(timeout=60)
        return kernel

    yield start
    for kernel in running:
        kernel.client.stop_channels()
        if kernel.manager.has_kernel:
            await kernel.manager.shutdown_kernel(now=True)
        else:
            await kernel.manager.cleanup_resources()


@pytest.fixture
async def kernel(start_kernel: Callable[..., Any]) -> RunningKernel:
    started: RunningKernel = await start_kernel()
    return started
