"""A pool for a test, and nobody who fills it behind the test's back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from container_kernels import command
from container_kernels.config import host_environment
from container_kernels.errors import ContainerKernelError
from container_kernels.pool.keeping import keeper_lock
from container_kernels.pool.ledger import Ledger
from container_kernels.pool.refill import refill

from ..conftest import EngineUnderTest
from .pools import PoolUnderTest

__all__ = ["PoolUnderTest"]


@pytest.fixture
async def pool(
    engine: EngineUnderTest,
    notebook_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[PoolUnderTest]:
    """Of one warm container, which the test makes itself; nothing is wanted yet."""
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "1")
    monkeypatch.setattr(command, "detached", lambda *_: None)
    caplog.set_level(logging.DEBUG)
    under_test = PoolUnderTest(engine)
    with Ledger.of_this_user().lock(keeper_lock(host_environment())) as ours:
        assert ours
        yield under_test
        refill.now()  # the timer would outlive the test
        with contextlib.suppress(OSError, ContainerKernelError):  # a test may have left no ledger
            await under_test.drain()


@pytest.fixture
async def warm(pool: PoolUnderTest) -> PoolUnderTest:
    """The next kernel of `container-python` that is started here finds a warm container."""
    await pool.wish()
    await pool.fill()
    return pool
