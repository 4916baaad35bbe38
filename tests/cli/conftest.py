"""Engines in memory for what is decided, and a place of one's own for kernelspecs."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from container_kernels import engines, owner
from container_kernels.cli import main
from container_kernels.engines.memory import Clock, MemoryEngine
from container_kernels.engines.protocol import LABEL, ContainerRequest
from container_kernels.pool.ledger import Ledger

Checks = dict[str, dict[str, Any]]

DEAD_OWNER = f"1:0:{platform.node()}"  # there is a process 1, and it did not start at 0


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of this test's own."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))


@pytest.fixture
def ledger(runtime_directory: None) -> Ledger:
    return Ledger.of_this_user()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryEngine]:
    """The only engine that there is, with an image."""
    engine = MemoryEngine(clock=Clock())
    engine.add_image("an/image")
    for name in reversed(list(engines.ENGINES)):  # they come back in the order of before
        monkeypatch.delitem(engines.ENGINES, name)
    monkeypatch.setitem(engines.ENGINES, "memory", engine)
    engines.forget()
    yield engine
    engines.forget()


@pytest.fixture
def add_container(memory: MemoryEngine) -> Callable[..., str]:
    """Makes a container of a kernel, which belongs to this process unless it is told otherwise."""

    def add(name: str, kernel: str = "", **labels: str) -> str:
        labels = {"kernel": kernel, "owner": asyncio.run(owner.this_process()), **labels}
        request = ContainerRequest(
            name=name, image="an/image", command=("python3",), cpus=1, memory=1 << 30, pids=100,
            labels={LABEL: "1", **{f"{LABEL}.{key}": value for key, value in labels.items()}},
        )  # fmt: skip
        asyncio.run(memory.run(request))
        return name

    return add


@pytest.fixture
def kernelspec_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Jupyter finds kernelspecs of this test's own: they are installed there with the prefix `tmp_path`."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    return tmp_path / "share" / "jupyter" / "kernels"


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """The exit status of a command, and what it prints as JSON."""

    def run(*arguments: str) -> tuple[int, Any]:
        status = main([*arguments, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def examined(answer: Callable[..., tuple[int, Any]]) -> Callable[..., tuple[int, Checks]]:
    """The exit status, and each check by its name."""

    def run(*arguments: str) -> tuple[int, Checks]:
        status, said = answer("doctor", *arguments)
        assert said["would_start"] is (status == 0)
        return status, {check["name"]: check for check in said["checks"]}

    return run
