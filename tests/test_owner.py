"""Whose a container is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container_kernels import command, owner
from container_kernels.errors import CommandTimeout


async def test_this_process_is_not_gone() -> None:
    label = await owner.this_process()
    assert label.startswith(f"{os.getpid()}:")
    assert label.endswith(f":{platform.node()}")
    assert not await owner.is_gone(label)


async def test_a_process_that_has_ended_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220 # returns at once
    start = await owner.started(process.pid)
    label = f"{process.pid}:{start}:{platform.node()}"
    assert start
    assert not await owner.is_gone(label)
    process.communicate(b"\n")
    assert await owner.is_gone(label)
    assert await owner.started(process.pid) == ""


async def test_another_process_with_the_same_id_is_not_the_owner() -> None:
    assert await owner.is_gone(f"{os.getpid()}:1:{platform.node()}")


async def test_when_in_doubt_it_is_not_gone() -> None:
    start = await owner.started(os.getpid())
    for label in ("", "x", "x:1:y", f"{os.getpid()}:1:another host", f"{os.getpid()}:{start}", f":1:{platform.node()}"):
        assert not await owner.is_gone(label)


async def test_a_label_without_a_start_is_in_doubt_while_the_process_runs() -> None:
    assert not await owner.is_gone(f"{os.getpid()}::{platform.node()}")
    assert await owner.is_gone(f"{_ended()}::{platform.node()}")


@pytest.mark.parametrize("pid", ["0", "²", "9" * 30])
async def test_numbers_that_are_no_process_are_in_doubt(pid: str) -> None:
    assert not await owner.is_gone(f"{pid}:1:{platform.node()}")


async def test_a_process_that_is_hidden_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hidepid, /proc does not have it, and a signal to it is forbidden."""

    def forbidden(pid: int, number: int) -> None:
        assert number == 0
        raise PermissionError

    pid = _ended()
    assert await owner.is_gone(f"{pid}:1:{platform.node()}")
    monkeypatch.setattr(os, "kill", forbidden)
    assert not await owner.is_gone(f"{pid}:1:{platform.node()}")


# -- Without /proc, as on a Mac

PS = """#!/bin/sh
if [ "$*" != "-o lstart= -p {pid}" ]; then echo "unexpected: $*" >&2; exit 64; fi
if [ "$LC_ALL $TZ" = "C UTC0" ]; then echo "Mon Jun  2 10:26:08 2025    "
else echo "Mo  2 Jun 12:26:08 2025    "
fi
"""


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_labels", {})


@pytest.fixture
def no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "PROC", tmp_path / "there is no proc")


def put_ps(directory: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (directory / "ps").write_text(text)
    (directory / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


@pytest.mark.usefixtures("no_proc")
async def test_ps_does_not_depend_on_the_person_s_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_ps(tmp_path, monkeypatch, PS.format(pid=os.getpid()))
    label = await owner.this_process()
    assert label == f"{os.getpid()}:Mon-Jun-2-10.26.08-2025:{platform.node()}"
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert await owner.this_process() == label
    assert not await owner.is_gone(label)
    assert await owner.is_gone(label.replace("10.26.08", "10.26.09"))


@pytest.mark.usefixtures("no_proc")
@pytest.mark.skipif(shutil.which("ps") is None, reason="this machine has no ps")
async def test_the_real_ps() -> None:
    label = await owner.this_process()
    assert label.count(":") == 2
    assert await owner.started(os.getpid())
    assert not await owner.is_gone(label)
    assert await owner.is_gone(f"{_ended()}:{label.split(':')[1]}:{platform.node()}")


@pytest.mark.usefixtures("no_proc")
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "is not there"])
async def test_a_ps_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    if fails:
        put_ps(tmp_path, monkeypatch, "#!/bin/sh\nexit 1\n")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert not await owner.is_gone(f"{os.getpid()}:Mon-Jun-2-10.26.08-2025:{platform.node()}")


@pytest.mark.usefixtures("no_proc")
async def test_a_ps_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(argv: list[str], *, timeout: float) -> command.Output:
        raise CommandTimeout("`env` did not end within 5 seconds, and was ended.")

    monkeypatch.setattr(command, "run", hangs)
    assert not await owner.is_gone(f"{os.getpid()}:Mon-Jun-2-10.26.08-2025:{platform.node()}")


def _ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_a_host_name_that_is_odd() -> None:
    assert not await owner.is_gone(f"999999999:1:not:{platform.node()}x")
