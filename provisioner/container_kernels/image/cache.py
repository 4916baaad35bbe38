"""A directory for what is expensive to make and used again soon: by the next image, the other engine, a second try.

Everything appears in it complete, by one rename.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

KEPT = 7 * 24 * 3600.0  # seconds; then wheels and a base have newer releases

_SCRATCH = "scratch-"


@dataclass(frozen=True)
class Cache:
    """The entries of one directory, by name."""

    directory: Path

    def find(self, pattern: str) -> Path | None:
        """The entry whose name matches the pattern. Entries that were kept for too long are gone."""
        self._prune()
        return next(iter(sorted(self.directory.glob(pattern))), None)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new directory on the cache's file system, gone afterwards."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.directory))
        try:
            yield path
        finally:
            _remove(path)

    def keep(self, path: Path, name: str) -> Path:
        """`path`, which is in a scratch directory, has become the entry `name`."""
        entry = self.directory / name
        if entry.exists():
            entry.rename(path.parent / f"old-{path.name}")
        return path.rename(entry)

    def _prune(self) -> None:
        for entry in self.directory.glob("*"):
            # Another build may do the same.
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > KEPT:
                    _remove(entry)


def _remove(path: Path) -> None:
    """`path` is gone, also when a process that is just ending still wrote into it."""
    deadline = time.monotonic() + 5
    while path.exists():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=time.monotonic() < deadline)
        else:
            path.unlink(missing_ok=True)
