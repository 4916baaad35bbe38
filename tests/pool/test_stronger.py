"""An engine that was taken for want of a better one is forgotten once the better one works."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from container_kernels import engines
from container_kernels.engines.memory import MemoryEngine
from container_kernels.pool.keeping import fill_once, look_after_all
from container_kernels.pool.ledger import Ledger

from .test_ledger import INFO

ASKED = "any engine"

_log = logging.getLogger("tests.pool")


@pytest.fixture
def stronger(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryEngine]:
    """The only engine that there is."""
    for name in reversed(list(engines.ENGINES)):  # they come back in the order of before
        monkeypatch.delitem(engines.ENGINES, name)
    engine = MemoryEngine(isolation="vm")
    monkeypatch.setitem(engines.ENGINES, "memory", engine)
    engines.forget()
    yield engine
    engines.forget()


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return Ledger.of_this_user()


@pytest.mark.parametrize("look", [fill_once, look_after_all])
@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("instead_of", ["", "memory: it was switched off."])
async def test_a_weaker_engine(
    look: object, works: bool, instead_of: str, stronger: MemoryEngine, ledger: Ledger
) -> None:
    stronger.stopped = "" if works else "it is switched off"
    ledger.remember_engine(ASKED, replace(INFO, instead_of=instead_of))
    await look(ledger, {}, None, _log)  # type: ignore[operator]
    is_known = ledger.remembered_engine(ASKED) is not None
    assert is_known is not (works and bool(instead_of))
