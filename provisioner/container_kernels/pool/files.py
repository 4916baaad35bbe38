"""Small files in a directory that is one person's alone, shared by processes that may end at any moment.

A file appears complete, by one rename. One that is read may be anything: what is no plain file of ours, or too large, or no JSON, is
damaged, and says so without hanging or leading elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ContainerKernelError

LARGEST = 1 << 20  # bytes of a file that is read
OTHERS = stat.S_IRWXG | stat.S_IRWXO
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
HALF_WRITTEN = "."  # how the name begins of a file that is not complete yet

# What opening says of the file itself; other errors are of the moment, such as too many open files.
_OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EOPNOTSUPP, errno.EIO, errno.EISDIR}  # fmt: skip


class LedgerError(ContainerKernelError):
    """The pool's directory cannot be trusted, or does not take what it is given: there is no pool."""


class Damaged(ValueError):
    """A file is there, and is not what it should be; the text says why."""


@dataclass(frozen=True)
class PrivateFiles:
    """The files of a directory and of its parts, which are directories in it; the part "" is the directory itself.

    Reading takes a missing directory as an empty one. LedgerError is for one that is another user's, or that cannot be closed to others.
    """

    directory: Path

    def path(self, part: str, name: str) -> Path:
        return self.directory / part / name

    def made(self, part: str, name: str) -> Path:
        """The path of a file that is to be written: its directory is there."""
        missing = [each for each in (self.directory, *self.directory.parents) if not each.exists()]
        for each in reversed(missing):
            _make(each)
        is_private(self.directory)  # before anything is made in it
        _make(self.directory / part)
        self._is_there(part)
        return self.path(part, name)

    def _is_there(self, part: str) -> bool:
        return is_private(self.directory) and is_private(self.directory / part)

    def listing(self, part: str) -> list[tuple[str, os.stat_result]]:
        """Names, and what is known without opening; by age, the oldest first."""
        if not self._is_there(part):
            return []
        found = []
        with os.scandir(self.directory / part) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it was there a moment ago
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
        return sorted(found, key=lambda each: (each[1].st_mtime_ns, each[0]))

    def read(self, part: str, name: str) -> Any:
        """The JSON in it. Raises FileNotFoundError, or Damaged."""
        content = self.read_bytes(part, name, LARGEST + 1)
        if len(content) > LARGEST:
            raise Damaged(f"it has more than {LARGEST} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise Damaged("it is no JSON") from None

    def read_bytes(self, part: str, name: str, limit: int) -> bytes:
        """The last bytes in it, at most so many. Raises FileNotFoundError, or Damaged."""
        if not self._is_there(part):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self.path(part, name)))
        with _opened(self.path(part, name), os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
            file.seek(max(0, os.fstat(descriptor).st_size - limit))
            return file.read(limit)

    def write(self, part: str, name: str, value: object) -> None:
        self.write_bytes(part, name, json.dumps(value, separators=(",", ":")).encode())

    def write_bytes(self, part: str, name: str, content: bytes) -> None:
        """The file has this content; whoever reads it meanwhile sees the old one."""
        path = self.made(part, name)
        new = path.with_name(f"{HALF_WRITTEN}{name}.{uuid.uuid4().hex}")
        try:
            self.create(new, content)
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise

    @staticmethod
    def create(path: Path, content: bytes = b"") -> None:
        """A new file. Raises FileExistsError where anything has the name."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            file.write(content)

    def append(self, part: str, name: str, line: bytes) -> None:
        """The line is at the end, in one piece."""
        with _opened(self.made(part, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT) as descriptor:
            os.write(descriptor, line)

    def remove(self, part: str, name: str) -> None:
        """Nothing has the name, whatever had."""
        if self._is_there(part):
            erase(self.path(part, name))


def is_private(directory: Path) -> bool:
    """Whether it is there, and then this user's alone. Raises LedgerError where it is not, and cannot be made so."""
    try:
        found = directory.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LedgerError(
            f"{directory} is not a directory of this user.",
            hint="Move it away: the pool of warm containers makes its own.",
        )
    if found.st_mode & OTHERS:
        directory.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
        if directory.lstat().st_mode & OTHERS:
            raise LedgerError(f"{directory} cannot be closed to other users: its file system has no permissions.")
    return True


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A plain file that nobody else has to do with. Raises Damaged for everything else that can have a name."""
    try:
        descriptor = os.open(path, flags | SAFELY, 0o600)
    except OSError as error:
        if error.errno in _OF_THE_FILE:
            raise Damaged(f"it cannot be opened: {error.strerror}") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("it is no plain file")
        if found.st_uid != os.geteuid() or found.st_mode & OTHERS:
            raise Damaged("others may read or write it")
        yield descriptor
    finally:
        os.close(descriptor)


def _make(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(0o700)
        directory.chmod(0o700)  # whatever the umask is


def erase(path: Path, *, missing_ok: bool = True) -> None:
    """Nothing is there, whatever was."""
    try:
        path.unlink(missing_ok=missing_ok)
    except (IsADirectoryError, PermissionError):  # how Linux and macOS call a directory
        if not path.is_dir():
            raise
        shutil.rmtree(path)
