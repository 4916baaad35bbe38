"""The engine of tests, beyond the contract: what a test arranges, and what it finds noted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from container_kernels.engines.memory import Clock, MemoryEngine
from container_kernels.engines.protocol import LABEL, ContainerRequest, Mount
from container_kernels.errors import BuildError, CommandTimeout, EngineError, EngineUnavailable, ImageError, PortTaken

REQUEST = ContainerRequest(
    name="kernel-1",
    image="python",
    command=("python3",),
    cpus=1,
    memory=64 << 20,
    pids=50,
    labels={LABEL: "1"},
)


@pytest.fixture
def engine() -> MemoryEngine:
    engine = MemoryEngine()
    engine.add_image("python")
    return engine


async def test_time_goes_on_when_it_is_told_to() -> None:
    clock = Clock()
    engine = MemoryEngine(clock=clock)
    engine.add_image("python")
    await engine.run(REQUEST)
    clock.advance(90)
    await engine.run(replace(REQUEST, name="kernel-2"))
    first, second = await engine.list()
    assert (second.created - first.created).total_seconds() == 90


async def test_what_was_asked_is_noted(engine: MemoryEngine) -> None:
    await engine.run(REQUEST)
    await engine.inspect("kernel-1")
    await engine.remove("kernel-1")
    assert engine.asked == [("run", REQUEST), ("inspect", "kernel-1"), ("remove", "kernel-1")]
    assert repr(engine) == "<MemoryEngine 0 containers, 1 images>"


async def test_one_call_fails_and_changes_nothing(engine: MemoryEngine) -> None:
    engine.fail("run", PortTaken("taken"))
    with pytest.raises(PortTaken, match="taken"):
        await engine.run(REQUEST)
    assert await engine.list() == []
    await engine.run(REQUEST)


async def test_a_run_without_time_changes_nothing(engine: MemoryEngine) -> None:
    with pytest.raises(CommandTimeout):
        await engine.run(REQUEST, timeout=0)
    assert engine.containers == {}


async def test_stopped_it_does_nothing(engine: MemoryEngine) -> None:
    engine.stopped = "no daemon"
    for ask in (engine.probe, engine.list, engine.usage):
        with pytest.raises(EngineUnavailable) as raised:
            await ask()
        assert raised.value.detail == "no daemon"
    engine.stopped = ""
    assert (await engine.probe()).cpus == 4


async def test_a_container_ends_and_is_forgotten(engine: MemoryEngine) -> None:
    await engine.run(REQUEST)
    engine.write("kernel-1", "one", "two")
    assert await engine.logs("kernel-1", tail=1) == "two\n"
    engine.end("kernel-1")
    assert await engine.inspect("kernel-1") is None
    assert await engine.logs("kernel-1") == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpus": 0},
        {"cpus": 5},
        {"memory": 1},
        {"name": ""},
        {"name": "-x"},
        {"name": "a b"},
        {"mounts": (Mount("/", "/x"), Mount("/", "/x"))},
    ],
    ids=str,
)
async def test_what_is_refused(engine: MemoryEngine, wrong: dict[str, object]) -> None:
    with pytest.raises(EngineError):
        await engine.run(replace(REQUEST, **wrong))  # type: ignore[arg-type] # wrong on purpose
    assert engine.containers == {}


async def test_images_come_from_the_registry_a_build_or_an_archive(engine: MemoryEngine, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(ImageError):
        await engine.pull("other", told.append)
    engine.registry.add("other")
    await engine.pull("other", told.append)
    with pytest.raises(BuildError):
        await engine.build(tmp_path, tag="built", arguments={}, labels={}, progress=told.append)
    (tmp_path / "Containerfile").touch()
    await engine.build(tmp_path, tag="built", arguments={}, labels={"a": "b"}, progress=told.append)
    with pytest.raises(EngineError):
        await engine.import_tar(tmp_path / "gone.tar", tag="imported")
    await engine.import_tar(tmp_path / "Containerfile", tag="imported")
    assert list(engine.images) == ["python", "other", "built", "imported"]
    built = await engine.image("built")
    assert built is not None
    assert built.labels == {"a": "b"}
    assert told == ["other: pulled", "built: built"]
