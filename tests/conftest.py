"""Real engines for the tests: each test that takes `engine` runs on every one that this machine has."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

from container_kernels import engines

from .apple import forms
from .apple.stand_in.faults import StandIn

ENGINES = ("docker", "podman")
RELEASES = ("apple-0.12.3", "apple-1.0.0", "apple-1.1.0", "apple-1.2.2")  # of Apple's `container`, played by a stand-in
ABSENT_MAY_BE = "CONTAINER_KERNELS_TEST_ENGINES"  # names the engines to test, where not all are to be had


def pytest_configure() -> None:
    """What a shell runs in the background ignores interrupts, and so would all that the tests start, and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Through the stand-in, in each release, go those tests that are marked so: it would be too much for all. Where only Apple's own
    engine is tested, on a Mac, nothing is there to run underneath.

    One worker per engine: when Podman 4.3 starts and ends several containers at once, rules of its network are left behind that lead
    into the void. Tests of no engine go to whichever worker is free (`--dist loadgroup`).
    """
    too_much = [item for item in items if _engine_of(item) in RELEASES and not item.get_closest_marker("apple")]
    if tested_engines() == ("apple",):
        too_much = [
            item for item in items if _engine_of(item) in RELEASES or "stand_in" in getattr(item, "fixturenames", ())
        ]
    items[:] = [item for item in items if item not in too_much]
    config.hook.pytest_deselected(items=too_much)
    for item in items:
        for name in (*ENGINES, *RELEASES):
            if name in item.nodeid.partition("[")[2]:
                item.add_marker(pytest.mark.xdist_group(name))


def _engine_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("engine", "")) if callspec else ""


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

    def remove(self, *containers: str) -> None:
        """They are gone, and nobody had asked their kernels."""
        self.run("rm", "--force", *containers)

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


@dataclass(frozen=True)
class AppleUnderTest(EngineUnderTest):
    """Apple's engine: the stand-in, or on a Mac the real one."""

    def containers(self) -> list[str]:
        key, _, value = self.label.partition("=")
        listed = json.loads(self.run("list", "--all", "--format", "json"))
        configurations = [item["configuration"] for item in listed]
        return [each["id"] for each in configurations if each["labels"].get(key) == value]

    def remove(self, *containers: str) -> None:
        self.run("delete", "--force", *containers)

    def remove_image(self, image: str) -> None:
        self.run("image", "delete", image)

    def run(self, *arguments: str) -> str:
        return said_by_hand(*arguments)


def said_by_hand(*arguments: str) -> str:
    """What Apple's command prints; it is no call of ours, and not recorded."""
    environment = {name: value for name, value in os.environ.items() if name != "STAND_IN_RECORD"}
    done = subprocess.run(
        ["container", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=RELEASES[-1:])
def stand_in(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StandIn]:
    """The `container` that is found, also by this test's subprocesses; afterwards nothing is left of what it has made."""
    with _played(str(request.param), monkeypatch, tmp_path_factory) as stand_in:
        yield stand_in


@contextmanager
def _played(
    release: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StandIn]:
    underneath = next(name for name in tested_engines() if name != "apple")
    stand_in = StandIn(tmp_path_factory.mktemp("mac"), release.removeprefix("apple-"), underneath)
    monkeypatch.setenv("XDG_CACHE_HOME", str(stand_in.directory / "cache"))  # where processes take turns at booting
    for name, value in stand_in.environment().items():
        monkeypatch.setenv(name, value)
    engines.forget()
    try:
        yield stand_in
        left = eventually(
            # A build leaves its builder running, as the real one does.
            lambda: stand_in.containers().keys() - {"buildkit"},
            lambda names: not names,
            timeout=20,
        )
    finally:
        calls = stand_in.recorded()
        stand_in.destroy()
        engines.forget()
    assert not left, f"the test has left containers behind: {list(left)}"
    forms.check(calls)


@pytest.fixture(params=[*tested_engines(), *RELEASES])
def engine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineUnderTest]:
    """Kernels of this test, also of its subprocesses, run on this engine; afterwards none of its containers is left."""
    name = str(request.param)
    label = f"io.container-kernels.test={uuid.uuid4().hex}"
    if name in RELEASES:
        with _played(name, monkeypatch, tmp_path_factory):
            _our_kernels_run_on("apple", label, monkeypatch, tmp_path_factory)
            yield AppleUnderTest("apple", label)
        return
    command = "container" if name == "apple" else name
    assert shutil.which(command), f"{command} is not installed: `make setup` does it"
    _our_kernels_run_on(name, label, monkeypatch, tmp_path_factory)
    under_test = (AppleUnderTest if name == "apple" else EngineUnderTest)(name, label)
    yield under_test
    left = eventually(under_test.containers, lambda names: not names, timeout=20)
    for container in left:
        under_test.remove(container)
    assert not left, f"the test has left containers behind: {left}"


def _our_kernels_run_on(
    name: str, label: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE", name)
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE_ARGS", f"--label,{label}")
    # A ledger of this test's own, and a pool only where the test is about it.
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "0")
    engines.forget()


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
