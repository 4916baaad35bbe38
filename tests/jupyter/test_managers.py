"""What a program may do with a kernel manager, and what each rule of the provisioner's contract promises."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq
import zmq.asyncio
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.session import Session
from jupyter_core.utils import ensure_event_loop

from container_kernels import command
from container_kernels.errors import GuestError
from container_kernels.kernel_container import KernelContainer
from container_kernels.provisioner import ContainerProvisioner

from ..conftest import EngineUnderTest, RunningKernel, eventually_async
from .conftest import none_left

Value = TypeVar("Value")


def in_a_thread(work: Callable[[], Value]) -> Value:
    """What `work` gives in a new thread, with an event loop of its own."""
    given: list[Value] = []

    def live() -> None:
        try:
            given.append(work())
        finally:
            ensure_event_loop().close()  # jupyter_core made it for this thread, and leaves it open

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    (value,) = given
    return value


def end(client: Any) -> None:
    """It is closed, with the ZeroMQ context that it made."""
    client.stop_channels()
    client.context.destroy(linger=0)


async def none_left_async(engine: EngineUnderTest) -> bool:
    return await asyncio.to_thread(none_left, engine)


# -- Event loops and threads


def test_calls_from_several_event_loops(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """One kernel's life in six threads, with an event loop each."""
    manager = KernelManager(kernel_name="container-python")
    in_a_thread(manager.start_kernel)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        assert in_a_thread(manager.is_alive)
        in_a_thread(manager.interrupt_kernel)
        in_a_thread(lambda: manager.signal_kernel(signal.SIGCONT))
        in_a_thread(manager.restart_kernel)
        assert client.execute("1 + 1", reply=True, timeout=30)["content"]["status"] == "ok"
        in_a_thread(lambda: manager.restart_kernel(now=True))
        assert manager.is_alive()
    finally:
        end(client)
        in_a_thread(manager.shutdown_kernel)
    assert not in_a_thread(manager.is_alive)
    assert none_left(engine)


async def test_the_blocking_manager_in_a_loop_that_runs(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """It does its work in a thread beside, with a loop of its own."""
    manager = KernelManager(kernel_name="container-python")
    manager.start_kernel()
    assert manager.is_alive()
    in_a_thread(manager.restart_kernel)
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()
    assert await none_left_async(engine)


# -- Starting


class Moments:
    """Sets an event at each of the steps of a start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = {name: asyncio.Event() for name in MOMENTS}
        run, start = command.run, KernelContainer.start

        async def run_and_tell(argv: Any, **options: Any) -> command.Output:
            step = argv[1] == "run"
            if step:
                asyncio.get_running_loop().call_later(0.02, self.reached["the engine is at work"].set)
            output = await run(argv, **options)
            if step:
                self.reached["the container runs"].set()
            return output

        async def start_and_tell(container: KernelContainer, *arguments: Any) -> dict[str, Any]:
            self.reached["the supervisor has greeted"].set()
            asyncio.get_running_loop().call_soon(self.reached["the kernel is asked for"].set)
            return await start(container, *arguments)

        self.reached["at once"].set()
        monkeypatch.setattr(command, "run", run_and_tell)
        monkeypatch.setattr(KernelContainer, "start", start_and_tell)


MOMENTS = (
    "at once",
    "the engine is at work",
    "the container runs",
    "the supervisor has greeted",
    "the kernel is asked for",
)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_cancelled_start_leaves_nothing(
    moment: str, engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments(monkeypatch)
    manager = AsyncKernelManager(kernel_name="container-python")
    starting = asyncio.ensure_future(manager.start_kernel())
    await asyncio.wait_for(moments.reached[moment].wait(), 60)
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not manager.has_kernel
    assert await none_left_async(engine)


async def test_a_cancelled_restart_leaves_nothing(
    kernel: RunningKernel, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments(monkeypatch)
    restarting = asyncio.ensure_future(kernel.manager.restart_kernel(now=True))
    await asyncio.wait_for(moments.reached["the kernel is asked for"].wait(), 60)
    restarting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restarting
    assert not kernel.manager.has_kernel
    assert await none_left_async(engine)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"memory": "lots"}, "'lots'"),
        ({"image": "container-kernels/no-such-image"}, "container-kernels/no-such-image"),
        ({"argv": ["sh", "-c", "exit 3"]}, "exited with code 3"),
    ],
)
async def test_a_failed_start_leaves_nothing(
    config: dict[str, Any],
    words: str,
    engine: EngineUnderTest,
    notebook_directory: Path,
    write_kernelspec: Callable[..., str],
) -> None:
    manager = AsyncKernelManager(kernel_name=write_kernelspec("failing", config))
    with pytest.raises(Exception, match=words):
        await manager.start_kernel()
    assert not manager.has_kernel
    assert await none_left_async(engine)


async def test_a_failed_restart_leaves_nothing(
    kernel: RunningKernel, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that has gone wrong, or a directory that has gone, in the middle of a kernel's life."""
    monkeypatch.setenv("CONTAINER_KERNELS_MEMORY", "lots")
    with pytest.raises(Exception, match="'lots'"):
        await kernel.manager.restart_kernel()
    assert not kernel.manager.has_kernel
    assert await none_left_async(engine)


@pytest.mark.parametrize("kernel_id", ["we ird;$(x)", "../../x", "x" * 5000, "two\nlines", "", "ü,=:'\""])
async def test_a_hostile_kernel_id(kernel_id: str, engine: EngineUnderTest, notebook_directory: Path) -> None:
    manager = AsyncKernelManager(kernel_name="container-python", kernel_id=kernel_id or None)
    await manager.start_kernel(**({} if kernel_id else {"kernel_id": "--rm -v /:/host"}))
    try:
        assert await manager.is_alive()
        (labels,) = [json.loads(engine.run("inspect", engine.the_container()))[0]["Config"]["Labels"]]
        assert kernel_id not in labels.values()
        assert engine.the_container().removeprefix("container-kernels-").isalnum()
    finally:
        await manager.shutdown_kernel(now=True)
    assert await none_left_async(engine)


async def test_arguments_that_mean_nothing_here(start_kernel: Callable[..., Any], notebook_directory: Path) -> None:
    kernel = await start_kernel(
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=None, independent=True, shell=False, anything=object()
    )
    assert await kernel.run("import os; print(os.getcwd())") == str(notebook_directory)


@pytest.mark.parametrize("kind", ["path", "relative", "moved"])
async def test_a_working_directory_of_any_kind(
    kind: str, start_kernel: Callable[..., Any], notebook_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Path, one that is relative to the process's at that moment, and none: the process's."""
    wanted = notebook_directory / "sub"
    wanted.mkdir()
    if kind == "moved":
        monkeypatch.chdir(wanted)
    cwd = {"path": wanted, "relative": "sub", "moved": None}[kind]
    kernel = await start_kernel(extra_arguments=["--HistoryManager.hist_file=:memory:"], cwd=cwd)
    monkeypatch.chdir("/")
    assert await kernel.run("import os; print(os.getcwd())") == str(wanted)
    assert await kernel.run("print(get_ipython().history_manager.hist_file)") == ":memory:"


async def test_a_working_directory_that_is_missing(engine: EngineUnderTest, notebook_directory: Path) -> None:
    manager = AsyncKernelManager(kernel_name="container-python")
    with pytest.raises(Exception, match="missing does not exist"):
        await manager.start_kernel(cwd=str(notebook_directory / "missing"))
    assert engine.containers() == []


async def test_kernel_json_and_the_environment_count_everywhere(
    start_kernel: Callable[..., Any], write_kernelspec: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no application reads configuration files; and the kernelspec's own `env` is filled in as ever."""
    monkeypatch.setenv("SOME_NAME", "the host's")
    config = {"env": {"SET": "by kernel.json"}, "pids": 100}
    name = write_kernelspec("configured", config, env={"FILLED": "${SOME_NAME} value"})
    monkeypatch.setenv("CONTAINER_KERNELS_MEMORY", "300m")
    kernel = await start_kernel(name)
    seen = "import os; print(os.environ['SET'], os.environ['FILLED'], 'SOME_NAME' in os.environ)"
    assert await kernel.run(seen) == "by kernel.json the host's value False"
    limits = "from pathlib import Path\nfor name in ('memory.max', 'memory/memory.limit_in_bytes', 'pids.max', 'pids/pids.max'):\n"
    limits += " path = Path('/sys/fs/cgroup', name)\n if path.exists(): print(path.read_text().strip())\n"
    assert (await kernel.run(limits)).split() == [str(300 << 20), "100"]


async def test_it_is_alive_from_the_end_of_the_launch_on(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """Who looks earlier would connect to what is not there: nothing is awaited between the two. Also in a restart."""
    manager = AsyncKernelManager(kernel_name="container-python")
    seen: list[bool] = []
    launch = ContainerProvisioner.launch_kernel

    async def launch_and_look(provisioner: ContainerProvisioner, *arguments: Any, **options: Any) -> Any:
        launching = asyncio.ensure_future(launch(provisioner, *arguments, **options))
        while not launching.done():
            seen.append(provisioner.has_process or await provisioner.poll() is None)
            await asyncio.sleep(0)
        return launching.result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContainerProvisioner, "launch_kernel", launch_and_look)
        await manager.start_kernel()
        assert await manager.is_alive()
        await manager.restart_kernel(now=True)
        assert await manager.is_alive()
    await manager.shutdown_kernel(now=True)
    assert len(seen) > 2
    assert not any(seen)


async def test_the_connection_is_complete(kernel: RunningKernel) -> None:
    """All that the manager compares, of the types that it compares; encrypted."""
    info = kernel.provisioner.connection_info
    ports = {"shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"}
    assert set(info) == ports | {"ip", "transport", "signature_scheme", "key", "curve_publickey", "curve_secretkey"}
    assert {type(info[port]) for port in ports} == {int}
    assert type(info["key"]) is bytes
    assert {type(info["curve_publickey"]), type(info["curve_secretkey"])} == {str}
    written = json.loads(Path(kernel.manager.connection_file).read_text())
    assert {name: written[name] for name in ports} == {name: info[name] for name in ports}


async def test_the_kernels_place_in_its_container(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """PID 1 is not the kernel, which leads a session; it listens on all interfaces, and has no notes to make on its parent."""
    assert (
        await kernel.run("import os; print(os.getpid() != 1, os.getsid(0) == os.getpid() == os.getpgid(0))")
        == "True True"
    )
    listening = "rows = [row.split() for row in open('/proc/net/tcp').readlines()[1:]]\n"
    listening += "print(sorted(int(row[1][9:], 16) for row in rows if row[3] == '0A' and row[1].startswith('0' * 8)))"
    assert json.loads(await kernel.run(listening)) == [61801, 61802, 61803, 61804, 61805, 61806]
    log = engine.run("logs", engine.the_container())
    assert "NOTE" not in log
    assert "Debugger warning" not in log


# -- Encryption


async def test_encryption_that_is_required(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """It is had, through a restart too; who has the key, and no keys for the encryption, is not answered."""
    manager = AsyncKernelManager(kernel_name="container-python", transport_encryption="required")
    await manager.start_kernel()
    plain = AsyncKernelClient()
    client = manager.client(session=Session(key=manager.session.key))
    try:
        before = manager.get_connection_info()
        assert len(before["curve_publickey"]) == len(before["curve_secretkey"]) == 40
        await manager.restart_kernel()
        assert manager.get_connection_info() == before
        client.start_channels()
        await client.wait_for_ready(timeout=30)

        without: Any = {name: value for name, value in before.items() if not name.startswith("curve")}
        plain.load_connection_info(without)
        plain.start_channels()
        asked = plain.kernel_info()
        await client.execute("1 + 1", reply=True, timeout=30)  # a time in which it would have been answered
        assert asked
        assert not await plain.shell_channel.msg_ready()
    finally:
        end(plain)
        end(client)
        await manager.shutdown_kernel(now=True)
    assert await none_left_async(engine)


async def test_encryption_that_cannot_be_had(
    engine: EngineUnderTest, notebook_directory: Path, write_kernelspec: Callable[..., str]
) -> None:
    """A kernel of another kind, which does not encrypt as far as we know, is refused, not started in plain text."""
    argv = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager = AsyncKernelManager(kernel_name=write_kernelspec("other", {"argv": argv}), transport_encryption="required")
    with pytest.raises(Exception, match="transport_encryption is 'required'"):
        await manager.start_kernel()
    assert await none_left_async(engine)


# -- Restarting


async def test_a_restart_before_it_was_ready(engine: EngineUnderTest, notebook_directory: Path) -> None:
    manager = AsyncKernelManager(kernel_name="container-python")
    await manager.start_kernel()
    for now in (True, False, True):
        await manager.restart_kernel(now=now)
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
    finally:
        end(client)
        await manager.shutdown_kernel()
    assert await none_left_async(engine)


@pytest.mark.parametrize("lost", [False, True])
async def test_all_clients_hear_the_next_kernel(lost: bool, kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """Not only the first that comes back: a reply, and what is printed, wait for all of them. Ports and keys stay, also where
    the container was lost."""
    others = [AsyncKernelClient() for _ in range(3)]
    before = kernel.manager.get_connection_info()
    try:
        for other in others:
            other.load_connection_info(before)
            other.start_channels()
            await other.wait_for_ready(timeout=30)
        for other in tuple(others):
            if lost:
                engine.run("rm", "--force", engine.the_container())
                await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None)
            await kernel.manager.restart_kernel(now=True)
            if lost and engine.name == "podman":
                # A rootful Podman forwards by address: who reconnects to a container that is being removed is stuck in its SYN for
                # long. Who connects anew is not.
                other = AsyncKernelClient()
                others.append(other)
                other.load_connection_info(before)
                other.start_channels()
                await other.wait_for_ready(timeout=30)
            assert await heard(RunningKernel(kernel.manager, other), attempts=4 if lost else 1) == "heard"
    finally:
        for other in others:
            end(other)
    assert kernel.manager.get_connection_info() == before


async def heard(kernel: RunningKernel, *, attempts: int) -> str:
    """A port's proxy that is taken down may leave a connection half open; ZeroMQ gives it up when its handshake's 30 s are over."""
    for _ in range(attempts - 1):
        with contextlib.suppress(TimeoutError):
            return await kernel.run("print('heard')", timeout=15)
    return await kernel.run("print('heard')")


async def test_a_second_life(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """Shut down, and started again by the same manager."""
    context = zmq.asyncio.Context()
    manager = AsyncKernelManager(kernel_name="container-python", context=context)
    try:
        for _ in range(2):
            await manager.start_kernel()
            assert await manager.is_alive()
            await manager.shutdown_kernel(now=True)
            assert not manager.has_kernel
            assert await none_left_async(engine)
    finally:
        context.term()


async def test_a_second_life_that_fails_can_be_cleaned_up(engine: EngineUnderTest, notebook_directory: Path) -> None:
    """A manager that made its ZeroMQ context itself has ended it: its start fails when the kernel runs already."""
    manager = AsyncKernelManager(kernel_name="container-python")
    await manager.start_kernel()
    await manager.shutdown_kernel(now=True)
    with pytest.raises(zmq.ZMQError):
        await manager.start_kernel()
    await manager.cleanup_resources()
    assert await none_left_async(engine)


# -- Ending


@pytest.mark.parametrize("now", [False, True])
async def test_an_end_and_what_comes_after(now: bool, kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """Cleaned up twice, as nbclient does; and every question and wish afterwards is answered in peace."""
    provisioner = kernel.provisioner
    await kernel.manager.shutdown_kernel(now=now)
    assert not provisioner.has_process
    for _ in range(2):
        await kernel.manager.cleanup_resources()
    await wishes(provisioner)
    assert await none_left_async(engine)


async def test_a_container_that_is_gone(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """Wishes to what does not exist are no errors, known to be gone or not yet; `wait` ends the kernel's life."""
    provisioner = kernel.provisioner
    lost: concurrent.futures.Future[Any] = concurrent.futures.Future()
    lost.set_exception(GuestError("The container does not answer any more."))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provisioner._container._control, "request", lambda *_, **__: lost)
        await provisioner.send_signal(signal.SIGINT)
        await provisioner.terminate()
        await provisioner.kill()
        assert await provisioner.poll() is None
    engine.run("rm", "--force", engine.the_container())
    assert (
        await eventually_async(lambda: provisioner._container.poll(), lambda code: code is not None) == -signal.SIGKILL
    )
    assert provisioner.has_process
    await wishes(provisioner)
    await provisioner.wait()
    assert not provisioner.has_process
    await kernel.manager.shutdown_kernel()


async def wishes(provisioner: ContainerProvisioner) -> None:
    await provisioner.send_signal(signal.SIGINT)
    await provisioner.shutdown_requested()
    await provisioner.terminate()
    for restart in (False, True):
        await provisioner.kill(restart=restart)
    assert await provisioner.poll() is not None
    await provisioner.get_provisioner_info()


async def test_what_a_restart_keeps(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """`restart` tells the truth in `cleanup` alone: a kill is of the kernel, whatever it says, and the container stays."""
    container, provisioner = engine.the_container(), kernel.provisioner
    await provisioner.kill(restart=False)
    assert await provisioner.poll() == -signal.SIGKILL  # known at once
    await provisioner.wait()
    await provisioner.cleanup(restart=True)
    assert engine.run("exec", container, "echo", "it runs").strip() == "it runs"
    for _ in range(2):
        await provisioner.cleanup(restart=False)
    assert await none_left_async(engine)


async def test_to_ask_costs_nothing(
    kernel: RunningKernel, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`poll` is asked ten times a second: it runs no command, says nothing to the container, and does not raise when that is stuck."""

    async def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("poll has asked the engine")

    engine.run("pause", engine.the_container())
    try:
        with monkeypatch.context() as patch:
            patch.setattr(command, "run", forbidden)
            patch.setattr(kernel.provisioner._container._control, "request", forbidden)
            for _ in range(100):
                assert await kernel.provisioner.poll() is None
    finally:
        engine.run("unpause", engine.the_container())


async def test_a_kernel_that_ends_by_itself(kernel: RunningKernel) -> None:
    """As asked by a client's own shutdown_request, which is all that a console sends."""
    kernel.client.shutdown()
    assert await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None) == 0


# -- Questions


async def test_paths_are_the_hosts(kernel: RunningKernel, notebook_directory: Path) -> None:
    (notebook_directory / "here.txt").write_text("x")
    resolve = kernel.manager.resolve_path
    assert resolve("here.txt") == resolve(f"{notebook_directory}/./here.txt") == str(notebook_directory / "here.txt")
    for path in ("missing.txt", "/etc/passwd", "../../../../../etc/passwd", "~/x", ""):
        assert resolve(path) in (None, str(notebook_directory))


TAKES_OVER = """
import asyncio, json, sys
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

async def main():
    info = json.load(sys.stdin)
    manager = AsyncKernelManager(kernel_name="container-python", kernel_id=info["kernel_id"])
    factory = KernelProvisionerFactory.instance(parent=manager.parent)
    manager.provisioner = factory.create_provisioner_instance(manager.kernel_id, manager.kernel_spec, parent=manager)
    await manager.provisioner.load_provisioner_info(info)
    connection = dict(info["connection_info"])
    manager.load_connection_info(connection)
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=30)
    assert await manager.is_alive()
    await client.execute_interactive("print('kept:', x)", timeout=30)
    client.stop_channels()
    await manager.shutdown_kernel()

asyncio.run(main())
"""


async def test_another_process_takes_the_kernel_over(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    """With what `get_provisioner_info` tells, which is JSON; it can end the kernel as its own."""
    await kernel.run("x = 'of the first process'")
    told = await kernel.provisioner.get_provisioner_info()
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        TAKES_OVER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ},
    )
    output, _ = await asyncio.wait_for(other.communicate(json.dumps(told).encode()), 60)
    assert other.returncode == 0, output.decode()
    assert "kept: of the first process" in output.decode()
    assert await none_left_async(engine)
    assert (
        await eventually_async(lambda: kernel.provisioner._container.poll(), lambda code: code is not None) is not None
    )
