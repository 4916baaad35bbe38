"""After starts that follow each other, one helper; none where there is nothing to do."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from container_kernels import command
from container_kernels.pool.claiming import Pool
from container_kernels.pool.ledger import Ledger
from container_kernels.pool.refill import Refill, refill
from container_kernels.spec import parse
from container_kernels.workdir import Workdir

from .test_ledger import INFO


def test_starts_that_follow_each_other_have_one_helper() -> None:
    wants, starts = [], []
    pending = Refill()
    for number in range(3):
        pending.soon(lambda number=number: bool(wants.append(number) or number), lambda: starts.append("helper") or 7)  # type: ignore[misc,func-returns-value]
    assert pending.now() == 7
    assert (wants, starts) == ([0, 1, 2], ["helper"])
    assert pending.now() is None


def test_nothing_to_do_is_no_reason_for_a_helper() -> None:
    starts: list[str] = []
    pending = Refill()
    pending.soon(lambda: False, lambda: starts.append("helper"))
    assert pending.now() is None
    assert starts == []


@pytest.mark.parametrize("size", [0, 1])
def test_a_pool_that_is_turned_off_needs_no_helper(size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But once: what was wanted before is given up."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    started: list[Sequence[str]] = []

    def detached(argv: Sequence[str], env: Mapping[str, str]) -> int:
        started.append(argv)
        return os.getpid()

    monkeypatch.setattr(command, "detached", detached)
    spec, ledger = parse({"pool_size": size}, {}, {}), Ledger.of_this_user()
    for _ in range(2):
        Pool(spec, {}, encrypts=True, log=logging.getLogger()).refill(INFO, Workdir((), None))
        refill.now()
    assert len(started) == 2 * size
    assert len(ledger.wanted()) == size
    off = parse({"pool_size": 0}, {}, {})
    Pool(off, {}, encrypts=True, log=logging.getLogger()).refill(INFO, Workdir((), None))
    refill.now()
    assert (len(started), ledger.wanted()) == (3 * size, [])
