"""One kernel in one container: where it runs, what it sees, what it may use."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import EngineUnderTest, RunningKernel


async def test_it_runs_elsewhere(kernel: RunningKernel) -> None:
    host, pid_namespace = (
        await kernel.run("import os, socket; print(socket.gethostname(), os.readlink('/proc/self/ns/pid'))")
    ).split()
    assert host != socket.gethostname()
    assert pid_namespace != os.readlink("/proc/self/ns/pid")


async def test_its_files_are_the_callers(kernel: RunningKernel, notebook_directory: Path) -> None:
    await kernel.run(f"import os; assert os.getcwd() == {str(notebook_directory)!r}; open('made.txt', 'w').write('x')")
    made = (notebook_directory / "made.txt").stat()
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.getgid())


async def test_an_ordinary_persons_files_are_theirs(
    start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, notebook_directory: Path
) -> None:
    """As if Jupyter ran as another user than the tests do: on a rootful engine the kernel is that user inside."""
    os.chown(notebook_directory, 12345, 54321)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr("os.getgid", lambda: 54321)
    kernel = await start_kernel()
    await kernel.run("open('made.txt', 'w').write('x')")
    made = (notebook_directory / "made.txt").stat()
    assert (made.st_uid, made.st_gid) == (12345, 54321)


async def test_its_umask_is_the_callers(start_kernel: Callable[..., Any], notebook_directory: Path) -> None:
    before = os.umask(0o077)
    try:
        kernel = await start_kernel()
    finally:
        os.umask(before)
    await kernel.run("open('made.txt', 'w').write('x')")
    assert (notebook_directory / "made.txt").stat().st_mode & 0o777 == 0o600


async def test_the_hosts_environment_stays_outside(
    start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "JUPYTER_TOKEN", "JPY_PARENT_PID", "VIRTUAL_ENV"):
        monkeypatch.setenv(secret, "secret of the host")
    monkeypatch.setenv("TZ", "Europe/Vienna")
    kernel = await start_kernel(env={**os.environ, "JPY_SESSION_NAME": "a notebook", "ASKED_FOR": "yes"})
    inside = json.loads(await kernel.run("import json, os; print(json.dumps(dict(os.environ)))"))
    assert "secret of the host" not in inside.values()
    assert (inside["JPY_SESSION_NAME"], inside["ASKED_FOR"], inside["TZ"]) == ("a notebook", "yes", "Europe/Vienna")
    assert inside["HOME"] != os.environ["HOME"]
    assert not [name for name in inside if name.startswith("CONTAINER_KERNELS")]
    shared = {name for name, value in inside.items() if os.environ.get(name) == value}
    assert shared <= {"TZ", "LANG", "LC_ALL", "PYDEVD_USE_FRAME_EVAL"}


async def test_home_is_private_and_writable(kernel: RunningKernel) -> None:
    home = await kernel.run("from pathlib import Path; (Path.home() / 'kept').write_text('x'); print(Path.home())")
    assert not Path(home).exists()


async def test_the_time_zone_is_the_hosts(start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    kernel = await start_kernel()
    assert await kernel.run("import time; print(time.strftime('%z', time.localtime(0)))") == "+0530"


@pytest.mark.parametrize("policy", ["none", "notebook"])
async def test_workdir(
    policy: str, start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, notebook_directory: Path
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_WORKDIR", policy)
    (notebook_directory / "here.txt").write_text("x")
    kernel = await start_kernel()
    assert await kernel.run("import os; print(os.path.exists('here.txt'))") == str(policy == "notebook")


@pytest.mark.parametrize("name", ["with space", "colon:s", "comma,s", "quote\"'s", "naïve-日本"])
async def test_a_directory_of_any_name(name: str, start_kernel: Callable[..., Any], notebook_directory: Path) -> None:
    directory = notebook_directory / name
    directory.mkdir()
    kernel = await start_kernel(cwd=str(directory))
    await kernel.run("open('made.txt', 'w').write('x')")
    assert (directory / "made.txt").exists()


async def test_ports_listen_on_loopback_only(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    inspected = json.loads(engine.run("inspect", engine.the_container()))[0]
    published = [bound for bindings in inspected["NetworkSettings"]["Ports"].values() for bound in bindings or ()]
    assert len(published) == 6
    assert {bound["HostIp"] for bound in published} == {"127.0.0.1"}


async def test_limits_are_what_was_asked(start_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_CPUS", "0.5")
    monkeypatch.setenv("CONTAINER_KERNELS_PIDS", "60")
    kernel = await start_kernel()
    busy = "import time\nwall, cpu = time.monotonic(), time.process_time()\nwhile time.monotonic() - wall < 1.5: pass\n"
    share = float(await kernel.run(f"{busy}print((time.process_time() - cpu) / (time.monotonic() - wall))"))
    assert share < 0.65
    forks = "import subprocess\nmade = []\ntry:\n    while len(made) < 100: made.append(subprocess.Popen(['sleep', '60']))\n"
    assert (
        int(await kernel.run(f"{forks}except OSError: pass\nfor one in made: one.kill(); one.wait()\nprint(len(made))"))
        < 60
    )
