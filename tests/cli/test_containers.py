"""`ps`, `logs`, `stop` and `gc`: what they decide on an engine in memory, and that they do it on real ones."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from container_kernels import engines
from container_kernels.cli import main
from container_kernels.cli.output import age
from container_kernels.engines.memory import Clock, MemoryEngine
from container_kernels.engines.protocol import LABEL, ContainerRequest, Usage
from container_kernels.errors import EngineError
from container_kernels.inventory import Container, containers, find, measured

from ..conftest import EngineUnderTest, RunningKernel
from .conftest import DEAD_OWNER

Add = Callable[..., str]
Answer = Callable[..., tuple[int, Any]]
KERNEL = "0d6f7c1e-1111-4222-8333-444455556666"
OTHER = "0d6f9999-1111-4222-8333-444455556666"


# -- ps


def test_ps_tells_all_of_a_container(add_container: Add, answer: Answer) -> None:
    add_container("container-kernels-a", KERNEL)
    status, (row,) = answer("ps")
    assert status == 0
    assert row["kernel_id"] == KERNEL
    assert (row["name"], row["engine"], row["image"]) == ("container-kernels-a", "memory", "an/image")
    assert row["isolation"] == "container"
    assert row["running"] is True
    assert row["memory_limit"] == 1 << 30


def test_ps_for_people(add_container: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add_container("container-kernels-a", KERNEL)
    assert main(["ps"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["KERNEL", "ENGINE", "ISOLATION", "IMAGE", "AGE", "STATUS", "CPU", "MEMORY", "PIDS"]
    assert row.split()[:4] == [KERNEL[:12], "memory", "container", "an/image"]
    assert "of 1 GiB" in row


def test_ps_where_there_is_none(memory: MemoryEngine, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("ps") == (0, [])
    assert main(["ps"]) == 0
    assert capsys.readouterr().out == "No kernel runs in a container.\n"


def test_ps_is_not_kept_by_an_engine_that_does_not_work(
    add_container: Add, answer: Answer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = MemoryEngine(clock=Clock())
    broken.stopped = "it is switched off"
    monkeypatch.setitem(engines.ENGINES, "broken", broken)
    add_container("container-kernels-a", KERNEL)
    assert [row["kernel_id"] for row in answer("ps")[1]] == [KERNEL]
    assert main(["ps", "--engine", "broken"]) != 0
    assert "it is switched off" in capsys.readouterr().err


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed goes to a terminal, as far as rich looks."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")


def test_ps_shows_at_once_what_is_known(
    terminal: None,
    add_container: Add,
    memory: MemoryEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_container("container-kernels-a", KERNEL)
    before = ""
    usage = memory.usage

    async def slow_usage() -> Sequence[Usage]:
        nonlocal before
        before = capsys.readouterr().out
        return await usage()

    monkeypatch.setattr(memory, "usage", slow_usage)
    assert main(["ps"]) == 0
    assert KERNEL[:12] in before
    assert "GiB" not in before
    after = capsys.readouterr().out
    assert KERNEL[:12] in after
    assert "of 1 GiB" in after


def test_ps_leaves_its_table_where_usage_fails(
    terminal: None, add_container: Add, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    add_container("container-kernels-a", KERNEL)
    memory.fail("usage", EngineError("It is stuck."))
    assert main(["ps"]) == EngineError.exit_code
    printed = capsys.readouterr()
    assert KERNEL[:12] in printed.out
    assert "It is stuck." in printed.err


def test_ps_does_not_measure_unless_it_is_to(
    add_container: Add, memory: MemoryEngine, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    add_container("container-kernels-a", KERNEL)
    _, (row,) = answer("ps", "--no-usage")
    assert (row["memory"], row["pids"]) == (None, None)
    assert main(["ps", "--no-usage"]) == 0
    assert "GiB" not in capsys.readouterr().out
    assert "usage" not in [verb for verb, _ in memory.asked]


async def test_usage_comes_engine_by_engine(
    add_container: Add, memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = asyncio.to_thread
    await add(add_container, "container-kernels-a", KERNEL)
    slow = MemoryEngine(clock=Clock())
    slow.name = "slow"
    found = await containers()
    (state,) = await memory.list()
    both = [*found, Container(slow, replace(state, name="container-kernels-b"))]
    looks = [[each.usage is not None for each in look] async for look in measured(both)]
    assert len(looks) == 2
    assert looks[-1] == [True, False]  # the other engine knows no such container


@pytest.fixture
def stronger(memory: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """An engine of more preference, whose containers have virtual machines; it does not work."""
    engine = MemoryEngine(isolation="vm")
    engine.stopped = "it is switched off"
    monkeypatch.delitem(engines.ENGINES, "memory")
    monkeypatch.setitem(engines.ENGINES, "stronger", engine)
    monkeypatch.setitem(engines.ENGINES, "memory", memory)
    return engine


def test_ps_says_what_keeps_kernels_from_a_stronger_isolation(
    stronger: MemoryEngine, add_container: Add, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ps"]) == 0
    assert capsys.readouterr().err == ""  # there is none
    add_container("container-kernels-a", KERNEL)
    assert main(["ps"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "No kernel here has a virtual machine of its own: memory: does not work."


def test_ps_says_nothing_of_it_where_this_machine_could_have_no_other(
    stronger: MemoryEngine, add_container: Add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stronger, "unsuited", lambda: "It needs a helicopter.")
    add_container("container-kernels-a", KERNEL)
    asked = len(stronger.asked)
    assert main(["ps", "--engine", "memory"]) == 0
    assert capsys.readouterr().err == ""
    assert len(stronger.asked) == asked


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-2, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (12_030, "3 h 20 min"), (190_000, "2 d 4 h")],
)
def test_ages(seconds: float, said: str) -> None:
    assert age(seconds) == said


# -- Which one is meant


@pytest.mark.parametrize("text", [KERNEL, KERNEL[:6], "container-kernels-abc", "container-kernels-ab", "ab"])
def test_a_container_is_found(add_container: Add, text: str) -> None:
    add_container("container-kernels-abc", KERNEL)
    add_container("container-kernels-xyz", OTHER)
    assert find(asyncio.run(containers()), text).name == "container-kernels-abc"


def test_a_whole_name_is_not_taken_for_the_beginning_of_another(add_container: Add) -> None:
    add_container("container-kernels-abc", "one")
    add_container("container-kernels-abcd", "one-more")
    assert find(asyncio.run(containers()), "container-kernels-abc").kernel_id == "one"
    assert find(asyncio.run(containers()), "one").name == "container-kernels-abc"


@pytest.mark.parametrize(
    ("text", "said"), [("0d6f", "fits 2 containers"), ("nothing", "There is no"), ("", "There is no")]
)
def test_what_is_not_one_container_is_an_error(
    add_container: Add, memory: MemoryEngine, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    add_container("container-kernels-abc", KERNEL)
    add_container("container-kernels-xyz", OTHER)
    for command in ("logs", "stop"):
        assert main([command, text]) == 1
        assert said in capsys.readouterr().err
    assert len(memory.containers) == 2


# -- logs


def test_logs(add_container: Add, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]) -> None:
    name = add_container("container-kernels-a", KERNEL)
    memory.write(name, "first", "second", "third")
    assert main(["logs", KERNEL, "--tail", "2"]) == 0
    assert capsys.readouterr().out == "second\nthird\n"


def test_logs_need_a_number_of_lines(add_container: Add, capsys: pytest.CaptureFixture[str]) -> None:
    add_container("container-kernels-a", KERNEL)
    assert main(["logs", KERNEL, "--tail", "-1"]) == 2
    assert "--tail -1" in capsys.readouterr().err


# -- stop


def test_stop(add_container: Add, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kernel in (
        ("container-kernels-a", "one"),
        ("container-kernels-b", "two"),
        ("container-kernels-c", "three"),
    ):
        add_container(name, kernel)
    assert main(["stop", "one", "container-kernels-b"]) == 0
    assert list(memory.containers) == ["container-kernels-c"]
    assert capsys.readouterr().out.splitlines() == [
        "Removed container-kernels-a (kernel one, memory).",
        "Removed container-kernels-b (kernel two, memory).",
    ]


def test_stop_removes_nothing_where_a_name_is_wrong(add_container: Add, memory: MemoryEngine) -> None:
    add_container("container-kernels-a", "one")
    assert main(["stop", "one", "nothing"]) == 1
    assert list(memory.containers) == ["container-kernels-a"]


def test_an_empty_name_is_none(add_container: Add, memory: MemoryEngine) -> None:
    """Also where a container is no kernel's, such as one that a command is run in."""
    add_container("container-kernels-a", "")
    assert main(["stop", ""]) == 1
    assert list(memory.containers) == ["container-kernels-a"]


def test_a_container_named_twice_is_stopped_once(
    add_container: Add, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    add_container("container-kernels-a", "one")
    assert main(["stop", "one", "container-kernels-a"]) == 0
    assert capsys.readouterr().out.count("Removed") == 1


def test_stop_tells_what_it_could_not_remove(
    add_container: Add, memory: MemoryEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    add_container("container-kernels-a", "one")
    add_container("container-kernels-b", "two")
    memory.fail("remove", EngineError("It is stuck."))
    assert main(["stop", "one", "two"]) == EngineError.exit_code
    printed = capsys.readouterr()
    assert printed.err == "Error: It is stuck.\n"
    assert printed.out.count("Removed") == 1


# -- gc


@pytest.fixture
def one_orphan(add_container: Add) -> str:
    """An orphan's name; other containers belong to this process, to another host, and to nobody knows whom."""
    add_container("container-kernels-ours", "ours")
    add_container("container-kernels-far", "far", owner="1:0:another-host")
    add_container("container-kernels-odd", "odd", owner="")
    return add_container("container-kernels-orphan", "orphan", owner=DEAD_OWNER)


def test_gc_removes_what_is_orphaned_and_nothing_else(one_orphan: str, memory: MemoryEngine, answer: Answer) -> None:
    status, (removed,) = answer("gc")
    assert status == 0
    assert removed == {
        "kernel_id": "orphan", "name": one_orphan, "engine": "memory", "removed": True, "error": None
    }  # fmt: skip
    assert sorted(memory.containers) == ["container-kernels-far", "container-kernels-odd", "container-kernels-ours"]


def test_gc_says_what_it_removes(one_orphan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == f"Removed {one_orphan} (kernel orphan, memory)\n"
    assert main(["gc"]) == 0
    assert capsys.readouterr().out == "No container was left behind.\n"


def test_gc_dry_run(one_orphan: str, memory: MemoryEngine, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    status, (named,) = answer("gc", "--dry-run")
    assert (status, named["name"], named["removed"]) == (0, one_orphan, False)
    assert main(["gc", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("Would remove ")
    assert one_orphan in memory.containers


def test_gc_goes_on_where_one_cannot_be_removed(
    one_orphan: str, add_container: Add, memory: MemoryEngine, answer: Answer
) -> None:
    add_container("container-kernels-stuck", "stuck", owner=DEAD_OWNER)
    memory.fail("remove", EngineError("It is stuck."))
    status, outcomes = answer("gc")
    assert status == EngineError.exit_code
    assert sorted(outcome["removed"] for outcome in outcomes) == [False, True]
    assert {outcome["error"] for outcome in outcomes} == {None, "It is stuck."}


# -- On real engines


@pytest.mark.apple
async def test_a_real_kernel_is_listed_read_and_stopped(
    kernel: RunningKernel, engine: EngineUnderTest, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    await kernel.run("import os; os.write(2, b'from the' + b' kernel\\n'); None")
    kernel_id = str(kernel.manager.kernel_id)
    status, rows = await asyncio.to_thread(answer, "ps", "--engine", engine.name)
    (row,) = (row for row in rows if row["kernel_id"] == kernel_id)
    assert status == 0
    assert (row["name"], row["running"]) == (engine.the_container(), True)
    assert 10 << 20 < row["memory"] < row["memory_limit"]
    assert row["memory_limit"] == pytest.approx(2 << 30, rel=0.01)
    assert row["pids"] > 1
    assert await asyncio.to_thread(main, ["logs", kernel_id, "--engine", engine.name]) == 0
    assert "from the kernel" in capsys.readouterr().out.replace("from the' + b", "")
    assert await asyncio.to_thread(main, ["stop", kernel_id, "--engine", engine.name]) == 0
    assert engine.containers() == []


@pytest.mark.apple
def test_a_real_orphan_is_removed_and_what_is_ours_stays(engine: EngineUnderTest) -> None:
    """Other processes may collect at the same time: so what is left counts, not who removed it."""
    label, value = engine.label.split("=")

    async def start(owner: str) -> str:
        name = f"container-kernels-test-{uuid.uuid4().hex[:12]}"
        request = ContainerRequest(
            name=name, image="container-kernels/python", command=("sleep", "120"), cpus=1, memory=256 << 20, pids=20,
            labels={LABEL: "test", label: value, f"{LABEL}.owner": owner},
        )  # fmt: skip
        await engines.ENGINES[engine.name].run(request)
        return name

    asyncio.run(start(DEAD_OWNER))
    ours = asyncio.run(start("1:0:another-host"))
    assert main(["gc", "--engine", engine.name]) == 0
    assert engine.containers() == [ours]
    assert main(["stop", ours, "--engine", engine.name]) == 0
