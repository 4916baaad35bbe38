"""What processes tell each other while they run, and what stays of it when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from container_kernels.pool.ledger import Ledger, LedgerError

from .samples import NOW, recipe, wanted
from .test_files import NO_FILE


def mark(directory: Path, name: str, age: float = 0) -> Path:
    path = directory / "starting" / name
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    path.touch()
    os.utime(path, (NOW - age, NOW - age))
    return path


MINE = f"{os.getpid()}-{'0' * 32}"


def test_a_start_is_known_while_it_lasts(ledger: Ledger, directory: Path) -> None:
    with ledger.start_under_way():
        (path,) = (directory / "starting").iterdir()
        now = path.stat().st_mtime
        assert ledger.starts_under_way(now)
        assert ledger.last_start() == 0.0
        with ledger.start_under_way():
            pass
        assert ledger.starts_under_way(now)
    assert not ledger.starts_under_way(now)
    assert ledger.last_start() >= now


def test_a_start_that_fails_ends_too(ledger: Ledger, directory: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.start_under_way():
        raise KeyboardInterrupt
    assert not list((directory / "starting").iterdir())
    assert ledger.last_start() > 0


@pytest.mark.parametrize(
    ("pid", "age", "counts"),
    [
        ("mine", 0, True),
        ("mine", 119, True),
        ("mine", -59, True),
        ("mine", 121, False),
        ("mine", -61, False),
        ("1", 0, True),  # another user's, perhaps
        ("0", 0, False),
        ("-1", 0, False),
        ("9999999999", 0, False),
        ("x", 0, False),
    ],
)
def test_which_marks_count(ledger: Ledger, directory: Path, pid: str, age: float, counts: bool) -> None:
    name = MINE if pid == "mine" else f"{pid}-{'0' * 32}"
    mark(directory, name, age)
    assert ledger.starts_under_way(NOW) == counts
    ledger.trim()
    assert (directory / "starting" / name).exists() == counts


def test_a_mark_of_a_process_that_is_gone_does_not_count(ledger: Ledger, directory: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark(directory, f"{process.pid}-{'0' * 32}")
    assert ledger.starts_under_way(NOW)
    process.communicate(b"\n")
    assert not ledger.starts_under_way(NOW)


def test_a_process_that_one_may_not_signal_runs(
    ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    mark(directory, MINE)
    monkeypatch.setattr(os, "kill", forbidden)
    assert ledger.starts_under_way(NOW)


@pytest.mark.parametrize("damage", ["directory", "fifo", "link", "dangling link"])
def test_what_is_no_mark_does_not_count(ledger: Ledger, directory: Path, damage: str) -> None:
    mark(directory, "x")
    NO_FILE[damage](directory / "starting" / MINE)
    assert not ledger.starts_under_way((directory / "starting" / MINE).lstat().st_mtime)


@pytest.mark.parametrize("part", ["starting", "last-start"])
@pytest.mark.parametrize("damage", ["directory", "fifo", "link", "dangling link", "readable by others"])
def test_a_start_minds_no_damage(ledger: Ledger, directory: Path, part: str, damage: str) -> None:
    directory.mkdir(parents=True)
    NO_FILE[damage](directory / part)
    with ledger.start_under_way():
        pass


def test_a_start_minds_no_denial(ordinary_directory: Path) -> None:
    ledger = Ledger(ordinary_directory / "pool")
    ledger.want(wanted())
    (ordinary_directory / "pool").chmod(0o500)
    with ledger.start_under_way():
        ledger.note_hit(recipe().key, 0.1)


# -- Locks


def test_a_lock_is_one_holders(ledger: Ledger) -> None:
    with ledger.lock("docker") as mine:
        assert mine
        with ledger.lock("docker") as again, ledger.lock("podman") as other:
            assert not again
            assert other
        with ledger.lock("docker") as again:
            assert not again
    with ledger.lock("docker") as mine:
        assert mine


HOLDER = """
import pathlib, subprocess, sys, time
from container_kernels.pool.ledger import Ledger
with Ledger(pathlib.Path(sys.argv[1])).lock("docker") as mine:
    child = subprocess.Popen(["sleep", "60"])
    print(mine, child.pid, flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process_and_not_with_the_children(ledger: Ledger, directory: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        mine, child = process.stdout.readline().split()
        try:
            assert mine == "True"
            with ledger.lock("docker") as free:
                assert not free
            process.kill()
            process.wait()
            with ledger.lock("docker") as free:
                assert free
        finally:
            os.kill(int(child), signal.SIGKILL)
    assert (directory / "locks" / "docker.lock").exists()


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", ".hidden", "x\n"])
def test_no_lock_leads_out(ledger: Ledger, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a lock"):
        enter(ledger.lock(name))


@pytest.mark.parametrize("damage", ["link", "directory", "socket"])
def test_a_lock_that_cannot_be_had(ledger: Ledger, directory: Path, damage: str) -> None:
    (directory / "locks").mkdir(0o700, parents=True)
    NO_FILE[damage](directory / "locks" / "docker.lock")
    with pytest.raises((OSError, LedgerError)):
        enter(ledger.lock("docker"))


def test_a_file_system_without_locks(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with pytest.raises(OSError, match="No locks"):
        enter(ledger.lock("docker"))


def enter(context: AbstractContextManager[object]) -> None:
    with context:
        pass
