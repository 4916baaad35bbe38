"""A container's life, as each release tells of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import eventually
from .conftest import IMAGE, OBEDIENT, fails, listed, obedient, ok, state
from .stand_in.faults import StandIn
from .stand_in.grammar import VERSIONS, number

pytestmark = pytest.mark.xdist_group("docker")
OLD_AND_NEW = pytest.mark.parametrize("version", ["0.12.3", "1.2.2"])


def keys(content: Any) -> Iterator[str]:
    """Of all objects in it."""
    for key, value in content.items() if isinstance(content, dict) else ():
        yield key
        yield from keys(value)
    for value in content if isinstance(content, list) else ():
        yield from keys(value)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_life(stand_in: StandIn, version: str) -> None:
    """Made, started, asked about, stopped and deleted: what each step prints, and what is known after it."""
    words = (IMAGE, "python3", "-c", OBEDIENT)
    assert ok(stand_in, "--version") == f"container CLI version {version} (build: release, commit: abc1234)\n"
    assert ok(stand_in, "create", "--name", "ab", "--label", "owner=me", *words) == "ab\n"
    assert stand_in.underneath() == [], "a container that has not started is words only"
    created = listed(stand_in, "--all")["ab"]
    assert state(created) == "stopped"
    assert "startedDate" not in json.dumps(created), "there is no state of its own for what has never started"
    assert listed(stand_in) == {}
    assert "can not be deleted" not in ok(stand_in, "start", "ab")
    assert ok(stand_in, "start", "ab") == "ab\n", "a start of what runs is none"
    running = listed(stand_in)["ab"]
    assert state(running) == "running"
    assert "startedDate" in json.dumps(running)
    eventually(lambda: ok(stand_in, "logs", "ab"), lambda log: log == "ready\n")
    assert fails(stand_in, "delete", "ab") == 'invalidState: "container ab is running and can not be deleted"'
    assert ok(stand_in, "stop", "ab") == "ab\n"
    assert ok(stand_in, "stop", "ab") == "ab\n"
    ended = listed(stand_in, "-a")["ab"]
    assert state(ended) == "stopped"
    assert "startedDate" in json.dumps(ended)
    assert not [key for key in keys(ended) if "exit" in key.lower()], "nothing remembers how it ended"
    client = "sandbox" if version == "0.12.3" else "runtime"
    assert fails(stand_in, "kill", "ab") == f'invalidState: "no {client} client exists: container is stopped"'
    assert ok(stand_in, "start", "ab") == "ab\n"
    assert ok(stand_in, "delete", "--force", "ab") == "ab\n"
    assert listed(stand_in, "-a") == {}
    assert stand_in.underneath() == []


@OLD_AND_NEW
def test_who_is_not_there(stand_in: StandIn, version: str) -> None:
    for verb in ("stop", "kill", "delete"):
        assert fails(stand_in, verb, "no-one") == 'notFound: "container with ID no-one not found"'
    for words in (("start", "no-one"), ("exec", "no-one", "true")):
        assert fails(stand_in, *words) == "get failed: container no-one not found"
    assert "container with ID no-one not found" in fails(stand_in, "logs", "no-one")
    assert fails(stand_in, "stats", "no-one", "--format", "json") == "no such container: no-one"
    if number(version) < (1, 0):
        assert ok(stand_in, "inspect", "no-one") == "[]\n"
    else:
        assert fails(stand_in, "inspect", "no-one") == "container not found: no-one"


def test_of_several_those_that_are_there(stand_in: StandIn) -> None:
    for name in ("ab", "cd"):
        ok(stand_in, "create", "--name", name, IMAGE, "true")
    assert fails(stand_in, "inspect", "ab", "no-one") == "container not found: no-one"
    done = stand_in.run("delete", "ab", "no-one", "cd")
    assert (done.returncode, sorted(done.stdout.split())) == (1, ["ab", "cd"])
    assert done.stdout != "ab\ncd\n", "in no order"
    assert done.stderr == 'Error: notFound: "container with ID no-one not found"\n'


def test_a_name_is_taken(stand_in: StandIn) -> None:
    ok(stand_in, "create", "--name", "ab", IMAGE, "true")
    assert fails(stand_in, "run", "--name", "ab", IMAGE, "true") == "container with id ab already exists"
    said = fails(stand_in, "create", "--name", "ab", IMAGE, "true")
    assert said == 'failed to create container (cause: "exists: "container already exists: ab"")'


def test_the_name_is_the_id_and_the_host(stand_in: StandIn) -> None:
    assert ok(stand_in, "run", "--name", "a-name", IMAGE, "hostname") == "a-name\n"
    assert list(stand_in.containers()) == ["a-name"]
    (made,) = ok(stand_in, "create", IMAGE, "true").split()
    assert len(made) == 36


def test_removed_by_the_service(stand_in: StandIn) -> None:
    """When it is stopped, and when its first process ends by itself."""
    obedient(stand_in, "ab", "--rm")
    ok(stand_in, "stop", "ab")
    assert listed(stand_in, "-a") == {}
    ok(stand_in, "run", "-d", "--rm", "--name", "cd", IMAGE, "true")
    eventually(stand_in.containers, lambda containers: not containers)
    assert listed(stand_in, "-a") == {}
    assert eventually(stand_in.underneath, lambda names: not names) == []


def test_a_stop_that_is_not_minded_becomes_a_kill(stand_in: StandIn) -> None:
    """The first process ignores what it does not handle."""
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    ok(stand_in, "kill", "-s", "TERM", "ab")
    assert state(listed(stand_in)["ab"]) == "running"
    ok(stand_in, "stop", "-t", "0", "ab")
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"


def test_an_init_passes_signals_on(stand_in: StandIn) -> None:
    ok(stand_in, "run", "-d", "--init", "--name", "ab", IMAGE, "sleep", "1000")
    ok(stand_in, "kill", "-s", "SIGTERM", "ab")
    eventually(lambda: listed(stand_in), lambda running: not running)
    assert listed(stand_in) == {}


def test_stopping_is_not_deleted_even_by_force(stand_in: StandIn) -> None:
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    stopping = stand_in.start("stop", "-t", "100", "ab")
    eventually(lambda: state(listed(stand_in, "-a")["ab"]), lambda status: status == "stopping")
    assert fails(stand_in, "delete", "-f", "ab") == 'invalidState: "container ab is stopping and can not be deleted"'
    ok(stand_in, "kill", "ab")
    assert stopping.wait(20) == 0


def test_foreground(stand_in: StandIn) -> None:
    """Both streams, and the exit status; 128 and more for a signal."""
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = stand_in.run("run", "--progress", "none", "--rm", "--name", "ab", IMAGE, "python3", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert stand_in.containers() == {}
    suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ok(stand_in, "create", "--name", "ab", IMAGE, "sh", "-c", f'python3 -c "{suicide}"')
    assert stand_in.run("start", "-a", "ab").returncode == 137


def test_foreground_reads_what_is_typed(stand_in: StandIn) -> None:
    assert ok(stand_in, "run", "-i", IMAGE, "cat", input="hello\n") == "hello\n"
    assert ok(stand_in, "run", IMAGE, "cat", input="hello\n") == ""


def test_no_attaching_to_what_runs(stand_in: StandIn) -> None:
    obedient(stand_in, "ab")
    assert fails(stand_in, "start", "-a", "ab") == "attach is currently unsupported on already running containers"


def test_each_start_begins_a_log(stand_in: StandIn) -> None:
    """`-n` drops blank lines, and before the first start there is none."""
    ok(stand_in, "create", "--name", "ab", IMAGE, "sh", "-c", "echo one; echo; echo two; date +%N")
    assert fails(stand_in, "logs", "ab").startswith("failed to get logs for container ab")
    ok(stand_in, "start", "-a", "ab")
    first = ok(stand_in, "logs", "ab").splitlines()
    assert first[:3] == ["one", "", "two"]
    assert ok(stand_in, "logs", "-n", "2", "ab") == f"two\n{first[-1]}\n"
    assert ok(stand_in, "logs", "-n", "3", "ab").startswith("one\ntwo\n")
    ok(stand_in, "start", "-a", "ab")
    assert len(ok(stand_in, "logs", "ab").splitlines()) == 4


def test_a_log_has_both_streams(stand_in: StandIn) -> None:
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "sh", "-c", "echo one; echo two >&2")
    eventually(lambda: listed(stand_in), lambda running: not running)
    done = stand_in.run("logs", "ab")
    assert (sorted(done.stdout.split()), done.stderr) == (["one", "two"], "")


def test_following_a_log_never_ends(stand_in: StandIn) -> None:
    ok(stand_in, "run", "-d", "--name", "ab", IMAGE, "sh", "-c", "echo one; sleep 1; echo two")
    following = stand_in.start("logs", "-f", "ab")
    assert following.stdout is not None
    assert [following.stdout.readline(), following.stdout.readline()] == ["one\n", "two\n"]
    eventually(lambda: listed(stand_in), lambda running: not running)
    assert following.poll() is None


def test_exec(stand_in: StandIn) -> None:
    """What the first process has in its environment is not overridden."""
    obedient(stand_in, "ab", "-e", "A=1", "-w", "/tmp")
    words = ("exec", "-e", "A=2", "-e", "B=2", "ab", "sh", "-c", "echo $A $B; pwd; exit 4")
    done = stand_in.run(*words)
    assert (done.returncode, done.stdout) == (4, "1 2\n/tmp\n")
    assert ok(stand_in, "exec", "ab", "env", "A=2", "printenv", "A") == "2\n"
    assert ok(stand_in, "exec", "-i", "ab", "cat", input="typed") == "typed"
    assert ok(stand_in, "exec", "-d", "ab", "true") == "ab\n"
    assert fails(stand_in, "exec", "ab", "no-such-program").startswith("failed to start process")
    assert state(listed(stand_in)["ab"]) == "running"
    ok(stand_in, "stop", "ab")
    assert fails(stand_in, "exec", "ab", "true") == "container ab is not running"


def test_a_program_that_is_not_there(stand_in: StandIn) -> None:
    said = fails(stand_in, "run", "-d", "--name", "ab", IMAGE, "no-such-program")
    assert said.startswith("failed to bootstrap container")
    assert stand_in.containers() == {}
    assert stand_in.underneath() == []


def test_what_is_asked_for_is_had(stand_in: StandIn, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("of the host\n")
    script = "id -u; pwd; cat /mnt/file; printenv GIVEN TAKEN; ulimit -n; echo $0"
    done = stand_in.run(
        "run", "--rm", "-u", "1234:1234", "-w", "/tmp", "-v", f"{tmp_path}:/mnt:ro", "-e", "GIVEN=1", "-e", "GIVEN=2", "-e", "TAKEN",
        "-e", "NOT_THERE", "--ulimit", "nofile=77:88", "--entrypoint", "sh", IMAGE, "-c", script, "zero",
        extra={"TAKEN": "3"},
    )  # fmt: skip
    assert done.stdout == "1234\n/tmp\nof the host\n2\n3\n77\nzero\n", done


def test_read_only_is_kept(stand_in: StandIn, tmp_path: Path) -> None:
    mounts = ("--mount", f"type=bind,src={tmp_path},dst=/a,readonly=false", "-v", f"{tmp_path}:/b", "--tmpfs", "/c")
    done = stand_in.run(
        "run", "--rm", "--read-only", *mounts, IMAGE, "sh", "-c", "touch /b/x /c/x; touch /a/x; touch /x"
    )
    assert done.stderr.count("Read-only file system") == 2, done
    assert (tmp_path / "x").exists()


def test_the_limits_are_real(stand_in: StandIn) -> None:
    obedient(stand_in, "ab", "--memory", "256m", "--cpus", "1", "--shm-size", "32m")
    (name,) = stand_in.underneath()
    from .stand_in.under import container

    found = container(stand_in.world, {"under": name})
    assert found is not None
    host = found["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (256 << 20, 256 << 20, 10**9)
    assert host["ShmSize"] == 32 << 20
    assert not host["PidsLimit"] or host["PidsLimit"] < 0
    assert set(found["Config"]["Labels"]) & {"stand-in.state"}


def test_labels_stay_here(stand_in: StandIn) -> None:
    """Who asks the engine underneath for ours does not find these."""
    obedient(stand_in, "ab", "--label", "io.container-kernels=1")
    from .stand_in.under import container

    found = container(stand_in.world, {"under": stand_in.underneath()[0]})
    assert found is not None
    assert "io.container-kernels" not in found["Config"]["Labels"]
    assert listed(stand_in)["ab"]["configuration"]["labels"] == {"io.container-kernels": "1"}


def test_memory_is_minded_by_the_service(stand_in: StandIn) -> None:
    said = fails(stand_in, "run", "-d", "--memory", "100m", IMAGE, "true")
    minimum = f"minimum memory amount allowed is 200 MiB (got {100 << 20} bytes)"
    assert said == f'failed to create container (cause: "invalidArgument: "{minimum}"")'


def test_what_is_mounted_is_there(stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing = tmp_path / "missing"
    for words in (("-v", f"{missing}:/x"), ("--mount", f"source={missing},target=/x")):
        assert fails(stand_in, "run", *words, IMAGE, "true") == f"path '{missing}' does not exist"
    said = fails(stand_in, "create", "--mount", f"source={tmp_path}/file,target=/x", IMAGE, "true")
    assert said == f"path '{tmp_path}/file' is not a directory"
    missing.mkdir()
    ok(stand_in, "create", "--name", "ab", "-v", f"{missing}:/x", "-v", f"{tmp_path}/file:/file", IMAGE, "true")
    missing.rmdir()
    assert f"mount source path '{missing}' does not exist" in fails(stand_in, "start", "ab")
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"


def test_the_id_in_a_file(stand_in: StandIn, tmp_path: Path) -> None:
    ok(stand_in, "create", "--name", "ab", "--cidfile", str(tmp_path / "id"), IMAGE, "true")
    assert (tmp_path / "id").read_text() == "ab"


def test_progress_is_told_before_an_error(stand_in: StandIn) -> None:
    """On stderr, unless there is to be none."""
    for words, steps in ((("run", "--memory", "1m", IMAGE, "true"), 6), (("image", "pull", "no-such-image"), 2)):
        lines = stand_in.run(*words).stderr.splitlines()
        assert lines[0] == f"[1/{steps}] Fetching image [0s]"
        assert lines[-1].startswith("Error: ")
        assert fails(stand_in, *words) == lines[-1].removeprefix("Error: ")
    assert stand_in.run("create", "--memory", "1m", IMAGE, "true").stderr.startswith("Error: ")


def test_a_kill_is_noticed_when_it_returns(stand_in: StandIn) -> None:
    obedient(stand_in, "ab")
    ok(stand_in, "kill", "ab")
    assert state(listed(stand_in, "-a")["ab"]) == "stopped"


@pytest.mark.parametrize("version", ["0.12.3"])
def test_a_kill_returned_at_once(stand_in: StandIn) -> None:
    """Before 1.0: the end is noticed some time after."""
    obedient(stand_in, "ab")
    with stand_in.world.lock():
        ok(stand_in, "kill", "ab")
        assert state(listed(stand_in)["ab"]) == "running"
    eventually(lambda: listed(stand_in), lambda running: not running)


def test_usage_is_64_and_all_else_1(stand_in: StandIn) -> None:
    said = fails(stand_in, "run", "--unheard-of", IMAGE, status=64)
    assert said.startswith("Unknown option '--unheard-of'\nUsage: container run")
    assert fails(stand_in, "run", "-p", "0:80", IMAGE) == "invalid publish host port range: 0"
    assert fails(stand_in, "ps") == "Plugin 'container-ps' not found."


def test_what_is_not_played_is_said_so(stand_in: StandIn) -> None:
    for words in (("prune",), ("stop", "--all"), ("system", "stop"), ("volume", "list"), ("run", "--ssh", IMAGE)):
        assert fails(stand_in, *words, status=70).startswith("the stand-in does not play this")


def test_calls_are_recorded(stand_in: StandIn) -> None:
    stand_in.run("list", "-a")
    stand_in.run("run", "--unheard-of")
    assert stand_in.recorded() == [["list", "-a"], ["run", "--unheard-of"]]


def test_two_states_are_two_worlds(make_stand_in: Callable[..., StandIn]) -> None:
    one, other = make_stand_in(), make_stand_in()
    obedient(one, "ab")
    assert listed(other, "-a") == {}
    obedient(other, "ab")
    ok(other, "delete", "-f", "ab")
    assert list(listed(one)) == ["ab"]


def test_nothing_is_left_of_it(make_stand_in: Callable[..., StandIn]) -> None:
    stand_in = make_stand_in()
    obedient(stand_in, "ab", "--rm")
    obedient(stand_in, "cd")
    stand_in.start("run", "--name", "ef", IMAGE, "sleep", "1000")
    eventually(stand_in.underneath, lambda names: len(names) == 3)
    stand_in.destroy()
    assert [path.name for path in stand_in.directory.iterdir()] == ["destroyed"]
    assert stand_in.underneath() == []


def test_who_comes_too_late_makes_nothing(make_stand_in: Callable[..., StandIn]) -> None:
    """A process that a test has left behind may still call; or has called, and waits for its turn."""
    stand_in = make_stand_in()
    words = ("run", "-d", "--name", "ab", IMAGE, "sleep", "1000")
    with stand_in.world.lock():
        waiting = stand_in.start(*words)
        assert waiting.stderr is not None
        while "[5/6]" not in waiting.stderr.readline():
            pass
        (stand_in.directory / "destroyed").touch()
    assert waiting.communicate(timeout=20)[1].endswith("a Mac that is no more\n")
    assert waiting.returncode == 70
    stand_in.destroy()
    assert fails(stand_in, *words, status=70).endswith("a Mac that is no more")
    assert stand_in.underneath() == []
