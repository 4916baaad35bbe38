"""Files of one person's directory: complete or not there, and never anything else that has their name."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from container_kernels.pool.files import LARGEST, Damaged, LedgerError, PrivateFiles

from .conftest import NOBODY

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


@pytest.fixture
def files(directory: Path) -> PrivateFiles:
    return PrivateFiles(directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_written_is_read(files: PrivateFiles, directory: Path) -> None:
    for value in ({"a": [1, None, "\udcff"]}, "other"):
        files.write("part", "name", value)
        assert files.read("part", "name") == value
    assert [path.name for path in (directory / "part").iterdir()] == ["name"]


def test_all_is_this_users_alone(files: PrivateFiles, directory: Path) -> None:
    for umask in (0o000, 0o077, 0o777):
        before = os.umask(umask)
        try:
            files.write(f"part{umask}", "name", 1)
            files.append("", "journal", b"x\n")
        finally:
            os.umask(before)
        assert mode(directory / f"part{umask}") & 0o077 == 0
        assert mode(directory / f"part{umask}" / "name") == 0o600
    assert mode(directory) == mode(directory.parent) == 0o700
    assert mode(directory / "journal") & 0o077 == 0


def test_nothing_is_made_by_reading(files: PrivateFiles, directory: Path) -> None:
    assert files.listing("part") == []
    files.remove("part", "name")
    with pytest.raises(FileNotFoundError):
        files.read("part", "name")
    assert not directory.exists()


def test_a_file_in_the_way_of_the_directory(files: PrivateFiles, directory: Path) -> None:
    directory.parent.parent.mkdir()
    directory.parent.touch()
    assert files.listing("part") == []
    with pytest.raises(FileNotFoundError):
        files.read("part", "name")
    with pytest.raises(OSError, match=r"directory|exists"):
        files.write("part", "name", 1)


@pytest.mark.parametrize("part", ["", "part"])
def test_a_directory_that_is_open_to_others_is_closed(files: PrivateFiles, directory: Path, part: str) -> None:
    files.write("part", "name", 1)
    for use in (
        lambda: files.read("part", "name"),
        lambda: files.write("part", "name", 1),
        lambda: files.listing("part"),
    ):
        (directory / part).chmod(0o777)
        use()
        assert mode(directory / part) == 0o700


def refused(files: PrivateFiles) -> None:
    uses: list[Callable[[], object]] = [
        lambda: files.read("part", "name"),
        lambda: files.write("part", "new", 1),
        lambda: files.listing("part"),
        lambda: files.append("part", "name", b"x"),
        lambda: files.remove("part", "name"),
    ]
    for use in uses:
        with pytest.raises(LedgerError, match="not a directory of this user"):
            use()


@as_root
@pytest.mark.parametrize("part", ["", "part"])
def test_a_directory_of_another_user_is_refused(files: PrivateFiles, directory: Path, part: str) -> None:
    files.write("part", "name", 1)
    os.chown(directory / part, NOBODY, NOBODY)
    refused(files)


@pytest.mark.parametrize("part", ["", "part"])
def test_a_link_to_a_directory_is_refused(files: PrivateFiles, directory: Path, tmp_path: Path, part: str) -> None:
    files.write("part", "name", 1)
    real = (directory / part).rename(tmp_path / "elsewhere")
    (directory / part).symlink_to(real)
    refused(files)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["name"]


def test_nothing_is_made_where_a_link_leads(files: PrivateFiles, directory: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    directory.parent.mkdir(parents=True)
    directory.symlink_to(elsewhere)
    with pytest.raises(LedgerError):
        files.write("part", "name", 1)
    elsewhere.mkdir()
    with pytest.raises(LedgerError):
        files.write("part", "name", 1)
    assert not list(elsewhere.iterdir())


def test_a_file_that_stands_for_a_part_is_refused(files: PrivateFiles, directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "part").touch()
    refused(files)


def link(path: Path) -> None:
    target = path.parent.parent / "target"
    target.write_text("1")
    target.chmod(0o600)
    path.symlink_to(target)


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(path.parent)  # such a path may not be long
        try:
            sock.bind(path.name)
        finally:
            os.chdir(here)


def full_directory(path: Path) -> None:
    path.mkdir(0o700)
    (path / "file").touch()
    (path / "empty").mkdir()


def content(data: bytes, permissions: int = 0o600) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(permissions)

    return make


def huge(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 1 << 40)


NO_JSON: dict[str, Callable[[Path], None]] = {
    "empty": content(b""),
    "truncated": content(b'{"a": 1'),
    "binary": content(os.urandom(1000) + b"\xff"),
    "zeros": content(bytes(4096)),
    "deep": content(b"[" * 100_000),
    "long number": content(b"9" * 10_000),
    "too large": content(b" " * LARGEST + b"1"),
    "huge": huge,
}
NO_FILE: dict[str, Callable[[Path], None]] = {
    "readable by others": content(b"1", 0o644),
    "writable by others": content(b"1", 0o602),
    "fifo": lambda path: os.mkfifo(path, 0o600),
    "socket": listener,
    "link": link,
    "dangling link": lambda path: path.symlink_to("/nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "directory": lambda path: path.mkdir(0o700),
    "full directory": full_directory,
}
DAMAGES = NO_JSON | NO_FILE


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_says_so_and_can_be_removed(files: PrivateFiles, directory: Path, damage: str) -> None:
    files.write("part", "other", 1)
    DAMAGES[damage](directory / "part" / "name")
    with pytest.raises(Damaged):
        files.read("part", "name")
    assert "name" in [name for name, _ in files.listing("part")]
    files.remove("part", "name")
    assert [name for name, _ in files.listing("part")] == ["other"]


@pytest.mark.parametrize("damage", NO_FILE)
def test_nothing_is_appended_to_what_is_no_file(files: PrivateFiles, directory: Path, damage: str) -> None:
    files.write("part", "other", 1)
    DAMAGES[damage](directory / "part" / "name")
    with pytest.raises(Damaged):
        files.append("part", "name", b"x\n")


def test_a_link_is_replaced_and_not_followed(files: PrivateFiles, directory: Path) -> None:
    files.write("part", "other", 1)
    link(directory / "part" / "name")
    files.write("part", "name", 2)
    assert files.read("part", "name") == 2
    assert (directory / "target").read_text() == "1"


@as_root
def test_a_file_of_another_user_is_damaged(files: PrivateFiles, directory: Path) -> None:
    files.write("part", "name", 1)
    os.chown(directory / "part" / "name", NOBODY, NOBODY)
    with pytest.raises(Damaged, match="others"):
        files.read("part", "name")


def test_a_file_that_may_not_be_read_is_damaged(ordinary_directory: Path) -> None:
    files = PrivateFiles(ordinary_directory / "pool")
    files.write("part", "name", 1)
    (ordinary_directory / "pool" / "part" / "name").chmod(0)
    with pytest.raises(Damaged, match="Permission"):
        files.read("part", "name")
    files.remove("part", "name")
    assert files.listing("part") == []


def test_a_directory_that_may_not_be_written(ordinary_directory: Path) -> None:
    files = PrivateFiles(ordinary_directory / "pool")
    files.write("part", "name", 1)
    (ordinary_directory / "pool" / "part").chmod(0o500)
    assert files.read("part", "name") == 1
    uses: list[Callable[[], object]] = [lambda: files.write("part", "name", 2), lambda: files.remove("part", "name")]
    for use in uses:
        with pytest.raises(PermissionError):
            use()
    assert files.read("part", "name") == 1
    (ordinary_directory / "pool").chmod(0)
    with pytest.raises(PermissionError):
        files.read("part", "name")


def test_a_disk_that_is_full(files: PrivateFiles, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("part", "name", "old")

    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write("part", "name", "new")
    assert files.read("part", "name") == "old"
    assert [name for name, _ in files.listing("part")] == ["name"]


def test_too_many_open_files_are_no_damage(files: PrivateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("part", "name", 1)

    def many(*arguments: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", many)
    with pytest.raises(OSError, match="Too many"):
        files.read("part", "name")


def test_a_listing_is_by_age(files: PrivateFiles, directory: Path) -> None:
    for name, age in (("b", 1), ("c", 3), ("a", 1), ("d", 2)):
        files.write("part", name, 1)
        os.utime(directory / "part" / name, (0, 100 - age))
    assert [name for name, _ in files.listing("part")] == ["c", "d", "a", "b"]


def test_the_end_of_a_long_file_is_read(files: PrivateFiles) -> None:
    files.append("", "name", b"one\ntwo\n")
    assert files.read_bytes("", "name", 4) == b"two\n"
    assert files.read_bytes("", "name", 100) == b"one\ntwo\n"
