"""Each fault does what it says, and is gone when it is cleared."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable

import pytest

from ..conftest import eventually
from .conftest import ECHO, IMAGE, answer, fails, free_port, listed, obedient, ok, state
from .stand_in.faults import StandIn
from .stand_in.under import HOST, OTHER

pytestmark = pytest.mark.xdist_group("docker")
DOWN = (
    'internalError: "failed to list containers" (cause: "interrupted: "XPC connection error: Connection invalid"")\n'
    "Ensure container system service has been started with `container system start`."
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_hangs(stand_in: StandIn, number: signal.Signals) -> None:
    stand_in.fault(hang=["list"])
    hanging = stand_in.start("list")
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.wait(0.5)
    hanging.send_signal(number)
    assert hanging.wait(20) == 128 + number, "by its own exit"
    ok(stand_in, "system", "status")
    stand_in.clear()
    ok(stand_in, "list")


def test_a_command_that_hangs_and_is_deaf(stand_in: StandIn) -> None:
    stand_in.fault(hang=["image inspect"], deaf=["image inspect"])
    hanging = stand_in.start("image", "inspect", IMAGE)
    eventually(lambda: _handles(hanging.pid, signal.SIGTERM), bool)
    hanging.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.wait(0.5)
    hanging.kill()
    assert hanging.wait(20) == -signal.SIGKILL


def _handles(process: int, number: signal.Signals) -> bool:
    """The process ignores it."""
    with open(f"/proc/{process}/status") as file:
        (line,) = [line for line in file if line.startswith("SigIgn:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_a_command_that_hangs_when_all_is_done(stand_in: StandIn) -> None:
    stand_in.fault(hang_after=["create"])
    hanging = stand_in.start("create", "--name", "ab", IMAGE, "true")
    eventually(stand_in.containers, bool)
    hanging.send_signal(signal.SIGTERM)
    assert hanging.wait(20) == 143


def test_no_service(stand_in: StandIn) -> None:
    stand_in.fault(service="down")
    for words in (("list",), ("run", "-d", IMAGE, "true"), ("inspect", "ab"), ("image", "inspect", IMAGE)):
        assert fails(stand_in, *words) == DOWN
    done = stand_in.run("system", "status")
    assert (done.returncode, "not running" in done.stdout) == (1, True)
    assert ok(stand_in, "--version").startswith("container CLI version")
    assert fails(stand_in, "run", "--unheard-of", status=64).startswith("Unknown option")
    ok(stand_in, "system", "start")
    ok(stand_in, "system", "status")
    ok(stand_in, "list")


def test_a_service_that_never_comes_up(stand_in: StandIn) -> None:
    stand_in.fault(service="broken")
    assert stand_in.run("system", "start").returncode == 1
    assert stand_in.run("system", "status").returncode == 1


@pytest.mark.parametrize(("version", "quiet"), [("1.1.0", False), ("1.2.2", True)])
def test_a_start_says_what_it_does_on_another_stream(stand_in: StandIn, quiet: bool) -> None:
    done = stand_in.run("system", "start", "--enable-kernel-install")
    assert (done.returncode, done.stdout == "") == (0, quiet)


def test_no_kernel(stand_in: StandIn) -> None:
    """Asked about at the start, unless a flag has answered."""
    stand_in.fault(kernel="missing")
    said = fails(stand_in, "run", "-d", IMAGE, "true")
    hint = "please use the `container system kernel set` command to configure it"
    assert said == f"default kernel not configured for architecture {HOST}, {hint}"
    done = stand_in.run("system", "start")
    assert (done.returncode, done.stdout.endswith("? [Y/n]: ")) == (1, True)
    assert "failed to read user input" in done.stderr
    ok(stand_in, "system", "start", "--disable-kernel-install")
    assert stand_in.run("system", "start", input="n\n").returncode == 0
    assert fails(stand_in, "create", IMAGE, "true") == said
    ok(stand_in, "system", "start", "--enable-kernel-install")
    ok(stand_in, "create", IMAGE, "true")
    stand_in.fault(kernel="missing")
    ok(stand_in, "system", "start", input="y\n")
    ok(stand_in, "create", IMAGE, "true")


def test_the_service_dies_in_a_run(stand_in: StandIn) -> None:
    """What ran runs on, and is shown as stopped: a stop does nothing, and only delete ends it."""
    stand_in.fault(dies_in="run")
    said = fails(stand_in, "run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    assert "XPC connection error: Connection interrupted" in said
    assert stand_in.running("ab")
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"
    ok(stand_in, "stop", "ab")
    assert stand_in.running("ab")
    ok(stand_in, "delete", "ab")
    assert stand_in.underneath() == []
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    assert list(listed(stand_in)) == ["ab"]


def test_a_ghost_that_ends_can_start_again(stand_in: StandIn) -> None:
    stand_in.fault(dies_in="run")
    fails(stand_in, "run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    (underneath,) = stand_in.underneath()
    subprocess.run([stand_in.engine, "kill", underneath], check=True, capture_output=True)
    eventually(lambda: stand_in.containers()["ab"]["runtime"], lambda process: process is None)
    ok(stand_in, "start", "ab")
    assert list(listed(stand_in)) == ["ab"]


def test_the_service_dies_in_a_question(stand_in: StandIn) -> None:
    stand_in.fault(dies_in="list")
    assert "Connection interrupted" in fails(stand_in, "list")
    ok(stand_in, "list")


def test_ghosts(stand_in: StandIn) -> None:
    obedient(stand_in, "ab")
    obedient(stand_in, "cd")
    stand_in.fault(ghost=["ab"])
    assert list(listed(stand_in)) == ["cd"]
    assert listed(stand_in, "-a")["ab"]["status"]["networks"] == []
    assert ok(stand_in, "stop", "ab") == "ab\n"
    assert stand_in.running("ab")
    assert "failed to bootstrap" in fails(stand_in, "start", "ab")
    assert stand_in.running("ab")
    ok(stand_in, "delete", "ab")
    assert len(stand_in.underneath()) == 1


def test_ports_that_reset(stand_in: StandIn) -> None:
    """While the container's own address works."""
    port = free_port()
    ok(stand_in, "run", "-d", "--name", "ab", "-p", f"127.0.0.1:{port}:8000", IMAGE, "python3", "-c", ECHO)
    eventually(lambda: ok(stand_in, "logs", "ab"), lambda log: log == "ready\n")
    stand_in.fault(ports="reset")
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.recv(1)
    (network,) = listed(stand_in)["ab"]["status"]["networks"]
    assert answer(network["ipv4Address"].partition("/")[0], 8000) == b"hello"
    stand_in.clear()
    assert answer("127.0.0.1", port) == b"hello"


def test_a_crash_between_create_and_start(stand_in: StandIn) -> None:
    stand_in.fault(crash_between_create_and_start=1)
    words = ("run", "-d", "--rm", "--name", "ab", IMAGE, "sleep", "1000")
    assert stand_in.run(*words).returncode == -signal.SIGKILL
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"
    assert not stand_in.running("ab")
    ok(stand_in, "delete", "ab")
    ok(stand_in, *words)


@pytest.mark.parametrize("version", ["0.12.3", "1.2.2"])
def test_no_address(stand_in: StandIn) -> None:
    stand_in.fault(addresses="full")
    said = fails(stand_in, "run", "-d", "--name", "ab", IMAGE, "true")
    assert "no free indices are available for allocation" in said
    assert stand_in.containers() == {}
    ok(stand_in, "run", "-d", "--network", "none", IMAGE, "true")


@pytest.mark.parametrize(("version", "leaks"), [("0.12.3", True), ("1.0.0", False)])
def test_an_address_is_lost_by_a_forced_delete(stand_in: StandIn, leaks: bool) -> None:
    """Before 1.0, of a container that runs; not of one that was stopped."""
    stand_in.fault(pool=1)
    words = ("run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    ok(stand_in, *words)
    assert "no free indices" in fails(stand_in, "run", "-d", IMAGE, "true")
    ok(stand_in, "stop", "-t", "0", "ab")
    ok(stand_in, "delete", "-f", "ab")
    ok(stand_in, *words)
    ok(stand_in, "delete", "-f", "ab")
    assert (stand_in.run(*words).returncode == 1) == leaks


def test_no_virtualization(stand_in: StandIn) -> None:
    stand_in.fault(virtualization="unavailable")
    said = fails(stand_in, "run", "-d", IMAGE, "true")
    assert "Virtualization is not available on this hardware" in said
    assert stand_in.containers() == {}


def test_the_list_of_networks_comes_late(stand_in: StandIn) -> None:
    """Nothing is made then; and it is not asked for where there is to be no network."""
    stand_in.fault(network_list_timeout=2)
    ok(stand_in, "create", "--name", "none", "--network", "none", IMAGE, "true")
    for words in (("run", "-d", "--name", "ab", IMAGE, "true"), ("create", "--name", "ab", IMAGE, "true")):
        late = "XPC timeout for request to com.apple.container.apiserver/networkList"
        assert late in fails(stand_in, *words)
    assert list(stand_in.containers()) == ["none"]
    ok(stand_in, "create", "--name", "ab", IMAGE, "true")


def test_a_create_that_takes_too_long(stand_in: StandIn) -> None:
    """The container is there all the same."""
    stand_in.fault(create_timeout=1)
    said = fails(stand_in, "run", "-d", "--name", "ab", IMAGE, "true")
    assert "XPC timeout for request to com.apple.container.apiserver/containerCreate" in said
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"
    assert not stand_in.running("ab")


def test_a_delete_that_fails_once(stand_in: StandIn) -> None:
    obedient(stand_in, "ab")
    stand_in.fault(delete_fails=1)
    assert fails(stand_in, "delete", "-f", "ab").startswith('internalError: "deleteProcess: exec')
    assert stand_in.running("ab")
    ok(stand_in, "delete", "-f", "ab")


def test_what_is_broken_here_is_no_answer(stand_in: StandIn) -> None:
    """Neither of the command nor of what it has started."""
    ok(stand_in, "create", "--name", "ab", IMAGE, "true")
    stand_in.world.update("ab", config={})
    for words in (("list", "-a", "--format", "json"), ("start", "ab")):
        done = stand_in.run(*words)
        assert (done.returncode, done.stdout, "KeyError" in done.stderr) == (70, "", True)


def test_an_image_for_another_machine(stand_in: StandIn) -> None:
    """It is translated, and gets nowhere."""
    stand_in.fault(foreign=[IMAGE])
    assert f'"architecture" : "{OTHER}"' in ok(stand_in, "image", "inspect", IMAGE)
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "python3", "-c", "print('ready')")
    configuration = listed(stand_in)["ab"]["configuration"]
    assert (configuration["rosetta"], configuration["initProcess"]["executable"]) == (True, "python3")
    assert ok(stand_in, "logs", "ab") == ""
    assert stand_in.running("ab")


def test_another_platform_is_asked_for_in_words_or_by_the_environment(stand_in: StandIn) -> None:
    said = fails(stand_in, "create", "--platform", f"linux/{OTHER}", IMAGE, "true")
    assert "401 Unauthorized" in said, "it is pulled, for what is here is not it"
    assert fails(stand_in, "create", "--arch", OTHER, IMAGE, "true") == said
    assert fails(stand_in, "create", IMAGE, "true", extra={"CONTAINER_DEFAULT_PLATFORM": f"linux/{OTHER}"}) == said
    ok(stand_in, "create", "--platform", f"linux/{HOST}", IMAGE, "true")


def test_the_runtime_is_killed(stand_in: StandIn, make_stand_in: Callable[..., StandIn]) -> None:
    """The machine is its own: a stop finds nothing that runs."""
    import os

    obedient(stand_in, "ab")
    record = stand_in.containers()["ab"]
    os.kill(record["runtime"], signal.SIGKILL)
    ok(stand_in, "stop", "ab")
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"
    assert not stand_in.running("ab")
