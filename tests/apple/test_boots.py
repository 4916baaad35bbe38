"""One boot at a time: what waits for it, and what does not."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from ..conftest import eventually
from .conftest import IMAGE, fails, listed, ok
from .stand_in.faults import StandIn

pytestmark = pytest.mark.xdist_group("docker")
NEVER = float("inf")


@pytest.fixture
def stand_in(make_stand_in: Callable[..., StandIn]) -> StandIn:
    """With `ab`, made before, and `cd`, which boots slowly."""
    stand_in = make_stand_in(boot=0)
    for name in ("ab", "cd"):
        ok(stand_in, "create", "--name", name, IMAGE, "sleep", "1000")
    return stand_in


def booting(stand_in: StandIn, takes: float = 2) -> Callable[[], None]:
    """`cd` boots until what is returned is called; while its boot goes on, the log has no end of it."""
    stand_in.boot = takes
    starting = stand_in.start("start", "cd")
    eventually(lambda: stand_in.log, lambda log: log and log[-1][0] == "cd")

    def end() -> None:
        assert starting.wait(30) == 0

    return end


def test_boots_do_not_overlap(make_stand_in: Callable[..., StandIn]) -> None:
    stand_in = make_stand_in(boot=0.2)
    started = [stand_in.start("run", "-d", "--name", f"a{index}", IMAGE, "sleep", "1000") for index in range(4)]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]
    assert sorted(name for name, _, _ in stand_in.log) == ["a0", "a1", "a2", "a3"]
    boots = sorted(stand_in.log, key=lambda boot: boot[1])
    assert all(end - begin >= 0.2 for _, begin, end in boots)
    assert all(former[2] <= latter[1] for former, latter in itertools.pairwise(boots))


def test_questions_do_not_wait(stand_in: StandIn) -> None:
    ok(stand_in, "start", "ab")
    booting(stand_in, takes=1000)
    assert list(listed(stand_in)) == ["ab"]
    ok(stand_in, "inspect", "cd")
    ok(stand_in, "logs", "ab")
    ok(stand_in, "stats", "--format", "json", "ab")
    assert stand_in.log[-1][2] == NEVER


@pytest.mark.parametrize(
    "words",
    [("delete", "ab"), ("create", "--name", "ef", IMAGE, "true"), ("run", "-d", "--name", "ef", IMAGE, "true")],
    ids=lambda words: words[0],
)
def test_what_changes_something_waits(stand_in: StandIn, words: tuple[str, ...]) -> None:
    end = booting(stand_in)
    ok(stand_in, *words)
    assert stand_in.log[0][2] < NEVER
    end()


def test_exec_waits(stand_in: StandIn) -> None:
    ok(stand_in, "start", "ab")
    end = booting(stand_in)
    ok(stand_in, "exec", "ab", "true")
    assert stand_in.log[-1][2] < NEVER
    end()


def test_an_end_is_noticed_after_the_boot(stand_in: StandIn) -> None:
    ok(stand_in, "start", "ab")
    end = booting(stand_in)
    stopping = stand_in.start("stop", "-t", "0", "ab")
    eventually(lambda: stand_in.running("ab"), lambda runs: not runs)
    assert stopping.wait(30) == 0
    assert stand_in.log[-1][2] < NEVER
    end()


def test_of_two_that_want_a_name_one_gets_it(make_stand_in: Callable[..., StandIn]) -> None:
    stand_in = make_stand_in()
    done: list[int] = []
    words = ("create", "--name", "ab", IMAGE, "true")
    threads = [threading.Thread(target=lambda: done.append(stand_in.run(*words).returncode)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 1, 1]
    assert "already exists" in fails(stand_in, *words)
