"""`pool`: what it tells of a ledger, what it does on an engine in memory, and that containers of real ones are warm."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from container_kernels import config, engines, owner
from container_kernels.cli import main
from container_kernels.engines.memory import MemoryEngine
from container_kernels.engines.protocol import LABEL, POOL_LABEL, ContainerRequest, Mount
from container_kernels.errors import ContainerKernelError, EngineError, EngineUnavailable, ImageError, SpecError
from container_kernels.guest import wire
from container_kernels.inventory import containers, remove
from container_kernels.pool import asking
from container_kernels.pool.asking import fill_now, wish
from container_kernels.pool.decision import RECENT, RESERVE, Snapshot
from container_kernels.pool.filling import Filler
from container_kernels.pool.keeping import keeper_lock
from container_kernels.pool.ledger import Ledger, Slot, Wanted
from container_kernels.pool.recipe import Recipe, guest_digest, place, place_digest

from ..conftest import EngineUnderTest, eventually, eventually_async
from .conftest import DEAD_OWNER

Answer = Callable[..., tuple[int, Any]]
SCRIPT = str(Path(sys.executable).parent / "container-kernels")
IMAGE = "an/image"
IMAGE_ID = "sha256:1f"
KERNEL = "0d6f7c1e-1111-4222-8333-444455556666"


# -- What stands in a ledger


def recipe(engine: str = "memory", **changes: Any) -> Recipe:
    request = ContainerRequest("", IMAGE, ("python3",), cpus=1.0, memory=1 << 30, pids=100)
    return Recipe.of(engine, place(os.environ), replace(request, **changes), {"preload": []}, False)


def wanted(some: Recipe, **changes: Any) -> Wanted:
    return replace(Wanted(some, 1, 1000.0, IMAGE_ID, time.time()), **changes)


def slot(some: Recipe, name: str, **changes: Any) -> Slot:
    now = time.time()
    ports = {each: 20_000 + number for number, each in enumerate([*wire.KERNEL_PORTS, "supervisor"])}
    made = Slot(
        fingerprint=some.fingerprint(IMAGE_ID),
        name=name,
        container={
            "engine": some.engine,
            "name": name,
            "image": IMAGE,
            "host": "127.0.0.1",
            "token": "secret",
            "ports": ports,
        },
        curve={},
        parked=True,
        created=now - 180,
        expires=now + 820,
        memory=50 << 20,
        owner=DEAD_OWNER,
        key=some.key,
        guest=guest_digest(),
        place=place_digest(some.place),
    )
    return replace(made, **changes)


@pytest.fixture
def here() -> str:
    """The digest of the engines that this process talks to."""
    return place_digest(place(os.environ))


@pytest.fixture
def add_pooled(memory: MemoryEngine) -> Callable[[str], str]:
    """Makes a container as fillers do: no label tells whose it is now."""

    def add(name: str) -> str:
        labels = {LABEL: "1", POOL_LABEL: "key", f"{LABEL}.owner": DEAD_OWNER}
        request = ContainerRequest(name, IMAGE, ("python3",), cpus=1, memory=1 << 30, pids=100, labels=labels)
        asyncio.run(memory.run(request))
        return name

    return add


@pytest.fixture
def add_warm(ledger: Ledger, add_pooled: Callable[[str], str]) -> Callable[[str], str]:
    """Makes a container that is warm, and wanted; the process that made it runs no more, as helpers do."""

    def add(name: str) -> str:
        ledger.want(wanted(recipe()))
        ledger.put(slot(recipe(), add_pooled(name)))
        return name

    return add


@pytest.fixture
def add_claimed(ledger: Ledger, add_warm: Callable[[str], str]) -> Callable[..., str]:
    """Makes a container that was warm, and has a kernel now, of this process unless it is told otherwise."""

    def add(name: str, kernel: str, whose: str | None = None) -> str:
        add_warm(name)
        (file,) = (each for each in ledger.slots() if each.name == name)
        ledger.take(file)
        ledger.claimed(name, kernel, asyncio.run(owner.this_process()) if whose is None else whose)
        return name

    return add


# -- status


def test_status_of_nothing(answer: Answer, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("pool", "status") == (0, {"keeper": False, "making": [], "recipes": []})
    assert main(["pool", "status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Nothing is wanted, and nothing is warm: no kernel with pool_size was started yet.",
        "No keeper runs: a helper fills the pool after each start.",
    ]
    assert memory.asked == []


@pytest.fixture
def a_pool(ledger: Ledger, tmp_path: Path, here: str) -> Recipe:
    """One that is wanted twice: one container is warm, one has expired, one is being made; and it was used, and has failed."""
    some = recipe(mounts=(Mount(str(tmp_path), str(tmp_path)),))
    ledger.want(wanted(some, size=2))
    ledger.put(slot(some, "container-kernels-a"))
    ledger.put(slot(some, "container-kernels-old", expires=time.time() - 1))
    ledger.make("container-kernels-new", "memory", here, asyncio.run(owner.this_process()))
    ledger.make("container-kernels-dead", "memory", here, DEAD_OWNER)
    ledger.note_hit(some.key, 0.04)
    for reason in ("it does not answer", "no warm container is left", "no warm container is left"):
        ledger.note_miss(some.key, reason)
    ledger.failed(some.key, "The disk is full.\nMake room.", time.time())
    return some


def test_status_for_programs(a_pool: Recipe, tmp_path: Path, answer: Answer, memory: MemoryEngine) -> None:
    status, found = answer("pool", "status")
    (row,) = found["recipes"]
    assert status == 0
    assert [each["name"] for each in found["making"]] == ["container-kernels-new"]
    assert (row["key"], row["engine"], row["image"]) == (a_pool.key, "memory", IMAGE)
    assert row["directories"] == [str(tmp_path)]
    assert (row["wanted"], row["warm"], row["parked"], row["unusable"]) == (2, 1, 1, 1)
    assert row["memory"] == 50 << 20
    (one,) = row["slots"]
    assert one["name"] == "container-kernels-a"
    assert one["age_seconds"] == pytest.approx(180, abs=30)
    assert one["expires"].endswith("+00:00")
    assert (row["hits"], row["last_hit_seconds"]) == (1, 0.04)
    assert row["misses"] == {"it does not answer": 1, "no warm container is left": 2}
    assert row["failure"]["in_a_row"] == 1
    assert row["failure"]["message"].startswith("The disk is full.")
    assert row["failure"]["at"] < row["failure"]["next_try"]
    assert memory.asked == []


def test_status_for_people(a_pool: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", "status"]) == 0
    header, row, *remarks = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "ENGINE", "IMAGE", "DIRECTORY", "WARM", "PARKED", "OLDEST", "EXPIRES", "MEMORY", "HITS", "MISSES"
    ]  # fmt: skip
    words = " ".join(row.split())
    assert words.startswith(f"memory {IMAGE} {tmp_path} 1 of 2 1 3 min in 13 min 50 MiB 1 3")
    assert remarks[0] == f"memory {IMAGE}: missed because no warm container is left (2); it does not answer (1)."
    assert "is tried again in" in remarks[1]
    assert remarks[1].endswith("The disk is full.")
    assert remarks[2:] == [
        f"memory {IMAGE}: 1 cannot be used any more.",
        "memory: 1 is being made.",
        "No keeper runs: a helper fills the pool after each start.",
    ]


def test_status_counts_misses_by_their_kind(ledger: Ledger, answer: Answer) -> None:
    ledger.want(wanted(recipe()))
    for number in range(3):
        ledger.note_miss(recipe().key, f"it does not answer: The container container-kernels-{number} does not answer.")
        ledger.note_miss(recipe().key, f"The pool's file of container-kernels-{number} is damaged: it is no JSON.")
    misses = {"it does not answer": 3, "The pool's file of a container is damaged": 3}
    assert answer("pool", "status")[1]["recipes"][0]["misses"] == misses


def test_status_hides_no_container_that_nobody_wants(ledger: Ledger, answer: Answer) -> None:
    ledger.put(slot(recipe(), "container-kernels-a"))
    _, found = answer("pool", "status")
    (row,) = found["recipes"]
    assert (row["engine"], row["image"], row["wanted"], row["warm"], row["unusable"]) == ("memory", IMAGE, 0, 0, 1)
    assert row["directories"] == []
    assert row["last_used"] is None


def test_status_tells_of_another_engine_of_the_same_name(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://far")
    ledger.want(wanted(recipe("docker")))
    monkeypatch.delenv("DOCKER_HOST")
    assert answer("pool", "status")[1]["recipes"][0]["place"] == {"DOCKER_HOST": "ssh://far"}
    assert main(["pool", "status"]) == 0
    assert "docker DOCKER_HOST=ssh://far" in capsys.readouterr().out


def test_status_knows_a_keeper(ledger: Ledger, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    with ledger.lock(keeper_lock(os.environ)):
        assert answer("pool", "status")[1]["keeper"] is True
        assert main(["pool", "status"]) == 0
    assert "A keeper fills the pool." in capsys.readouterr().out
    assert answer("pool", "status")[1]["keeper"] is False


def test_status_survives_moments_that_are_none(ledger: Ledger, answer: Answer) -> None:
    ledger.want(wanted(recipe(), last_used=1e300))
    ledger.put(slot(recipe(), "container-kernels-a", expires=1e300))
    _, found = answer("pool", "status")
    assert found["recipes"][0]["last_used"] is None


def test_damaged_slots_are_none(ledger: Ledger, answer: Answer, tmp_path: Path) -> None:
    ledger.want(wanted(recipe()))
    ledger.put(slot(recipe(), "container-kernels-a"))
    damage(ledger)
    assert answer("pool", "status")[1]["recipes"][0]["warm"] == 0


def damage(ledger: Ledger) -> None:
    """All slots are cut short."""
    (directory,) = Path(os.environ["JUPYTER_RUNTIME_DIR"]).rglob("slots")
    for path in directory.iterdir():
        path.write_text(path.read_text()[:20])


@pytest.mark.parametrize("words", [["status"], ["fill"], ["keep"]])
def test_a_ledger_that_cannot_be_is_one_clear_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    directory = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / "container-kernels"
    directory.write_text("in the way")
    assert main(["pool", *words]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("Error: ")
    assert str(directory) in printed.err
    assert "Traceback" not in printed.err


# -- ps, stop, gc


def test_ps_tells_what_is_warm_and_whose_the_others_are(
    add_warm: Callable[[str], str],
    add_claimed: Callable[..., str],
    add_pooled: Callable[[str], str],
    answer: Answer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_warm("container-kernels-waits")
    add_claimed("container-kernels-serves", KERNEL)
    add_pooled("container-kernels-unknown")
    _, rows = answer("ps")
    told = {row["name"].removeprefix("container-kernels-"): (row["kernel_id"], row["warm"]) for row in rows}
    assert told == {"waits": ("", True), "serves": (KERNEL, False), "unknown": ("", False)}
    assert main(["ps"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert sorted(line.split("  ")[0] for line in lines) == [KERNEL[:12], "container-kernels-unknown", "warm waits"]


def test_ps_does_without_a_ledger_that_cannot_be_read(
    add_warm: Callable[[str], str], ledger: Ledger, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    add_warm("container-kernels-waits")
    directory = ledger._files.directory
    directory.rename(directory.with_name("moved"))
    directory.write_text("in the way")
    _, (row,) = answer("ps")
    assert (row["name"], row["warm"]) == ("container-kernels-waits", False)
    assert "not known" in caplog.text


def test_a_warm_container_is_stopped_by_its_name(
    add_warm: Callable[[str], str], memory: MemoryEngine, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    add_warm("container-kernels-waits")
    assert main(["stop", "waits"]) == 0
    assert capsys.readouterr().out == "Removed container-kernels-waits (warm, memory).\n"
    assert memory.containers == {}
    assert (ledger.slots(), ledger.claims()) == ([], [])


def test_a_container_that_a_kernel_claims_at_that_moment_is_not_stopped(
    add_warm: Callable[[str], str], memory: MemoryEngine, ledger: Ledger
) -> None:
    add_warm("container-kernels-waits")
    seen = asyncio.run(containers())
    ledger.take(ledger.slots()[0])
    ((_, error),) = asyncio.run(remove(seen))
    assert error is not None
    assert "has just started" in error.message
    assert list(memory.containers) == ["container-kernels-waits"]


def test_a_claimed_container_is_stopped_by_its_kernel(
    add_claimed: Callable[..., str], memory: MemoryEngine, ledger: Ledger
) -> None:
    add_claimed("container-kernels-serves", KERNEL)
    assert main(["stop", KERNEL[:8]]) == 0
    assert memory.containers == {}
    assert ledger.claims() == []


def test_two_that_fit_are_told_apart(add_warm: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    add_warm("container-kernels-a1")
    add_warm("container-kernels-a2")
    assert main(["stop", "a"]) == 1
    assert "container-kernels-a1  warm  memory" in capsys.readouterr().err


def test_gc_knows_orphans_of_the_pool(
    add_warm: Callable[[str], str],
    add_claimed: Callable[..., str],
    add_pooled: Callable[[str], str],
    ledger: Ledger,
    here: str,
    answer: Answer,
) -> None:
    add_warm("container-kernels-waits")
    add_claimed("container-kernels-serves", "one")
    add_claimed("container-kernels-untold", "", "")
    add_claimed("container-kernels-left", "two", DEAD_OWNER)
    add_pooled("container-kernels-unknown")
    ledger.make(add_pooled("container-kernels-new"), "memory", here, asyncio.run(owner.this_process()))
    ledger.make(add_pooled("container-kernels-half"), "memory", here, DEAD_OWNER)
    status, removed = answer("gc")
    assert status == 0
    assert {row["name"]: row["kernel_id"] for row in removed} == {
        "container-kernels-left": "two",
        "container-kernels-half": "",
    }
    assert [claim.name for claim in ledger.making()] == ["container-kernels-new"]
    assert sorted(claim.name for claim in ledger.claims()) == ["container-kernels-serves", "container-kernels-untold"]


def test_what_was_made_just_before_its_filler_died_is_no_orphan(
    add_warm: Callable[[str], str], ledger: Ledger, here: str, answer: Answer
) -> None:
    ledger.make(add_warm("container-kernels-waits"), "memory", here, DEAD_OWNER)
    assert answer("gc") == (0, [])


# -- drain


def test_drain_leaves_nothing_warm_and_all_kernels(
    add_warm: Callable[[str], str],
    add_claimed: Callable[..., str],
    add_pooled: Callable[[str], str],
    add_container: Callable[..., str],
    memory: MemoryEngine,
    ledger: Ledger,
    here: str,
    answer: Answer,
) -> None:
    add_warm("container-kernels-one")
    add_warm("container-kernels-two")
    add_claimed("container-kernels-serves", "a")
    add_container("container-kernels-cold", "b")
    ledger.make(add_pooled("container-kernels-half"), "memory", here, DEAD_OWNER)
    ledger.make(add_pooled("container-kernels-far"), "memory", here, "1:0:another-host")
    status, drained = answer("pool", "drain")
    assert status == 0
    assert sorted(each["name"].rpartition("-")[2] for each in drained["removed"]) == ["half", "one", "two"]
    assert [each["key"] for each in drained["forgotten"]] == [recipe().key]
    assert sorted(name.rpartition("-")[2] for name in memory.containers) == ["cold", "far", "serves"]
    assert (ledger.slots(), ledger.wanted()) == ([], [])
    assert [claim.name for claim in ledger.claims()] == ["container-kernels-serves"]


def test_drain_for_people(add_warm: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    add_warm("container-kernels-one")
    assert main(["pool", "drain"]) == 0
    assert main(["pool", "drain"]) == 0
    assert capsys.readouterr().out == "Removed container-kernels-one (memory).\nNo container was warm.\n"


def test_drain_asks_no_engine_that_has_nothing(memory: MemoryEngine) -> None:
    memory.stopped = "it is switched off"
    assert main(["pool", "drain"]) == 0


def test_drain_forgets_also_where_the_engine_does_not_work(
    add_warm: Callable[[str], str], memory: MemoryEngine, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    add_warm("container-kernels-one")
    engines.forget()
    memory.stopped = "it is switched off"
    assert main(["pool", "drain"]) == EngineUnavailable.exit_code
    assert "it is switched off" in capsys.readouterr().err
    assert ledger.wanted() == []
    memory.stopped = ""
    assert main(["pool", "drain"]) == 0
    assert memory.containers == {}


def test_drain_goes_on_where_one_cannot_be_removed(
    add_warm: Callable[[str], str], memory: MemoryEngine, answer: Answer
) -> None:
    add_warm("container-kernels-one")
    add_warm("container-kernels-two")
    memory.fail("remove", EngineError("It is stuck."))
    status, drained = answer("pool", "drain")
    assert status == EngineError.exit_code
    assert len(drained["removed"]) == 1
    assert drained["errors"] == ["It is stuck."]


def test_drain_lets_another_engine_of_the_same_name_be(
    add_warm: Callable[[str], str], ledger: Ledger, monkeypatch: pytest.MonkeyPatch, memory: MemoryEngine
) -> None:
    add_warm("container-kernels-one")
    monkeypatch.setenv("DOCKER_HOST", "ssh://far")
    assert main(["pool", "drain"]) == 0
    assert len(memory.containers) == len(ledger.slots()) == len(ledger.wanted()) == 1


def test_drain_is_rid_of_damaged_slots(add_warm: Callable[[str], str], ledger: Ledger, memory: MemoryEngine) -> None:
    add_warm("container-kernels-one")
    damage(ledger)
    assert main(["pool", "drain"]) == 0
    assert memory.containers == {}
    assert ledger.slots() == []


def test_drain_waits_for_who_fills(
    add_warm: Callable[[str], str], ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("container_kernels.pool.draining.PATIENCE", 0.3)
    add_warm("container-kernels-one")
    with ledger.lock("memory"):
        assert main(["pool", "drain"]) == 1
    assert "Another process" in capsys.readouterr().err
    assert main(["pool", "drain"]) == 0


# -- fill: what is asked for, and why it is refused


@pytest.fixture
def kernelspec(kernelspec_directory: Path, memory: MemoryEngine) -> Callable[..., str]:
    """Writes a kernelspec whose kernels run in memory."""

    def write(name: str = "a-kernel", **settings: Any) -> str:
        settings = {"image": IMAGE, "pool_size": 1, **settings}
        stanza = {"provisioner_name": "container-kernels", "config": settings}
        content = {
            "argv": ["x"],
            "display_name": name,
            "language": "python",
            "metadata": {"kernel_provisioner": stanza},
        }
        (kernelspec_directory / name).mkdir(parents=True)
        (kernelspec_directory / name / "kernel.json").write_text(json.dumps(content))
        return name

    return write


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The exit status of a fill, and its one error."""

    def run(*words: str) -> tuple[int, str]:
        status = main(["pool", "fill", *words])
        error = capsys.readouterr().err
        assert error.count("Error: ") == 1
        return status, error

    return run


def test_fill_where_nothing_is_wanted(answer: Answer, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("pool", "fill") == (0, [])
    assert main(["pool", "fill"]) == 0
    assert "Name one by --kernel." in capsys.readouterr().out
    assert memory.asked == []


def test_fill_needs_a_kernelspec_of_ours(
    kernelspec: Callable[..., str], refused: Callable[..., tuple[int, str]]
) -> None:
    kernelspec()
    status, error = refused("--kernel", "another")
    assert status == SpecError.exit_code
    assert "'another'" in error


def test_fill_needs_a_pool_size(
    kernelspec: Callable[..., str], refused: Callable[..., tuple[int, str]], ledger: Ledger
) -> None:
    status, error = refused("--kernel", kernelspec(pool_size=0))
    assert status == SpecError.exit_code
    assert "pool_size is 0" in error
    assert '"pool_size": 1' in error
    assert ledger.wanted() == []


def test_fill_needs_a_directory_that_can_be_mounted(
    kernelspec: Callable[..., str], refused: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    name = kernelspec()
    assert "does not exist" in refused("--kernel", name, "--directory", str(tmp_path / "nowhere"))[1]
    assert "may not be mounted" in refused("--kernel", name, "--directory", "/")[1]
    assert "Add --kernel" in refused("--directory", str(tmp_path))[1]


def test_fill_tells_that_an_image_is_missing(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    notebook_directory: Path,
) -> None:
    status, error = refused("--kernel", kernelspec(image="container-kernels/rare"))
    assert status == ImageError.exit_code
    assert "memory has no image 'container-kernels/rare'" in error
    assert "jupyter container-kernels build rare --engine memory" in error


def test_fill_tells_that_the_budget_is_used_up(
    kernelspec: Callable[..., str], refused: Callable[..., tuple[int, str]], notebook_directory: Path
) -> None:
    status, error = refused("--kernel", kernelspec(pool_memory_budget="40m"))
    assert status == 1
    assert "pool_memory_budget leaves no room: containers use 0 bytes of 40 MiB" in error
    assert "about 64 MiB" in error


def test_fill_tells_that_memory_is_short(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    notebook_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = SimpleNamespace(total=64 << 30, available=RESERVE + (10 << 20))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    status, error = refused("--kernel", kernelspec())
    assert status == 1
    assert "too little memory: 522 MiB are free, of which 512 MiB are to stay free" in error


def test_fill_tells_what_the_engine_says_and_status_remembers_it(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    notebook_directory: Path,
    memory: MemoryEngine,
    answer: Answer,
) -> None:
    memory.fail("run", EngineError("The disk is full."))
    status, error = refused("--kernel", kernelspec())
    assert (status, error) == (EngineError.exit_code, "Error: The disk is full.\n")
    assert answer("pool", "status")[1]["recipes"][0]["failure"]["message"] == "The disk is full."


def test_fill_goes_on_with_the_others(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    notebook_directory: Path,
    memory: MemoryEngine,
) -> None:
    memory.fail("run", EngineError("The disk is full."))
    memory.fail("run", EngineError("It is broken."))
    words = ("--kernel", kernelspec("one"), "--kernel", kernelspec("two", cpus=0.5))
    assert refused(*words) == (EngineError.exit_code, "Error: The disk is full.\n")
    assert [verb for verb, _ in memory.asked].count("run") == 2


def test_fill_takes_up_what_is_remembered(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    notebook_directory: Path,
    memory: MemoryEngine,
) -> None:
    name = kernelspec(image="container-kernels/rare")
    assert refused("--kernel", name) == refused() == refused("--engine", "memory")


def test_only_so_many_kinds_are_kept_warm(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    ledger: Ledger,
    notebook_directory: Path,
    memory: MemoryEngine,
) -> None:
    names = [kernelspec(f"kernel-{number}", cpus=1 + number / 10) for number in range(RECENT + 1)]
    for _ in names:
        memory.fail("run", EngineError("It is broken."))
    words = [word for name in names for word in ("--kernel", name)]
    status, error = refused(*words)
    assert status == 1
    assert f"Of memory, {RECENT} kinds of containers are kept warm" in error


def test_an_engine_that_is_chosen_by_a_variable_is_not_taken_for_another(
    kernelspec: Callable[..., str],
    refused: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    memory: MemoryEngine,
) -> None:
    other = MemoryEngine()
    other.name = "other"
    monkeypatch.setitem(engines.ENGINES, "other", other)
    monkeypatch.setenv("CONTAINER_KERNELS_ENGINE", "other")
    status, error = refused("--kernel", kernelspec(), "--engine", "memory")
    assert status == SpecError.exit_code
    assert "CONTAINER_KERNELS_ENGINE is stronger" in error


async def test_a_wish_is_what_a_start_will_look_for(ledger: Ledger, memory: MemoryEngine, tmp_path: Path) -> None:
    settings = {"image": IMAGE, "pool_size": 2, "pool_ttl": 100}
    one = await wish(ledger, settings, {}, cwd=str(tmp_path), root=None, encrypts=False)
    assert one is not None
    assert (one.size, one.ttl, one.image_id) == (2, 100, "")
    ledger.want(replace(one, image_id="sha256:2f", last_used=0))
    again = await wish(ledger, settings, {}, cwd=str(tmp_path), root=None, encrypts=False)
    assert again is not None
    assert (again.key, again.image_id) == (one.key, "sha256:2f")
    assert ledger.wanted() == [again]
    assert time.time() - again.last_used < 60
    (tmp_path / "sub").mkdir()
    in_server = await wish(ledger, settings, {}, cwd=str(tmp_path / "sub"), root=str(tmp_path), encrypts=False)
    assert in_server is not None
    assert in_server.key == one.key  # the server's root is mounted, wherever in it the notebook is
    assert await wish(ledger, {**settings, "pool_size": 0}, {}, cwd=str(tmp_path), root=None, encrypts=False) is None


async def test_who_fills_is_waited_for_but_not_for_ever(ledger: Ledger, memory: MemoryEngine, tmp_path: Path) -> None:
    some = await wish(ledger, {"image": IMAGE, "pool_size": 1}, {}, cwd=str(tmp_path), root=None, encrypts=False)
    assert some is not None
    told: list[str] = []
    with ledger.lock("memory"), pytest.raises(ContainerKernelError, match="Another process has been filling"):
        await fill_now(
            ledger, some, os.environ, None, logging.getLogger(), lambda _, doing: told.append(doing), patience=0.3
        )
    assert told == ["Waiting for another process, which fills the pool"]


async def test_fill_gives_up_where_containers_are_given_up_as_fast_as_they_are_made(
    ledger: Ledger, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one takes more than was thought: it is made, found too large, and removed."""
    some = wanted(recipe())
    ledger.want(some)
    rounds = 0

    async def look(filler: Filler) -> Snapshot:
        return Snapshot((some,), (), {}, {some.key: IMAGE_ID}, 8 << 30, 0, 100 << 20, busy=False)

    async def do(filler: Filler, snapshot: Snapshot) -> bool:
        nonlocal rounds
        rounds += 1
        return True

    monkeypatch.setattr(Filler, "look", look)
    monkeypatch.setattr(Filler, "do", do)
    with pytest.raises(ContainerKernelError, match="pool_memory_budget leaves no room"):
        await fill_now(ledger, some, os.environ, 100 << 20, logging.getLogger(), lambda _, doing: None)
    assert rounds < 20


# -- On real engines


@pytest.fixture
def pool(engine: EngineUnderTest, notebook_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A pool of one, which is drained afterwards; no helper fills it."""
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "1")
    ledger = Ledger.of_this_user()
    yield ledger
    assert main(["pool", "drain"]) == 0


@pytest.fixture
def no_helper(pool: Ledger) -> Iterator[None]:
    """Who starts a kernel finds a keeper, and leaves the filling to it."""
    with pool.lock(keeper_lock(config.host_environment())):
        yield
        assert eventually(lambda: not timers(), bool, timeout=20)


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_fill_status_and_drain(
    pool: Ledger, engine: EngineUnderTest, notebook_directory: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (filled,) = answer("pool", "fill", "--kernel", "container-python")
    name = engine.the_container()
    assert status == 0
    assert (filled["engine"], filled["image"]) == (engine.name, "container-kernels/python")
    assert (filled["warm"], filled["wanted"], filled["directories"]) == (1, 1, [str(notebook_directory)])
    assert [each["name"] for each in filled["slots"]] == [name]
    assert 10 << 20 < filled["memory"] < 200 << 20
    assert answer("pool", "status")[1]["recipes"][0]["key"] == filled["key"]

    assert main(["pool", "fill"]) == 0
    said = f"{engine.name} container-kernels/python for {notebook_directory}: 1 of 1 warm.\n"
    assert capsys.readouterr().out == said
    assert engine.the_container() == name  # it was warm already

    (row,) = (row for row in answer("ps", "--engine", engine.name)[1] if row["name"] == name)
    assert (row["warm"], row["kernel_id"]) == (True, "")
    assert main(["gc", "--engine", engine.name]) == 0
    assert engine.the_container() == name

    capsys.readouterr()
    assert main(["pool", "drain", "--engine", engine.name]) == 0
    assert capsys.readouterr().out == f"Removed {name} ({engine.name}).\n"
    assert engine.containers() == []
    assert answer("pool", "status")[1]["recipes"] == []


async def test_a_kernel_takes_what_was_filled_for_its_directory(
    pool: Ledger,
    no_helper: None,
    engine: EngineUnderTest,
    start_kernel: Callable[..., Any],
    tmp_path: Path,
    answer: Answer,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ("--kernel", "container-python", "--directory", str(elsewhere), "--engine", engine.name)
    status, _ = await asyncio.to_thread(answer, "pool", "fill", *words)
    assert status == 0
    name = engine.the_container()
    kernel = await start_kernel(cwd=str(elsewhere))
    assert kernel.provisioner.is_warm
    assert await kernel.run("import os; print(os.getcwd())") == str(elsewhere)
    kernel_id = kernel.manager.kernel_id
    _, rows = await asyncio.to_thread(answer, "ps", "--engine", engine.name)
    (row,) = (row for row in rows if row["name"] == name)
    assert (row["warm"], row["kernel_id"]) == (False, kernel_id)
    _, found = await asyncio.to_thread(answer, "pool", "status")
    assert (found["recipes"][0]["hits"], found["recipes"][0]["warm"]) == (1, 0)
    assert await asyncio.to_thread(main, ["pool", "drain"]) == 0
    assert await kernel.run("print(1)") == "1"  # drained is what is warm
    assert await asyncio.to_thread(main, ["stop", kernel_id, "--engine", engine.name]) == 0
    assert engine.containers() == []
    assert pool.claims() == []


def test_what_is_warm_already_is_found_again_after_it_was_forgotten(
    pool: Ledger, engine: EngineUnderTest, answer: Answer
) -> None:
    _, (filled,) = answer("pool", "fill", "--kernel", "container-python")
    name = engine.the_container()
    pool.forget(filled["key"])
    status, (again,) = answer("pool", "fill", "--kernel", "container-python")
    assert (status, again["warm"], engine.the_container()) == (0, 1, name)


def test_a_smaller_pool_size_removes_what_is_too_much(
    pool: Ledger, engine: EngineUnderTest, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "2")
    _, (filled,) = answer("pool", "fill", "--kernel", "container-python")
    assert (filled["warm"], len(engine.containers())) == (2, 2)
    monkeypatch.setenv("CONTAINER_KERNELS_POOL_SIZE", "1")
    _, (filled,) = answer("pool", "fill", "--kernel", "container-python")
    assert (filled["warm"], len(engine.containers())) == (1, 1)


def test_fill_waits_for_its_turn(pool: Ledger, engine: EngineUnderTest) -> None:
    words = [SCRIPT, "pool", "fill", "--kernel", "container-python"]
    with pool.lock(engine.name):
        filling = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert eventually(pool.wanted, bool, timeout=30)
        assert filling.poll() is None
        assert engine.containers() == []
    printed, _ = filling.communicate(timeout=60)
    assert filling.returncode == 0
    assert "1 of 1 warm" in printed


def test_a_terminal_shows_how_far_it_is(pool: Ledger, engine: EngineUnderTest) -> None:
    terminal, theirs = pty.openpty()
    words = [SCRIPT, "pool", "fill", "--kernel", "container-python"]
    environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    filling = subprocess.Popen(words, stdout=theirs, env=environment)
    os.close(theirs)
    shown = read_all(terminal)
    assert filling.wait(timeout=60) == 0
    assert "0/1" in shown
    assert "Making a warm container" in shown
    assert "1 of 1 warm" in shown


def read_all(terminal: int) -> str:
    shown = b""
    deadline = time.monotonic() + 60
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            read = os.read(terminal, 10_000)
        except OSError:  # Linux: nobody has the other side any more
            break
        if not read:
            break
        shown += read
    os.close(terminal)
    return shown.decode()


class Keeping:
    """`pool keep` as a subprocess, line by line."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([SCRIPT, "pool", "keep"], stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def says(self, text: str) -> bool:
        return bool(eventually(lambda: any(text in line for line in self.lines), bool, timeout=30))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def keep(pool: Ledger) -> Iterator[Callable[[], Keeping]]:
    started: list[Keeping] = []

    def start() -> Keeping:
        started.append(Keeping())
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


async def test_keep_fills_and_ends_when_it_is_told(
    pool: Ledger, engine: EngineUnderTest, keep: Callable[[], Keeping], notebook_directory: Path
) -> None:
    first = keep()
    assert await asyncio.to_thread(first.says, "Keeping the pool.")
    read = config.read_spec({"image": "container-kernels/python"}, {})
    assert read.pool_size == 1
    settings = {"image": "container-kernels/python"}
    wanted = await wish(pool, settings, {}, cwd=str(notebook_directory), root=None, encrypts=asking.encrypts())
    assert wanted is not None
    assert await asyncio.to_thread(first.says, "is warm.")
    assert len(pool.slots()) == 1

    second = keep()
    assert await asyncio.to_thread(second.says, "Another process keeps the pool")
    assert await asyncio.to_thread(first.end, signal.SIGTERM) == 0
    assert await eventually_async(lambda: is_kept(pool), bool, timeout=30)
    assert await asyncio.to_thread(second.end, signal.SIGINT) == 130
    assert not is_kept(pool)
    assert len(engine.containers()) == 1  # what is warm stays so


def is_kept(ledger: Ledger) -> bool:
    with ledger.lock(keeper_lock(config.host_environment())) as nobody:
        return not nobody


def test_keep_ends_when_nobody_reads_it(pool: Ledger) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [SCRIPT, "pool", "keep"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
