"""What every engine must do, as one body of tests: a new engine brings a `Subject`, and passes.

The body asks through the Engine protocol only. What the protocol does not tell (what the container sees, what the engine set), the
subject tells in its own way.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Protocol

import pytest

from container_kernels import owner
from container_kernels.engines import ENGINES, apple, docker, memory
from container_kernels.engines.memory import MemoryEngine
from container_kernels.engines.protocol import LABEL, OWNER_LABEL, ContainerRequest, ContainerState, Engine, Mount, Port
from container_kernels.errors import CommandTimeout, EngineError, ImageError, PortTaken, WorkdirError

from ..conftest import said_by_hand

IMAGE = "container-kernels/python"
PATIENCE = 20.0  # seconds: far more than an engine takes
SKEW = timedelta(minutes=20)  # an engine's clock, in a VM that has slept, against ours; a wrong time zone is more

# PID 1 of the tests: minds SIGTERM, then prints its arguments, and waits.
PRINT = "import sys\nfor word in sys.argv[1:]: print(word, flush=True)\n"
OBEY = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
WAIT = f"{OBEY}while True: signal.pause()\n"
# One that does not mind SIGTERM, which an engine's command passes on when it is ended.
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()\n"
# Started behind it, by the real engines' subjects, to look around.
LOOK = """import json, os
(line,) = [line for line in open("/proc/1/status") if line.startswith("Groups:")]
seen = {"environment": dict(os.environ), "user": f"{os.getuid()}:{os.getgid()}", "cwd": os.getcwd()}
print(json.dumps({**seen, "groups": [int(group) for group in line.split()[1:]]}))
"""
TRY = "import sys\ntry: open(sys.argv[1] + '/made', 'x')\nexcept OSError as error: print(error.errno)\nelse: print(0)\n"


@dataclass(frozen=True)
class Seen:
    """What the container's processes see."""

    environment: Mapping[str, str]
    user: str
    cwd: str
    groups: Sequence[int]  # of PID 1, beside its own


@dataclass(frozen=True)
class Limits:
    cpus: float
    memory: int
    pids: int | None  # None where the engine has no such limit


@dataclass(frozen=True)
class Ways:
    """How an engine may differ from the others."""

    refuses_many_cpus: bool = False
    least_memory: int = 64 << 20
    whole_cpus: bool = False
    limits_pids: bool = True
    adds_groups: bool = True
    mounts_any_name: bool = True


class Subject(Protocol):
    """One engine, and what its tests need beside the protocol."""

    engine: Engine

    @property
    def ways(self) -> Ways: ...

    # The module whose RUNNING is the time for a throw-away container.
    @property
    def module(self) -> ModuleType: ...

    # Somebody else listens on the port meanwhile.
    def hold(self, port: int) -> None: ...

    # The container's PID 1 ends.
    def end(self, name: str) -> None: ...

    def look(self, name: str) -> Seen: ...

    def limits(self, name: str) -> Limits: ...

    # Whether a file can be made in the directory, by a process in the container.
    def can_write(self, name: str, directory: str) -> bool: ...

    # The container is gone, whatever became of the test.
    def sweep(self, name: str) -> None: ...


class MemorySubject:
    """Its containers do nothing: what they would see is what was asked."""

    ways = Ways(refuses_many_cpus=True)
    module = memory

    def __init__(self) -> None:
        self.memory = MemoryEngine(clock=lambda: datetime.now(timezone.utc))
        self.memory.add_image(IMAGE, {"python3": lambda arguments: "".join(f"{word}\n" for word in arguments[2:])})
        self.engine: Engine = self.memory

    def hold(self, port: int) -> None:
        self.memory.taken.add(port)

    def end(self, name: str) -> None:
        self.memory.end(name)

    def _request(self, name: str) -> ContainerRequest:
        return self.memory.containers[name].request

    def look(self, name: str) -> Seen:
        request = self._request(name)
        return Seen(request.environment, request.user or "0:0", "/", request.groups)

    def limits(self, name: str) -> Limits:
        request = self._request(name)
        return Limits(request.cpus, request.memory, request.pids)

    def can_write(self, name: str, directory: str) -> bool:
        (mount,) = [mount for mount in self._request(name).mounts if mount.target == directory]
        if not mount.read_only:
            (Path(mount.source) / "made").touch()
        return not mount.read_only

    def sweep(self, name: str) -> None:
        """It goes with the test."""


@dataclass
class CommandSubject:
    """An engine with a command line that knows `exec`, `kill` and `inspect`."""

    name: str
    module: ModuleType = docker
    ways: Ways = field(init=False)

    def __post_init__(self) -> None:
        self.engine: Engine = ENGINES[self.name]
        self.ways = Ways(refuses_many_cpus=self.name == "docker")

    def _say(self, *arguments: str) -> str:
        done = subprocess.run([self.name, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def hold(self, port: int) -> None:
        """The port is held already: by the socket that the test found it with."""

    def end(self, name: str) -> None:
        self._say("kill", "--signal", "TERM", name)

    def look(self, name: str) -> Seen:
        return Seen(**json.loads(self._say("exec", name, "python3", "-c", LOOK)))

    def limits(self, name: str) -> Limits:
        (item,) = json.loads(self._say("container", "inspect", name))
        host = item["HostConfig"]
        cpus = host["NanoCpus"] / 1e9 or host["CpuQuota"] / host["CpuPeriod"]
        assert host["MemorySwap"] == host["Memory"]  # no swap beyond it
        return Limits(cpus, host["Memory"], host["PidsLimit"])

    def can_write(self, name: str, directory: str) -> bool:
        return self._say("exec", name, "python3", "-c", TRY, directory).strip() == "0"

    def sweep(self, name: str) -> None:
        subprocess.run([self.name, "rm", "--force", name], capture_output=True, timeout=60, check=False)


@dataclass
class AppleSubject:
    """Apple's engine, with whatever is the `container` of this test's path."""

    module: ModuleType = apple
    ways: Ways = Ways(
        least_memory=200 << 20, whole_cpus=True, limits_pids=False, adds_groups=False, mounts_any_name=False
    )

    def __post_init__(self) -> None:
        self.engine: Engine = apple.Apple()

    def _say(self, *arguments: str) -> str:
        return said_by_hand(*arguments)

    def hold(self, port: int) -> None:
        """The port is held already: by the socket that the test found it with."""

    def end(self, name: str) -> None:
        self._say("kill", "--signal", "TERM", name)

    def look(self, name: str) -> Seen:
        return Seen(**json.loads(self._say("exec", name, "python3", "-c", LOOK)))

    def limits(self, name: str) -> Limits:
        (item,) = json.loads(self._say("inspect", name))
        resources = item["configuration"]["resources"]
        return Limits(resources["cpus"], resources["memoryInBytes"], None)

    def can_write(self, name: str, directory: str) -> bool:
        return self._say("exec", name, "python3", "-c", TRY, directory).strip() == "0"

    def sweep(self, name: str) -> None:
        with suppress(AssertionError):  # most are gone
            self._say("delete", "--force", name)


@contextmanager
def taken_port() -> Iterator[int]:
    """A port of the loopback that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def other_addresses() -> list[str]:
    """This machine's addresses beyond the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return []
        return [address for address in (str(sock.getsockname()[0]),) if not address.startswith("127.")]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


async def log_with(engine: Engine, name: str, *wanted: str) -> str:
    """The container's log, once it has all that is wanted, or when time is over."""
    deadline = time.monotonic() + PATIENCE
    while True:
        log = await engine.logs(name)
        if all(text in log for text in wanted) or time.monotonic() > deadline:
            return log
        await asyncio.sleep(0.05)


async def state_at_last(engine: Engine, name: str) -> ContainerState | None:
    """None as soon as the container is gone; its state when time is over."""
    deadline = time.monotonic() + PATIENCE
    while True:
        state = await engine.inspect(name)
        if state is None or time.monotonic() > deadline:
            return state
        await asyncio.sleep(0.05)


class EngineContract:
    """The tests. A class of `test_contract.py` inherits them and gives the fixture `subject`."""

    @pytest.fixture
    def names(self, subject: Subject) -> Iterator[list[str]]:
        """Names of containers that are removed when the test ends, whatever became of it."""
        made: list[str] = []
        yield made
        for name in made:
            subject.sweep(name)

    @pytest.fixture
    def request_for(self, subject: Subject, names: list[str]) -> ContainerRequest:
        """A request that an engine with the image can meet."""
        names.append(f"contract-{uuid.uuid4().hex[:12]}")
        return ContainerRequest(
            name=names[0],
            image=IMAGE,
            command=("python3", "-c", OBEY + PRINT + WAIT),
            cpus=0.5,
            memory=subject.ways.least_memory,
            pids=40,
            labels={LABEL: "test", f"{LABEL}.kernel": "contract = 'yes', with, commas"},
        )

    async def test_it_tells_what_it_is(self, subject: Subject) -> None:
        info = await subject.engine.probe()
        assert info.engine == subject.engine.name
        assert info.version
        assert info.cpus >= 1
        assert info.architecture in ("x86_64", "aarch64")
        assert isinstance(info.rootless, bool)
        assert info.isolation in ("container", "vm")

    async def test_it_runs_and_inspects(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(request_for)
        state = await subject.engine.inspect(request_for.name)
        assert state is not None
        assert (state.name, state.running, state.status, state.exit_code) == (request_for.name, True, "running", None)
        assert IMAGE in state.image
        assert request_for.labels.items() <= state.labels.items()
        assert abs(state.created - datetime.now(timezone.utc)) < SKEW

    async def test_a_container_that_is_unknown(self, subject: Subject) -> None:
        name = f"contract-{uuid.uuid4().hex}"
        assert await subject.engine.inspect(name) is None
        assert await subject.engine.logs(name) == ""
        await subject.engine.remove(name)

    async def test_it_lists_only_ours(self, subject: Subject, request_for: ContainerRequest, names: list[str]) -> None:
        names.append(f"{request_for.name}-foreign")
        await subject.engine.run(request_for)
        await subject.engine.run(replace(request_for, name=names[1], labels={"io.container-kernelsx": "foreign"}))
        listed = [state.name for state in await subject.engine.list()]
        assert request_for.name in listed
        assert names[1] not in listed

    async def test_removed_means_gone_and_twice_is_fine(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(request_for)
        await subject.engine.remove(request_for.name)
        assert await subject.engine.inspect(request_for.name) is None
        assert request_for.name not in [state.name for state in await subject.engine.list()]
        await subject.engine.remove(request_for.name)

    async def test_a_pid_1_that_does_not_obey_is_killed(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(replace(request_for, command=("python3", "-c", DEAF)))
        await subject.engine.remove(request_for.name)
        assert await subject.engine.inspect(request_for.name) is None

    async def test_it_vanishes_when_pid_1_ends(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(replace(request_for, command=(*request_for.command, "ready")))
        await log_with(subject.engine, request_for.name, "ready\n")
        subject.end(request_for.name)
        assert await self._gone(subject, request_for.name)

    async def test_its_log(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(replace(request_for, command=(*request_for.command, "one", "two", "three")))
        assert await log_with(subject.engine, request_for.name, "one\ntwo\nthree\n") == "one\ntwo\nthree\n"
        assert await subject.engine.logs(request_for.name, tail=2) == "two\nthree\n"

    async def test_usage(self, subject: Subject, request_for: ContainerRequest, names: list[str]) -> None:
        names.append(f"{request_for.name}-foreign")
        await subject.engine.run(replace(request_for, name=names[1], labels={}))
        await subject.engine.run(request_for)
        used = {usage.name: usage for usage in await subject.engine.usage()}
        assert names[1] not in used
        usage = used[request_for.name]
        assert 0 < usage.memory <= usage.memory_limit
        wanted = request_for.memory
        assert abs(usage.memory_limit - wanted) < wanted * 0.02  # engines round it
        assert usage.pids >= 1
        assert usage.cpu_percent >= 0

    async def test_images(self, subject: Subject) -> None:
        info = await subject.engine.image(IMAGE)
        assert info is not None
        assert info.reference == IMAGE
        assert info.id
        assert info.created < datetime.now(timezone.utc) + SKEW
        assert await subject.engine.image("container-kernels/there-is-none") is None

    async def test_the_output_of_a_command(self, subject: Subject) -> None:
        assert await subject.engine.output(IMAGE, ["python3", "-c", PRINT, "one", "two"]) == "one\ntwo\n"
        with pytest.raises(EngineError):
            await subject.engine.output(IMAGE, ["there-is-no-such-program"])

    # -- What the container gets

    async def test_limits(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(request_for)
        cpus = 1 if subject.ways.whole_cpus else 0.5
        pids = 40 if subject.ways.limits_pids else None
        assert subject.limits(request_for.name) == Limits(cpus, request_for.memory, pids)

    async def test_environment_passes(self, subject: Subject, request_for: ContainerRequest) -> None:
        wanted = {"PLAIN": "1", "EMPTY": "", "ODD": "a = 'b', \"c\" $HOME `id`\nsecond line ü"}
        await subject.engine.run(replace(request_for, environment=wanted))
        seen = subject.look(request_for.name)
        assert wanted.items() <= seen.environment.items()
        assert seen.cwd == "/"

    async def test_user_passes(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(replace(request_for, user="12345:54321"))
        assert subject.look(request_for.name).user == "12345:54321"

    async def test_further_groups_pass(self, subject: Subject, request_for: ContainerRequest) -> None:
        wanted = replace(request_for, user="12345:54321", groups=(23456, 34567))
        if not subject.ways.adds_groups:
            with pytest.raises(EngineError, match="further groups"):
                await subject.engine.run(wanted)
            await self._nothing_left(subject, request_for)
            return
        await subject.engine.run(wanted)
        assert {23456, 34567} <= set(subject.look(request_for.name).groups)

    async def test_mounts(self, subject: Subject, request_for: ContainerRequest, tmp_path: Path) -> None:
        names = ["plain", "with space", 'commas, "quotes"', "and: colons", "größe=1", "two\nlines"]
        if subject.ways.mounts_any_name:
            names.append("all = of, it: 1")
        for name in names:
            (tmp_path / name).mkdir()
        mounts = tuple(Mount(str(tmp_path / name), f"/mnt/{name}") for name in names)
        await subject.engine.run(replace(request_for, mounts=mounts))
        for name in names:
            assert subject.can_write(request_for.name, f"/mnt/{name}")
            assert (tmp_path / name / "made").exists()

    async def test_mounts_that_are_read_only(
        self, subject: Subject, request_for: ContainerRequest, tmp_path: Path
    ) -> None:
        await subject.engine.run(replace(request_for, mounts=(Mount(str(tmp_path), "/mnt/work", read_only=True),)))
        assert not subject.can_write(request_for.name, "/mnt/work")
        assert not (tmp_path / "made").exists()

    async def test_a_port_that_is_taken(self, subject: Subject, request_for: ContainerRequest) -> None:
        with taken_port() as port:
            subject.hold(port)
            with pytest.raises(PortTaken):
                await subject.engine.run(replace(request_for, ports=(Port(port, 61806),)))
        await self._nothing_left(subject, request_for)

    async def test_a_port_of_another_container(
        self, subject: Subject, request_for: ContainerRequest, names: list[str]
    ) -> None:
        names.append(f"{request_for.name}-second")
        published = replace(request_for, ports=(Port(free_port(), 61806),))
        await subject.engine.run(published)
        with pytest.raises(PortTaken):
            await subject.engine.run(replace(published, name=names[1]))
        assert await subject.engine.inspect(names[1]) is None
        assert await self._runs(subject, request_for.name)

    async def test_an_image_that_is_missing(self, subject: Subject, request_for: ContainerRequest) -> None:
        with pytest.raises(ImageError, match="there-is-none"):
            await subject.engine.run(replace(request_for, image="container-kernels/there-is-none"))
        await self._nothing_left(subject, request_for)

    @pytest.mark.parametrize("program", ["there-is-none", "/there/is/none"])
    async def test_a_program_that_is_missing(
        self, subject: Subject, request_for: ContainerRequest, program: str
    ) -> None:
        with pytest.raises(ImageError, match=program):
            await subject.engine.run(replace(request_for, command=(program,)))
        await self._nothing_left(subject, request_for)

    async def test_a_source_that_is_missing(
        self, subject: Subject, request_for: ContainerRequest, tmp_path: Path
    ) -> None:
        with pytest.raises(WorkdirError, match="gone"):
            await subject.engine.run(replace(request_for, mounts=(Mount(str(tmp_path / "gone"), "/mnt/gone"),)))
        await self._nothing_left(subject, request_for)

    async def test_a_name_that_is_in_use(self, subject: Subject, request_for: ContainerRequest) -> None:
        await subject.engine.run(request_for)
        with pytest.raises(EngineError) as raised:
            await subject.engine.run(request_for)
        assert "in use" in str(raised.value)
        assert await self._runs(subject, request_for.name)  # the first is none of the second's business

    async def test_time_is_over(self, subject: Subject, request_for: ContainerRequest) -> None:
        with pytest.raises(CommandTimeout):
            await subject.engine.run(request_for, timeout=0)
        await self._nothing_left(subject, request_for)

    async def test_more_cpus_than_there_are(self, subject: Subject, request_for: ContainerRequest) -> None:
        many = replace(request_for, cpus=4096)
        if subject.ways.refuses_many_cpus:
            with pytest.raises(EngineError):
                await subject.engine.run(many)
            await self._nothing_left(subject, request_for)
        else:
            await subject.engine.run(many)
            assert await self._runs(subject, request_for.name)

    # -- Looks

    async def _runs(self, subject: Subject, name: str) -> bool:
        state = await subject.engine.inspect(name)
        return state is not None and state.running

    async def _gone(self, subject: Subject, name: str) -> bool:
        return await state_at_last(subject.engine, name) is None

    async def _nothing_left(self, subject: Subject, request: ContainerRequest) -> None:
        assert await subject.engine.inspect(request.name) is None


class CommandContract:
    """What only an engine that runs something can keep."""

    @pytest.mark.parametrize("seconds", [0.05, 0.15, 0.25, 0.35, 0.5])
    async def test_a_run_that_is_ended_half_way(
        self, subject: Subject, request_for: ContainerRequest, seconds: float
    ) -> None:
        """Wherever it is met. On a quick machine the later ones are done in time."""
        try:
            await subject.engine.run(request_for, timeout=seconds)
        except CommandTimeout:
            state = await subject.engine.inspect(request_for.name)
            assert state is None, state
            assert request_for.name not in [state.name for state in await subject.engine.list()]

    async def test_a_command_that_prints_nothing_for_too_long(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subject.module, "RUNNING", 3.0)
        task = asyncio.create_task(subject.engine.output(IMAGE, ["python3", "-c", DEAF]))
        assert await self._throw_away(subject, wanted=True)  # `ps` and `gc` know whose it is
        with pytest.raises(CommandTimeout):
            await task
        assert not await self._throw_away(subject, wanted=False)

    async def test_a_command_whose_output_nobody_waits_for(self, subject: Subject) -> None:
        task = asyncio.create_task(subject.engine.output(IMAGE, ["python3", "-c", DEAF]))
        assert await self._throw_away(subject, wanted=True)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await self._throw_away(subject, wanted=False)

    async def _throw_away(self, subject: Subject, *, wanted: bool) -> list[ContainerState]:
        """This process's containers, once there are some, or none, or when time is over."""
        ours = await owner.this_process()
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [state for state in await subject.engine.list() if state.labels.get(OWNER_LABEL) == ours]
            if bool(found) == wanted or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.05)

    async def test_both_streams_are_in_the_log(self, subject: Subject, request_for: ContainerRequest) -> None:
        code = "import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True)\n" + WAIT
        await subject.engine.run(replace(request_for, command=("python3", "-c", code)))
        both = await log_with(subject.engine, request_for.name, "out\n", "err\n")
        assert sorted(both.split()) == ["err", "out"]

    async def test_ports_are_published_on_the_loopback_only(
        self, subject: Subject, request_for: ContainerRequest
    ) -> None:
        code = "import socket, sys\nserver = socket.create_server(('', 61806))\nprint('ready', flush=True)\n" + WAIT
        port = free_port()
        await subject.engine.run(replace(request_for, command=("python3", "-c", code), ports=(Port(port, 61806),)))
        await log_with(subject.engine, request_for.name, "ready\n")
        socket.create_connection(("127.0.0.1", port), 5).close()
        for other in other_addresses():
            with pytest.raises(OSError, match=r"refused|timed out"):
                socket.create_connection((other, port), 1).close()

    # -- What it refuses
