"""Which engine is taken, and what is said of those that are not: with commands on a path of the test's own that answer as real ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_kernels import engines
from container_kernels.engines import docker
from container_kernels.engines.apple import Apple
from container_kernels.errors import EngineUnavailable, SpecError

from .test_arguments import DOCKER_INFO, PODMAN_HOST

DOCKER_WORKS = json.dumps(DOCKER_INFO)
PODMAN_WORKS = json.dumps({"host": PODMAN_HOST, "version": {"Version": "4.3.1"}})
# Docker's client prints an empty answer and then says why.
DOCKER_EMPTY = json.dumps(
    {"ServerVersion": "", "OperatingSystem": "", "NCPU": 0, "Architecture": "", "SecurityOptions": None}
)
DOCKER_STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DOCKER_DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
    'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/info": dial unix /var/run/docker.sock: connect: permission denied'
)
PODMAN_STOPPED = (
    "Cannot connect to Podman. Please verify your connection to the Linux system using `podman system connection list`, "
    "or try `podman machine init` and `podman machine start` to manage a new Linux VM\n"
    "Error: unable to connect to Podman socket: failed to connect: dial tcp 127.0.0.1:54333: connect: connection refused"
)

SCRIPT = """#!/bin/sh
echo "$*" >> '{directory}/{name}.asked'
if [ "$*" != 'info --format {{{{json .}}}}' ]; then echo "unexpected: $*" >&2; exit 64; fi
{hang}
cat '{directory}/{name}.out'
cat '{directory}/{name}.err' >&2
exit {status}
"""

Command = Callable[..., Path]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Puts a command on the path, beside which there is `sleep` and `cat` and no engine at all."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for tool in ("cat", "sleep"):
        (binaries / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", str(binaries))
    engines.forget()

    def put(name: str, out: str = "", err: str = "", *, status: int = 0, hangs: bool = False) -> Path:
        (tmp_path / f"{name}.out").write_text(out)
        (tmp_path / f"{name}.err").write_text(err)
        script = SCRIPT.format(directory=tmp_path, name=name, hang="exec sleep 600" if hangs else "", status=status)
        (binaries / name).write_text(script)
        (binaries / name).chmod(0o755)
        return tmp_path / f"{name}.asked"

    yield put
    engines.forget()


async def test_the_first_that_works(command: Command) -> None:
    command("docker", DOCKER_WORKS)
    asked = command("podman", PODMAN_WORKS)
    engine, info = await engines.choose()
    assert (engine.name, info.engine, info.version) == ("docker", "docker", "20.10.24+dfsg1")
    assert not asked.exists()


async def test_the_second_when_the_first_is_absent(command: Command) -> None:
    command("podman", PODMAN_WORKS)
    engine, info = await engines.choose()
    assert (engine.name, info.version) == ("podman", "4.3.1")


async def test_the_second_when_the_first_is_stopped(command: Command) -> None:
    command("docker", DOCKER_EMPTY, DOCKER_STOPPED, status=1)
    command("podman", PODMAN_WORKS)
    assert (await engines.choose())[0].name == "podman"


async def test_an_engine_that_works_is_asked_once(command: Command) -> None:
    asked = command("docker", DOCKER_WORKS)
    await engines.choose()
    await engines.choose("docker")
    assert asked.read_text().splitlines() == ["info --format {{json .}}"]
    engines.forget()
    await engines.choose()
    assert len(asked.read_text().splitlines()) == 2


async def test_an_engine_that_did_not_work_is_asked_again(command: Command) -> None:
    command("docker", DOCKER_EMPTY, DOCKER_STOPPED, status=1)
    with pytest.raises(EngineUnavailable):
        await engines.choose("docker")
    command("docker", DOCKER_WORKS)
    assert (await engines.choose("docker"))[0].name == "docker"


async def test_a_named_engine_and_no_other(command: Command) -> None:
    asked = command("docker", DOCKER_WORKS)
    with pytest.raises(EngineUnavailable) as raised:
        await engines.choose("podman")
    assert raised.value.message == "podman: the command is not on the path."
    assert "Install Podman" in raised.value.hint
    assert not asked.exists()


async def test_a_name_that_is_not_known() -> None:
    with pytest.raises(SpecError, match="engine = 'rocket' is not known") as raised:
        await engines.choose("rocket")
    assert "docker, podman" in raised.value.hint


async def test_the_error_says_of_each_why(command: Command) -> None:
    command("docker", DOCKER_EMPTY, DOCKER_STOPPED, status=1)
    with pytest.raises(EngineUnavailable) as raised:
        await engines.choose()
    text = str(raised.value)
    assert text.startswith("No container engine works here.")
    assert "docker: does not work." in text
    assert DOCKER_STOPPED in text
    assert "podman: the command is not on the path." in text


@pytest.mark.parametrize(
    ("name", "out", "err", "status", "message", "hint"),
    [
        ("docker", DOCKER_EMPTY, DOCKER_STOPPED, 1, "docker: does not work.", "Start Docker"),
        ("docker", json.dumps({**json.loads(DOCKER_EMPTY), "ServerErrors": [DOCKER_STOPPED]}), f"errors pretty printing info\n{DOCKER_STOPPED}", 0, "docker: does not work.", "Start Docker"),
        ("docker", DOCKER_EMPTY, DOCKER_DENIED, 1, "docker: permission denied.", "usermod -aG docker"),
        ("podman", "", PODMAN_STOPPED, 125, "podman: does not work.", "podman"),
        ("docker", PODMAN_WORKS, "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.", 0, "docker: its answer to `info` is not understood.", ""),
        ("docker", "hello", "", 0, "docker: its answer to `info` is not understood.", ""),
        ("podman", "[]", "", 0, "podman: does not work.", ""),
        ("podman", '"text"', "", 0, "podman: its answer to `info` is not understood.", ""),
        ("podman", "{\"host\": 1}", "", 0, "podman: its answer to `info` is not understood.", ""),
    ],
)  # fmt: skip
async def test_why_it_does_not_work(
    command: Command, name: str, out: str, err: str, status: int, message: str, hint: str
) -> None:
    command(name, out, err, status=status)
    with pytest.raises(EngineUnavailable) as raised:
        await engines.choose(name)
    assert raised.value.message == message
    assert hint in raised.value.hint
    assert err.splitlines()[-1] in raised.value.detail if err else True
    assert '"ServerVersion": ""' not in str(raised.value)  # an empty answer tells nobody anything


async def test_one_that_hangs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "ASKING", 0.3)
    command("docker", hangs=True)
    command("podman", PODMAN_WORKS)
    assert (await asyncio.wait_for(engines.choose(), 20))[0].name == "podman"
    with pytest.raises(EngineUnavailable, match="docker: does not answer") as raised:
        await engines.choose("docker")
    assert "did not end within 0.3 seconds" in raised.value.detail


async def test_a_command_that_cannot_be_executed(command: Command) -> None:
    asked = command("docker", DOCKER_WORKS)
    binary = asked.parent / "bin" / "docker"
    binary.write_text("#!/there/is/no/such/interpreter\n")
    with pytest.raises(EngineUnavailable, match="docker: does not work"):
        await engines.choose("docker")


async def test_require_vm(command: Command) -> None:
    command("docker", DOCKER_WORKS)
    command("podman", PODMAN_WORKS)
    with pytest.raises(EngineUnavailable) as raised:
        await engines.choose(require_vm=True)
    assert "docker: runs containers, and require_vm asks for a VM." in str(raised.value)
    assert "podman: runs containers, and require_vm asks for a VM." in str(raised.value)
    with pytest.raises(EngineUnavailable, match=r"^docker: runs containers"):
        await engines.choose("docker", require_vm=True)


async def test_what_is_weaker_than_the_machine_could_have_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("docker", DOCKER_WORKS)
    assert (await engines.choose())[1].instead_of == ""
    monkeypatch.setattr(Apple, "unsuited", lambda _: "")
    assert (await engines.choose())[1].instead_of == "apple: the command `container` is not on the path."
    assert (await engines.choose("docker"))[1].instead_of == ""


def test_the_engine_of_tests_is_not_to_be_chosen() -> None:
    assert list(engines.ENGINES) == ["apple", "docker", "podman"]
