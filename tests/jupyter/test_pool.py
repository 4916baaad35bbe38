"""Warm containers without anything that is started by hand: for programs that come and go, and for a server."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from container_kernels import config
from container_kernels.pool.keeping import keeper_lock
from container_kernels.pool.ledger import Ledger

from ..conftest import EngineUnderTest, eventually, eventually_async
from .conftest import Program, Server
from .test_programs import notebook, printed

PATIENCE = 60.0  # seconds for a helper or a keeper to fill


@pytest.fixture
def ledger(engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """That of this test's processes, which end before it does. No warm container is left, and no helper runs on."""
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "1")
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_MEMORY_BUDGET", "64g")
    ledger = Ledger.of_this_user()
    yield ledger
    with contextlib.ExitStack() as locks:
        # A helper that is late finds nothing wanted.
        for wanted in ledger.wanted():
            ledger.forget(wanted.key)
        for name in ("helper", keeper_lock(config.host_environment())):
            assert eventually(partial(_entered, locks, ledger, name), bool, timeout=PATIENCE)
        command = [str(Path(sys.executable).with_name("container-kernels")), "pool", "drain"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def _entered(locks: contextlib.ExitStack, ledger: Ledger, name: str) -> bool:
    return locks.enter_context(ledger.lock(name))


def hits(ledger: Ledger) -> int:
    return sum(counts.hits for counts in ledger.counts().values())


def of_python(ledger: Ledger) -> set[str]:
    """Names of the warm containers of `container-python`; a server has those of the other kernelspecs as well."""
    slots = [slot for file in ledger.slots() if (slot := ledger.peek(file)) is not None]
    return {slot.name for slot in slots if slot.container["image"] == "container-kernels/python"}


def _another(ledger: Ledger, before: set[str]) -> bool:
    return bool(of_python(ledger) - before)


def becomes_warm(ledger: Ledger) -> bool:
    return bool(eventually(partial(of_python, ledger), bool, timeout=PATIENCE))


PROGRAMS = {
    "execute": ("jupyter", "execute", "--inplace", "a.ipynb"),
    "nbconvert": ("jupyter", "nbconvert", "--to=notebook", "--execute", "--inplace", "a.ipynb"),
    "papermill": ("papermill", "a.ipynb", "a.ipynb"),
}


def test_the_second_run_in_a_directory_is_warm(
    ledger: Ledger, start_program: Callable[..., Program], engine: EngineUnderTest, notebook_directory: Path
) -> None:
    """Whichever program it is, and whichever has run before."""
    for number, (run, *words) in enumerate([PROGRAMS["execute"], *PROGRAMS.values()]):
        path = notebook(notebook_directory / "a.ipynb", "print('here')")
        program = start_program(*words, run=run)
        assert program.ends() == 0, program.output
        assert printed(path) == ["here"]
        assert hits(ledger) == number, ledger.counts()
        assert becomes_warm(ledger)
    assert ledger.claims() == []


def test_a_helper_imports_nothing_from_where_kernels_write(
    ledger: Ledger, start_program: Callable[..., Program], notebook_directory: Path, tmp_path: Path
) -> None:
    """What a kernel leaves in its directory would run on the host."""
    escaped = tmp_path / "escaped"
    for module in ("asyncio", "json", "psutil", "container_kernels", "sitecustomize"):
        (notebook_directory / f"{module}.py").write_text(f"open({str(escaped)!r}, 'w').close()")
    notebook(notebook_directory / "a.ipynb", "1")
    assert start_program("execute", "--inplace", "a.ipynb").ends() == 0
    assert becomes_warm(ledger)
    assert not escaped.exists()


def test_another_directory_has_a_pool_of_its_own(
    ledger: Ledger, start_program: Callable[..., Program], notebook_directory: Path, tmp_path: Path
) -> None:
    notebook(notebook_directory / "a.ipynb", "1")
    assert start_program("execute", "--inplace", "a.ipynb").ends() == 0
    assert becomes_warm(ledger)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    notebook(elsewhere / "a.ipynb", "1")
    assert start_program("execute", "--inplace", "a.ipynb", cwd=elsewhere).ends() == 0
    assert hits(ledger) == 0
    assert eventually(ledger.slots, lambda slots: len(slots) == 2, timeout=PATIENCE)


async def test_a_server_keeps_its_pool(
    ledger: Ledger, start_server: Callable[..., Server], engine: EngineUnderTest
) -> None:
    """From its start on, for its root directory and whatever folder in it, and after each claim."""
    server = start_server()
    assert await asyncio.to_thread(becomes_warm, ledger)
    (server.root / "folder").mkdir()
    for number, path in enumerate(("a.ipynb", "folder/b.ipynb"), start=1):
        before = of_python(ledger)
        session = await server.start_session(path)
        assert hits(ledger) == number, (ledger.counts(), server.program.output)
        async with server.channels(session["kernel"]["id"]) as channels:
            assert await channels.run("import os; print(os.getcwd())") == str((server.root / path).parent)
        assert await eventually_async(partial(_another, ledger, before), bool, timeout=PATIENCE)
        assert (await server.request("DELETE", f"/api/sessions/{session['id']}"))[0] == 204
    kernels = (
        set(engine.containers()) - {file.name for file in ledger.slots()} - {claim.name for claim in ledger.making()}
    )
    assert await eventually_async(lambda: kernels & set(engine.containers()), lambda left: not left) == set()
    with ledger.lock(keeper_lock(config.host_environment())) as free:
        assert not free, "the server keeps the pool, and no helper does"


async def test_a_server_whose_pool_cannot_be_used_serves_all_the_same(
    ledger: Ledger, start_server: Callable[..., Server], engine: EngineUnderTest
) -> None:
    directory = Path(ledger._files.directory)
    directory.parent.mkdir(parents=True)
    directory.write_text("in the way")
    server = start_server()
    session = await server.start_session()
    async with server.channels(session["kernel"]["id"]) as channels:
        assert await channels.run("print('here')") == "here"
    assert (await server.request("DELETE", f"/api/sessions/{session['id']}"))[0] == 204
    assert "pool" in server.program.output
    directory.unlink()


def test_settings_of_a_servers_configuration() -> None:
    from traitlets.config import Config

    assert config.configured(Config({"ContainerProvisioner": {"pool_size": 3}})) == {"pool_size": 3}
    assert config.configured(Config()) == {}
