"""A ledger, and what tests that are run by root cannot see otherwise."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_kernels.pool.ledger import Ledger

from .samples import NOW

NOBODY = 65534


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "runtime" / "container-kernels" / "pool"


@pytest.fixture
def ledger(directory: Path, clock: Clock) -> Ledger:
    return Ledger(directory, clock)


@pytest.fixture
def ordinary_directory() -> Iterator[Path]:
    """A directory of an ordinary user's, who runs this test: permissions do not bind root."""
    path = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield path
    else:
        os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield path
        finally:
            os.seteuid(0)
    for each, directories, _ in os.walk(path):
        for name in directories:
            (Path(each) / name).chmod(0o700)
    shutil.rmtree(path)
