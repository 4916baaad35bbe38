"""Two processes claim from one ledger, while those that fill it are killed: each slot is used once, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from container_kernels.config import host_environment
from container_kernels.kernel_container import LEASE_GRACE
from container_kernels.pool.draining import drain

from ..conftest import EngineUnderTest, eventually_async
from .conftest import PoolUnderTest
from .pools import only_docker

CLAIMS = int(os.environ.get("CONTAINER_KERNELS_TEST_CLAIMS", "16"))  # 200 take some minutes
SIZE = 6
KILLED_EVERY = 1.0  # seconds
HERE = Path(__file__).parent

_log = logging.getLogger(__name__)


class Fillers:
    """Two of them, of which one is killed every second, and started again."""

    def __init__(self, engine: str) -> None:
        self.killed = 0
        self.said: list[str] = []
        self._engine = engine
        self._over = threading.Event()
        self._random = random.Random(1)
        self._processes = [self._start(), self._start()]
        self._thread = threading.Thread(target=self._kill_now_and_then)

    def _start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.warm.filler", self._engine]
        return subprocess.Popen(
            argv, cwd=HERE.parent.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _kill_now_and_then(self) -> None:
        while not self._over.wait(KILLED_EVERY):
            which = self._random.randrange(2)
            self._kill(self._processes[which])
            self._processes[which] = self._start()

    def _kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        self.said += process.communicate()[0].splitlines()
        self.killed += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Both are killed in the end."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            for process in self._processes:
                self._kill(process)


def claimer(claims: int, config: dict[str, Any]) -> subprocess.Popen[str]:
    argv = [sys.executable, str(HERE / "claimer.py"), str(claims), json.dumps(config)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@only_docker
@pytest.mark.timeout(120 + 6 * CLAIMS)
async def test_two_processes_claim_while_fillers_are_killed(
    pool: PoolUnderTest, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", str(SIZE))
    await pool.wish()
    begin = time.monotonic()
    fillers = Fillers(engine.name)
    with fillers.at_work():
        claimers = [claimer(CLAIMS // 2, pool.config) for _ in range(2)]
        told = [await eventually_outputs(process) for process in claimers]
    seconds = time.monotonic() - begin
    starts = [[line for line in some if "name" in line] for some in told]
    misses = Counter(line["miss"] for some in told for line in some if "miss" in line)
    names = [line["name"] for some in starts for line in some]
    print(f"{len(names)} claims, {fillers.killed} fillers killed, {seconds:.0f} s; misses: {dict(misses)}")
    print(f"slowest claim {max(line['seconds'] for some in starts for line in some):.3f} s")
    assert [len(some) for some in starts] == [CLAIMS // 2] * 2
    assert all(line["python"] for some in starts for line in some), "no kernel ran"
    assert len(set(names)) == len(names), "a slot was used twice"
    assert set(misses) <= {"no warm container is left"}
    assert [line for line in fillers.said if "Traceback" in line] == []
    # Who comes next finds out what the killed were about, and what is warm is not lost.
    assert len({slot.name for slot in await pool.fill()} - set(names)) == SIZE
    assert pool.ledger.making() == pool.ledger.claims() == []
    drained = await drain(pool.ledger, host_environment(), engine.name, _log)
    assert drained.errors == []
    assert (pool.ledger.slots(), pool.ledger.claims(), pool.ledger.making()) == ([], [], [])
    assert await eventually_async(engine.containers, lambda left: not left, timeout=LEASE_GRACE + 10) == []


async def eventually_outputs(process: subprocess.Popen[str]) -> list[dict[str, Any]]:

    output, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, errors
    print("".join(f"{line}\n" for line in errors.splitlines() if "dropped" in line))
    return [json.loads(line) for line in output.splitlines()]
