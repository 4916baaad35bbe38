"""What goes wrong with Apple's `container` ends in an error that says what to do, or in a kernel; and in no container that is left."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from container_kernels import engines, kernel_container
from container_kernels.cli import main
from container_kernels.engines import apple
from container_kernels.errors import (
    CommandTimeout,
    ContainerKernelError,
    EngineError,
    EngineUnavailable,
    ImageError,
    ServiceStopped,
    SpecError,
)
from container_kernels.pool.ledger import Ledger
from container_kernels.pool.refill import refill
from container_kernels.ports import Ports

from ..apple.stand_in.faults import StandIn
from ..conftest import RELEASES, eventually, eventually_async, said_by_hand

IMAGE = "container-kernels/python"

each_release = pytest.mark.parametrize("stand_in", RELEASES, indirect=True)

Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def on_apple(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notebook_directory: Path) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE", "apple")
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "0")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a kernel, and runs a cell in it, which prints; all are shut down afterwards."""
    managers = []

    async def start() -> str:
        manager = AsyncKernelManager(kernel_name="container-python")
        managers.append(manager)
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        printed: list[str] = []
        try:
            await client.wait_for_ready(timeout=60)
            await client.execute_interactive(
                "print('it runs')",
                timeout=30,
                output_hook=lambda message: printed.append(message["content"].get("text", "")),
            )
        finally:
            client.stop_channels()
        return "".join(printed).strip()

    yield start
    for manager in managers:
        if manager.has_kernel:
            await manager.shutdown_kernel(now=True)


@each_release
@pytest.mark.parametrize(
    ("fault", "error", "message", "hint"),
    [
        ({"service": "down"}, ServiceStopped, "service of `container` does not run", "container system start"),
        ({"kernel": "missing"}, EngineUnavailable, "no Linux kernel", "container system kernel set"),
        ({"virtualization": "unavailable"}, EngineUnavailable, "cannot run virtual machines", "another engine"),
        ({"addresses": "full"}, EngineError, "all addresses of its network", "container list"),
        ({"foreign": [IMAGE]}, ImageError, "is made for another processor", "Build or pull"),
        ({"crash_between_create_and_start": 1}, EngineError, "could not run a container", ""),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)  # fmt: skip
async def test_a_fault_is_told_and_over_when_it_is_mended(
    fault: dict[str, Any], error: type[ContainerKernelError], message: str, hint: str, stand_in: StandIn, start: Start
) -> None:
    stand_in.fault(**fault)
    with pytest.raises(error, match=message) as raised:
        await start()
    assert type(raised.value) is error
    assert hint in raised.value.hint
    assert await eventually_async(stand_in.containers, lambda left: not left) == {}
    stand_in.clear()
    assert await start() == "it runs"


@each_release
async def test_a_service_that_is_stopped_and_may_be_started(
    stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its settings do not become the service's, which writes down what begins as its own do."""
    monkeypatch.setenv("CONTAINER_KERNELS_AUTOSTART", "1")
    stand_in.fault(service="down")
    with caplog.at_level(logging.WARNING):
        assert await start() == "it runs"
    assert "Starting the service" in caplog.text


@each_release
async def test_too_little_memory(stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_MEMORY", "128m")
    with pytest.raises(SpecError, match="memory = 128 MiB is less") as raised:
        await start()
    assert "200m" in raised.value.hint
    assert not any(argv[0] == "run" for argv in stand_in.recorded())


@each_release
async def test_a_missing_image_is_not_fetched_from_somebody(
    stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself would ask a registry, where anybody may have put one of that name."""
    stand_in.registry("container-kernels/there-is-none", IMAGE)
    monkeypatch.setenv("CONTAINER_KERNELS_IMAGE", "container-kernels/there-is-none")
    with pytest.raises(ImageError, match="has no image") as raised:
        await start()
    assert "build there-is-none --engine apple" in raised.value.hint
    assert not any(argv[0] == "run" for argv in stand_in.recorded())


@each_release
async def test_a_port_that_is_taken_between_its_choice_and_its_use(
    stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is bound when the machine boots: the container is made anew, with other ports."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number, choose, chosen = listener.getsockname()[1], Ports.choose, []

        def unlucky(wanted: Any) -> Ports:
            chosen.append(choose(wanted))
            if len(chosen) > 1:
                return chosen[-1]
            return Ports({**chosen[0].kernel, "hb_port": number}, chosen[0].supervisor)

        monkeypatch.setattr("container_kernels.kernel_container.Ports.choose", unlucky)
        assert await start() == "it runs"
    assert len(chosen) == 2
    assert len(stand_in.containers()) == 1


@each_release
async def test_a_list_of_networks_that_comes_too_late(stand_in: StandIn, start: Start) -> None:
    stand_in.fault(network_list_timeout=2)
    assert await start() == "it runs"
    stand_in.fault(network_list_timeout=100)
    with pytest.raises(EngineError, match="could not run a container") as raised:
        await start()
    assert "networkList" in raised.value.detail


@each_release
async def test_published_ports_that_lead_nowhere(
    stand_in: StandIn, start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own address is used, and the setting is named, once."""
    monkeypatch.setattr(kernel_container._Direct, "advised", set())
    stand_in.fault(ports="reset")
    with caplog.at_level(logging.WARNING):
        assert await start() == "it runs"
        assert await start() == "it runs"
    assert [record.message.count("Local Network") for record in caplog.records] == [1]


async def test_a_restart_where_published_ports_lead_nowhere(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_container._Direct, "advised", set())
    # A slow log lets the given-up connection's thread end first: the container is not lost by that.
    monkeypatch.setattr(logging.Handler, "handle", lambda *_: time.sleep(0.005))
    stand_in.fault(ports="reset")
    manager = AsyncKernelManager(kernel_name="container-python")
    await manager.start_kernel()
    try:
        before = manager.get_connection_info()
        assert not str(before["ip"]).startswith("127.")
        assert manager.provisioner._container.is_usable  # type: ignore[union-attr]
        await manager.restart_kernel(now=True)
        assert manager.get_connection_info() == before
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        client.stop_channels()
    finally:
        await manager.shutdown_kernel(now=True)


@each_release
async def test_a_service_that_is_lost_meanwhile(stand_in: StandIn, start: Start) -> None:
    """The machine runs on, and is shown as stopped."""
    stand_in.fault(dies_in="run")
    with pytest.raises(EngineUnavailable, match="was lost meanwhile"):
        await start()
    assert (stand_in.containers(), stand_in.underneath()) == ({}, [])
    assert await start() == "it runs"


async def test_what_could_not_be_removed_is_removed_before_the_next_start(
    stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apple, "REMOVING", 0.5)
    stand_in.fault(crash_between_create_and_start=1, hang=["delete"])
    with pytest.raises(EngineError, match="could not run a container"):
        await start()
    (left,) = stand_in.containers()
    stand_in.clear()
    assert await start() == "it runs"
    assert left not in stand_in.containers()


@each_release
async def test_a_ghost(stand_in: StandIn) -> None:
    """Shown as stopped, and running: a stop does nothing, a deletion ends it."""
    engine = engines.ENGINES["apple"]
    said_by_hand("run", "-d", "--name", "ghost", "--label", "io.container-kernels=test", IMAGE, "sleep", "600")
    stand_in.fault(ghost=["ghost"])
    state = await engine.inspect("ghost")
    assert state is not None
    assert not state.running
    assert stand_in.running("ghost")
    await engine.remove("ghost")
    assert stand_in.containers() == {}
    assert stand_in.underneath() == []


@pytest.mark.parametrize("deaf", [False, True], ids=["minds", "does not mind"])
@pytest.mark.parametrize("verb", ["system status", "image inspect", "run"])
async def test_a_command_that_hangs(
    verb: str, deaf: bool, stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apple, "ASKING", 1.0)
    monkeypatch.setattr("container_kernels.command.ENDING", 0.2)
    monkeypatch.setenv("CONTAINER_KERNELS_STARTUP_TIMEOUT", "2")
    stand_in.fault(hang=[verb], deaf=[verb] if deaf else [])
    with pytest.raises((CommandTimeout, EngineUnavailable), match=r"did not end within|does not answer"):
        await start()
    stand_in.clear()
    assert await eventually_async(stand_in.containers, lambda left: not left) == {}
    monkeypatch.delenv("CONTAINER_KERNELS_STARTUP_TIMEOUT")
    assert await start() == "it runs"


async def test_a_run_that_hangs_when_the_machine_runs(
    stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("container_kernels.command.ENDING", 0.2)
    monkeypatch.setenv("CONTAINER_KERNELS_STARTUP_TIMEOUT", "3")
    stand_in.fault(hang_after=["run"])
    with pytest.raises(CommandTimeout):
        await start()
    assert stand_in.containers() == {}


async def test_a_removal_that_hangs(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apple, "REMOVING", 0.5)
    engine = engines.ENGINES["apple"]
    said_by_hand("run", "-d", "--name", "stays", IMAGE, "sleep", "600")
    stand_in.fault(hang=["delete"])
    with pytest.raises(CommandTimeout):
        await engine.remove("stays")
    stand_in.clear()
    monkeypatch.setattr(apple, "REMOVING", 60.0)
    await engine.remove("stays")
    assert stand_in.containers() == {}


@pytest.mark.parametrize("stand_in", RELEASES[:1], indirect=True)
async def test_a_release_that_loses_addresses_does_not_lose_ours(stand_in: StandIn, start: Start) -> None:
    """Until 1.0.0, a machine that is deleted while it runs keeps its address for ever."""
    stand_in.fault(pool=2)
    engine = engines.ENGINES["apple"]
    await engine.probe()
    for _ in range(4):
        said_by_hand("run", "-d", "--name", "mine", IMAGE, "sleep", "600")
        assert "mine" in stand_in.containers()
        await engine.remove("mine")


async def test_boots_take_turns_and_a_warm_start_does_not_wait_for_them(
    stand_in: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight at once, one of them warm."""
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "1")
    assert await start() == "it runs"
    refill.now()
    assert await eventually_async(lambda: Ledger.of_this_user().slots(), bool, timeout=60)
    booted = len(stand_in.log)
    monkeypatch.setenv("STAND_IN_BOOT", "2")

    async def answered() -> float:
        assert await start() == "it runs"
        return time.time()

    answers = sorted(await asyncio.gather(*(answered() for _ in range(8))))
    boots = sorted(stand_in.log[booted:], key=lambda boot: boot[1])
    assert len(boots) >= 7  # the pool's next may be among them
    assert all(end - begin >= 2 for _, begin, end in boots if end < math.inf)
    assert all(earlier[2] <= later[1] for earlier, later in itertools.pairwise(boots))
    # The warm one has answered before the first boot was over; the others come one by one.
    assert answers[0] < boots[0][2]
    assert answers[-1] - answers[1] >= 11


def test_stop_and_others_do_not_touch_what_is_not_ours(stand_in: StandIn) -> None:
    said_by_hand("run", "-d", "--name", "theirs", IMAGE, "sleep", "600")
    assert main(["gc", "--engine", "apple"]) == 0
    assert main(["ps", "--engine", "apple", "--no-usage"]) == 0
    assert list(stand_in.containers()) == ["theirs"]
    said_by_hand("delete", "--force", "theirs")
    forbidden = {"--all", "prune", "system stop", "kill"}
    for argv in stand_in.recorded():
        assert argv[0] == "list" or not forbidden.intersection([*argv, " ".join(argv[:2])]), argv
    assert eventually(stand_in.containers, lambda left: not left) == {}
