"""`load`: what is in an archive is there, and the pool looks again at images of these names."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from container_kernels.cli import main
from container_kernels.cli.load import spellings
from container_kernels.engines.memory import MemoryEngine
from container_kernels.errors import EngineUnavailable, ImageError, SpecError
from container_kernels.pool.ledger import Ledger

from ..conftest import EngineUnderTest


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "an-image.tar"
    path.touch()
    return path


def test_an_archive_is_loaded(memory: MemoryEngine, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", str(archive)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "an-image\n"
    assert printed.err == f"Loading {archive} with memory\n"
    assert "an-image" in memory.images


def test_for_programs(memory: MemoryEngine, archive: Path, answer: Callable[..., tuple[int, Any]]) -> None:
    assert answer("load", str(archive)) == (0, [{"engine": "memory", "reference": "an-image"}])


def test_a_file_that_is_not_there(memory: MemoryEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nothing.tar"
    assert main(["load", str(missing)]) == SpecError.exit_code
    assert capsys.readouterr() == ("", f"Error: There is no file {missing}.\n")
    assert memory.asked == []


def test_an_engine_that_does_not_load_it(
    memory: MemoryEngine, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.fail("load", ImageError("It is no archive."))
    assert main(["load", str(archive)]) == ImageError.exit_code
    assert capsys.readouterr().err.endswith("Error: It is no archive.\n")
    memory.stopped = "it is switched off"
    assert main(["load", str(archive), "--engine", "memory"]) in (0, EngineUnavailable.exit_code)


def test_an_archive_without_images(
    memory: MemoryEngine, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nothing(*_: object) -> list[str]:
        return []

    monkeypatch.setattr(memory, "load", nothing)
    assert main(["load", str(archive)]) == ImageError.exit_code
    assert "found no image" in capsys.readouterr().err


def test_the_pool_forgets_what_it_knew_of_these_images(
    memory: MemoryEngine, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: set[str] = set()
    monkeypatch.setattr(Ledger, "forget_images", lambda _, references: forgotten.update(references))
    assert main(["load", str(archive)]) == 0
    assert forgotten == {"an-image"}


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("registry.example.org/library/python:3.13-slim", "python:3.13-slim"),
        ("registry.example.org/container-kernels/python:latest", "container-kernels/python"),
        ("localhost/container-kernels/python:latest", "container-kernels/python"),
        ("container-kernels/python:latest", "container-kernels/python"),
        ("other.example.org/some/image:1", "other.example.org/some/image:1"),
    ],
)
def test_an_image_is_known_by_every_spelling_of_its_name(reference: str, said: str) -> None:
    assert {reference, said} <= set(spellings([reference]))


def test_a_real_archive(engine: EngineUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"container-kernels-test/{uuid.uuid4().hex[:12]}:1"
    archive = tmp_path / "image.tar"
    engine.run("tag", "container-kernels/python", name)
    try:
        engine.run("save", "--output", str(archive), name)
    finally:
        engine.run("rmi", name)
    assert main(["load", str(archive), "--engine", engine.name]) == 0
    (reference,) = capsys.readouterr().out.split()
    assert reference.endswith(name)
    subprocess.run([engine.name, "rmi", reference], check=True, capture_output=True, timeout=60)
