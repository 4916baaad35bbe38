"""Kernels in containers under a real Jupyter server: what JupyterLab does by REST and websocket."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from ..conftest import EngineUnderTest, eventually_async
from .conftest import Server, none_left

LOOKS_OFTEN = "--KernelRestarter.time_to_dead=0.5"  # seconds between two looks at each kernel


async def test_a_notebooks_day(start_server: Callable[..., Server], engine: EngineUnderTest) -> None:
    """In JupyterLab: listed, started, a cell, an interrupt, a restart in the same container, a shutdown that leaves nothing."""
    server = start_server(application="lab")
    specs = (await server.get("/api/kernelspecs"))["kernelspecs"]
    assert {"container-python", "container-data"} <= set(specs)
    session = await server.start_session()
    kernel_id = session["kernel"]["id"]
    container = engine.the_container()
    async with server.channels(kernel_id) as channels:
        assert (
            await channels.run("import socket; x = 1; print(socket.gethostname())")
            == engine.run("inspect", "--format", "{{.Config.Hostname}}", container).strip()
        )

        sleeping = await channels.start("import time; print('asleep'); time.sleep(60)")
        await channels.printed("asleep")
        assert (await server.request("POST", f"/api/kernels/{kernel_id}/interrupt"))[0] == 204
        assert (await channels.finish(sleeping)).error.startswith("KeyboardInterrupt")
        assert await channels.run("print(x)") == "1"

        assert (await server.request("POST", f"/api/kernels/{kernel_id}/restart"))[0] == 200
        assert await channels.run("print('x' in globals())") == "False"
    assert engine.the_container() == container
    await server.kernel_becomes(kernel_id, lambda model: model["execution_state"] == "idle")

    assert (await server.request("DELETE", f"/api/sessions/{session['id']}"))[0] == 204
    assert none_left(engine)
    assert await server.get("/api/kernels") == []


async def test_a_kernel_for_itself(server: Server, engine: EngineUnderTest) -> None:
    """POST /api/kernels, where no environment is passed, and a client may choose the id."""
    body = {"name": "container-python", "kernel_id": "a'b;$(id)-b-c-d-e"}
    status, kernel = await server.request("POST", "/api/kernels", body)
    assert status == 201, kernel
    status, kernel = await server.request("POST", "/api/kernels", {"name": "container-python"})
    assert status == 201, kernel
    async with server.channels(kernel["id"]) as channels:
        assert await channels.run("import os; print(os.getcwd())") == str(server.root)
    assert len(engine.containers()) == 2


async def test_two_kernels_at_once(server: Server, engine: EngineUnderTest) -> None:
    sessions = [await server.start_session(name) for name in ("a.ipynb", "b.ipynb")]
    first, second = [session["kernel"]["id"] for session in sessions]
    assert len(engine.containers()) == 2
    async with server.channels(first) as one, server.channels(second) as other:
        await one.run("x = 'the first'")
        assert await other.run("print('x' in globals())") == "False"
        await other.start("import time; print('asleep'); time.sleep(60)")
        await other.printed("asleep")
        assert (await server.request("DELETE", f"/api/kernels/{second}"))[0] == 204
        assert await one.run("print(x)") == "the first"
    assert len(await eventually_async(engine.containers, lambda names: len(names) == 1)) == 1


@pytest.mark.parametrize("death", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
async def test_a_death_and_its_autorestart(
    death: str, start_server: Callable[..., Server], engine: EngineUnderTest
) -> None:
    """The websocket that was there goes on working, so does one that is opened anew, and the server knows the kernel's state."""
    server = start_server(LOOKS_OFTEN)
    kernel_id = (await server.start_session())["kernel"]["id"]
    container = engine.the_container()
    reason = "exited with code 1" if "exit" in death else "killed by SIGKILL"
    async with server.channels(kernel_id, "a-session") as channels:
        dying = await channels.finish(await channels.start(f"import os, time; x = 1; time.sleep(0.2); {death}"))
        assert reason in dying.error
        await channels.state("restarting")
        assert await channels.run("print('x' in globals())") == "False"
        assert reason in (await server.kernel(kernel_id))["reason"]
        assert reason in server.program.output
        async with server.channels(kernel_id, "a-session") as reopened:
            assert await reopened.run("print('again')") == "again"
            model = await server.kernel_becomes(kernel_id, lambda model: model["execution_state"] == "idle")
            before = model["last_activity"]
            busy = await reopened.start("import time; print('asleep'); time.sleep(60)")
            await reopened.printed("asleep")
            await server.kernel_becomes(kernel_id, lambda model: model["execution_state"] == "busy")
            await server.request("POST", f"/api/kernels/{kernel_id}/interrupt")
            await reopened.finish(busy)
            model = await server.kernel_becomes(kernel_id, lambda model: model["execution_state"] == "idle")
            assert model["last_activity"] > before
    assert engine.the_container() == container


async def test_a_container_that_is_removed_by_hand(
    start_server: Callable[..., Server], engine: EngineUnderTest
) -> None:
    """It is a death as any other: told, and followed by a new container; for the same websocket too, where the engine forwards
    through a proxy. (Connections that a rootful Podman forwards by address are stuck in their SYN for long.)"""
    server = start_server(LOOKS_OFTEN)
    kernel_id = (await server.start_session())["kernel"]["id"]
    async with server.channels(kernel_id) as channels:
        await channels.run("x = 1")
        removed = engine.the_container()
        engine.run("rm", "--force", removed)
        await channels.state("restarting")
        if engine.name == "docker":
            assert await channels.run("print('x' in globals())", timeout=60) == "False"
        async with server.channels(kernel_id) as opened:
            assert await opened.run("print('x' in globals())", timeout=60) == "False"
    assert removed in (await server.kernel(kernel_id))["reason"]
    assert engine.the_container() != removed


async def test_a_notebook_is_renamed(server: Server) -> None:
    session = await server.start_session("a.ipynb")
    kernel_id = session["kernel"]["id"]
    asked = "import os; print(os.environ['JPY_SESSION_NAME'])"
    async with server.channels(kernel_id) as channels:
        assert await channels.run(asked) == str(server.root / "a.ipynb")
        renamed = {**session, "path": "b.ipynb", "name": "b.ipynb"}
        assert (await server.request("PATCH", f"/api/sessions/{session['id']}", renamed))[0] == 200
        assert (await server.request("POST", f"/api/kernels/{kernel_id}/restart"))[0] == 200
        assert await channels.run(asked) == str(server.root / "b.ipynb")


async def test_a_notebook_sees_the_servers_root(server: Server) -> None:
    """At the same path: also the folder beside its own. What the kernel names is found by the server, and nothing else is."""
    for folder in ("notebooks", "data"):
        (server.root / folder).mkdir()
    (server.root / "data" / "table.csv").write_text("1,2")
    kernel_id = (await server.start_session("notebooks/a.ipynb"))["kernel"]["id"]
    async with server.channels(kernel_id) as channels:
        assert await channels.run("import os; print(os.getcwd())") == str(server.root / "notebooks")
        assert await channels.run("print(open('../data/table.csv').read())") == "1,2"
        await channels.run("open('made.txt', 'w').write('x')")
    for path, found in (
        ("made.txt", str(server.root / "notebooks" / "made.txt")),
        ("../data/table.csv", str(server.root / "data" / "table.csv")),
        (str(server.root / "data" / "table.csv"), str(server.root / "data" / "table.csv")),
        ("missing.txt", None),
        ("/etc/passwd", None),
        ("../../../../etc/passwd", None),
    ):
        status, answer = await server.resolve(kernel_id, path)
        assert status == 200
        assert [one["path"] for one in answer["resolved"] if one["scope"] == "kernel"] == ([found] if found else []), (
            path
        )


async def test_the_servers_configuration_counts(
    start_server: Callable[..., Server], write_kernelspec: Callable[..., str]
) -> None:
    """Over kernel.json's, and under the environment's."""
    spec = write_kernelspec("small", {"memory": "512m", "cpus": 1, "env": {"HERE": "kernel.json"}})
    server = start_server("--ContainerProvisioner.memory=300m")
    kernel_id = (await server.start_session(kernel=spec))["kernel"]["id"]
    async with server.channels(kernel_id) as channels:
        limit = "from pathlib import Path\nfor name in ('memory.max', 'memory/memory.limit_in_bytes'):\n"
        limit += " path = Path('/sys/fs/cgroup', name)\n if path.exists(): print(path.read_text())\n"
        assert await channels.run(limit) == str(300 << 20)
        assert await channels.run("import os; print(os.environ['HERE'])") == "kernel.json"


async def test_a_start_that_fails(
    server: Server, engine: EngineUnderTest, write_kernelspec: Callable[..., str]
) -> None:
    """The person reads why; nothing is left; and the server can still be ended, which a failed start prevents otherwise."""
    wrong = write_kernelspec("wrong", {"memory": "lots"})
    missing = write_kernelspec("missing", {"image": "container-kernels/no-such-image"})
    dying = write_kernelspec("dying", {"argv": ["sh", "-c", "exit 3"]})
    await server.start_session("good.ipynb")
    for kernel, words in (
        (wrong, ("memory", "lots", "512m")),
        (missing, ("container-kernels/no-such-image",)),
        (dying, ("exited with code 3",)),
    ):
        status, answer = await server.post_session("bad.ipynb", kernel)
        assert status == 500
        for word in words:
            assert word in answer["message"]
    assert len(await server.get("/api/kernels")) == 1
    assert len(await eventually_async(engine.containers, lambda names: len(names) == 1)) == 1

    server.program.process.send_signal(signal.SIGTERM)
    server.program.ends(timeout=30)
    assert none_left(engine)


async def test_the_server_is_asked_to_end(server: Server, engine: EngineUnderTest) -> None:
    """With a cell that runs, its websocket open."""
    kernel_id = (await server.start_session())["kernel"]["id"]
    async with server.channels(kernel_id) as channels:
        await channels.start("import time; print('asleep'); time.sleep(60)")
        await channels.printed("asleep")
        server.program.process.send_signal(signal.SIGTERM)
        await eventually_async(server.program.process.poll, lambda code: code is not None, timeout=30)
    assert server.program.process.poll() is not None, server.program.output
    assert none_left(engine)


async def test_the_server_is_killed(server: Server, engine: EngineUnderTest) -> None:
    """The containers end by themselves: nobody else is there to do it."""
    await server.start_session("a.ipynb")
    await server.start_session("b.ipynb")
    server.program.process.kill()
    server.program.ends()
    assert len(engine.containers()) == 2
    assert none_left(engine, timeout=30)
