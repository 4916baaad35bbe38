"""Signals to a command in the foreground: what they do depends on the release, and on whether anything is attached yet."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from ..conftest import eventually
from .conftest import IMAGE, OBEDIENT, listed, obedient
from .stand_in.faults import StandIn

pytestmark = pytest.mark.xdist_group("docker")
SINCE_1_0 = pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.2.2"])


def attached(stand_in: StandIn, *command: str) -> subprocess.Popen[str]:
    """A container in the foreground that says that it is ready."""
    process = stand_in.start(
        "run", "--progress", "none", "--name", "ab", IMAGE, *(command or ("python3", "-c", OBEDIENT))
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("version", ["0.12.3"])
def test_before_1_0_the_container_gets_them(stand_in: StandIn) -> None:
    process = attached(stand_in)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 3
    assert listed(stand_in) == {}


@SINCE_1_0
def test_since_1_0_nobody_does(stand_in: StandIn) -> None:
    """Nor do they end the command; the third one does, and the container runs on."""
    process = attached(stand_in)
    assert process.stderr is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        assert "missing signal in xpc message" in process.stderr.readline()
    assert process.poll() is None
    assert list(listed(stand_in)) == ["ab"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1
    assert list(listed(stand_in)) == ["ab"]


@pytest.mark.parametrize("version", ["0.12.3", "1.2.2"])
def test_who_kills_the_command_does_not_stop_the_container(stand_in: StandIn) -> None:
    process = attached(stand_in)
    process.kill()
    assert process.communicate(timeout=20)[0] == "", "its streams end with it"
    assert list(listed(stand_in)) == ["ab"]


def test_hangup_ends_the_command_only(stand_in: StandIn) -> None:
    process = attached(stand_in)
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == -signal.SIGHUP
    assert list(listed(stand_in)) == ["ab"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_anything_is_attached_they_end_the_command_by_its_own_exit(
    make_stand_in: Callable[..., StandIn], number: signal.Signals
) -> None:
    """The boot goes on, and what it leaves is there, and not started."""
    stand_in = make_stand_in(boot=1)
    process = stand_in.start("run", "--progress", "none", "--name", "ab", IMAGE, "sleep", "1000")
    eventually(lambda: stand_in.log, bool)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    ((name, _, end),) = stand_in.log
    assert (name, end) == ("ab", float("inf"))
    eventually(lambda: stand_in.log[0][2], lambda end: end < float("inf"))
    assert listed(stand_in) == {}
    assert list(listed(stand_in, "-a")) == ["ab"]
    assert stand_in.underneath() == []


@SINCE_1_0
def test_a_process_of_exec_is_not_ended_either(stand_in: StandIn) -> None:
    obedient(stand_in, "ab")
    process = stand_in.start("exec", "ab", "sh", "-c", "echo ready; sleep 1000")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert "missing signal" in process.stderr.readline()
    assert process.poll() is None


def test_interrupting_goes_by_kill(stand_in: StandIn) -> None:
    interrupted = (
        "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "print('ready', flush=True)\nwhile True: signal.pause()\n"
    )
    process = attached(stand_in, "python3", "-c", interrupted)
    assert stand_in.run("kill", "-s", "INT", "ab").stdout == "ab\n"
    assert process.stdout is not None
    assert process.stdout.readline() == "interrupted\n"
    assert stand_in.run("kill", "ab").stdout == "ab\n"
    assert process.wait(20) == 137
