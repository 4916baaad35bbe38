"""Whatever is wrong with the pool, a kernel starts: from the next slot that serves, or cold, and the log says why."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.manager import AsyncKernelManager

from container_kernels.engines import ENGINES
from container_kernels.guest import wire
from container_kernels.kernel_container import KernelContainer, Start
from container_kernels.pool import claiming
from container_kernels.pool.checked import plain
from container_kernels.pool.claiming import ANSWER, TRYING
from container_kernels.pool.ledger import Slot

from ..conftest import EngineUnderTest, RunningKernel, eventually_async
from ..pool.test_files import NO_FILE, NO_JSON, as_root, content
from .pools import TOKEN, PoolUnderTest, Program, only_docker, program

COLD = 15.0  # seconds for a cold start on a busy machine; it usually takes one or two
NOBODY = 65534

Starter = Callable[..., Awaitable[RunningKernel]]


class Poisoned:
    """Starts kernels from a pool that is not what it should be."""

    def __init__(self, pool: PoolUnderTest, start_kernel: Starter, caplog: pytest.LogCaptureFixture) -> None:
        self.pool = pool
        self._start = start_kernel
        self._caplog = caplog

    async def starts(self, within: float = COLD) -> RunningKernel:
        begin = time.monotonic()
        kernel = await self._start()
        assert await kernel.run("print(6 * 7)") == "42"
        took = time.monotonic() - begin
        assert took < within, f"the start took {took:.1f} s"
        return kernel

    async def starts_warm(self, **kwargs: Any) -> RunningKernel:
        kernel = await self.starts(**kwargs)
        assert kernel.provisioner.is_warm, self._caplog.text
        return kernel

    async def starts_cold(self, why: str, **kwargs: Any) -> RunningKernel:
        """The log has the reason."""
        kernel = await self.starts(**kwargs)
        assert not kernel.provisioner.is_warm
        (reason,) = re.findall(r"Kernel \S+ starts cold: (.*)", self._caplog.text)
        assert re.search(why, reason), reason
        return kernel

    def dropped(self) -> dict[str, str]:
        """Of each container that was dropped, why: a person sees it without asking for debugging output."""
        said = [record.getMessage() for record in self._caplog.records if record.levelname == "INFO"]
        found = [re.match(r"The warm container (\S+) was dropped: (.*)", line) for line in said]
        return {match[1]: match[2] for match in found if match}


@pytest.fixture
async def poisoned(pool: PoolUnderTest, start_kernel: Starter, caplog: pytest.LogCaptureFixture) -> Poisoned:
    """What a kernel that is started here wants is known, and nothing is warm yet."""
    await pool.wish()
    return Poisoned(pool, start_kernel, caplog)


async def no_kernel_is_left(kernel: RunningKernel, engine: EngineUnderTest) -> None:
    await kernel.manager.shutdown_kernel(now=True)
    assert await eventually_async(engine.containers, lambda names: not names) == []


async def test_a_pool_that_is_well(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """Otherwise what follows would prove nothing."""
    await poisoned.pool.fill()
    kernel = await poisoned.starts_warm()
    assert poisoned.dropped() == {}
    await no_kernel_is_left(kernel, engine)
    assert poisoned.pool.ledger.claims() == []


# -- Files of slots


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def put(value: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(value)

    return damage


def replaced_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def linked_elsewhere(path: Path) -> None:
    """The content is right, and yet it may be another's tomorrow."""
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


DAMAGED_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    **{name: (replaced_by(make), "damaged") for name, make in (NO_JSON | NO_FILE).items()},
    "halved": (halved, "it is no JSON"),
    "null": (put(b"null"), "is no dict|has other fields"),
    "list": (put(b"[[]]"), "has other fields"),
    "of another shape": (put(b'{"name": "x"}'), "has other fields"),
    "of another container": (put(b"{}"), "has other fields"),
    "mode 0644": (lambda path: path.chmod(0o644), "others may read"),
    "linked elsewhere": (linked_elsewhere, "damaged"),
}


def container(**changes: Any) -> Callable[[Slot], dict[str, Any]]:
    return lambda slot: {"container": {**slot.container, **changes}}


def ports(**changes: Any) -> Callable[[Slot], dict[str, Any]]:
    return lambda slot: {"container": {**slot.container, "ports": {**slot.container["ports"], **changes}}}


# Fields that a slot's file has instead of its own, and what is said of it.
OTHER_FIELDS: dict[str, tuple[Callable[[Slot], dict[str, Any]], str]] = {
    "from the future": (lambda slot: {"created": time.time() + 3600, "expires": time.time() + 7200}, "from the future"),
    "expired": (lambda slot: {"expires": time.time() - 1}, "expired"),
    "expired long ago": (lambda slot: {"created": 0.0, "expires": 0.0}, "expired"),
    "no number": (lambda slot: {"expires": float("inf")}, "damaged"),
    "another guest": (lambda slot: {"guest": "0" * 64}, "another guest"),
    "another fingerprint": (lambda slot: {"fingerprint": "0" * 32}, "another fingerprint"),
    "another name": (lambda slot: {"name": "container-kernels-1"}, "damaged"),
    "another container": (container(name="container-kernels-1"), "no address"),
    "no token": (container(token=""), "no address"),
    "an engine that is none": (container(engine="lxc"), "its engine is not known"),
    "no ports": (container(ports={}), "no address"),
    "a port too many": (ports(transport=50000), "no address"),
    "an odd address": (ports(supervisor=65536), "no address"),
    "a field more": (lambda slot: {"more": 1}, "damaged"),
}


def silent(running: Program, sock: socket.socket) -> None:
    running.is_over.wait(60)


def closing(running: Program, sock: socket.socket) -> None:
    pass


def endless(running: Program, sock: socket.socket) -> None:
    """It says much, and never comes to the end of a line."""
    while not running.is_over.is_set():
        sock.sendall(b"x" * 1024)


def slow(running: Program, sock: socket.socket) -> None:
    while not running.is_over.wait(0.05):
        sock.sendall(b" ")


def another_protocol(running: Program, sock: socket.socket) -> None:
    sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    running.listen(sock)


def another_release(running: Program, sock: socket.socket) -> None:
    sock.sendall(wire.encode({"event": "greeting", "protocol": 99}))
    running.listen(sock)


def welcoming(**answer: Any) -> Callable[[Program, socket.socket], None]:
    """It speaks as a supervisor does, and lets everybody in."""

    def behave(running: Program, sock: socket.socket) -> None:
        sock.sendall(wire.encode({"event": "greeting", "protocol": wire.PROTOCOL}))
        question = running.next_message(sock)
        if answer.get("proof") == "echoed":
            answer["proof"] = question.get("nonce")
        sock.sendall(wire.encode({"event": "proof", **answer}))
        running.listen(sock)

    return behave


def proving(and_then: Callable[[Program, socket.socket], None], **answer: Any) -> Callable[[Program, socket.socket], None]:  # fmt: skip
    """A supervisor that the slot is of, and that does not do what it is for."""

    def behave(running: Program, sock: socket.socket) -> None:
        sock.sendall(wire.encode({"event": "greeting", "protocol": wire.PROTOCOL}))
        proof = wire.proof(wire.digest(TOKEN), running.next_message(sock).get("nonce", ""))
        sock.sendall(wire.encode({"event": "proof", "proof": proof}))
        running.next_message(sock)
        sock.sendall(wire.encode({"event": "welcome", "kernel": False, **answer}))
        and_then(running, sock)

    return behave


def answering(message: Any) -> Callable[[Program, socket.socket], None]:
    def behave(running: Program, sock: socket.socket) -> None:
        request = running.next_message(sock)
        line = json.dumps({"id": request.get("id"), **message}).encode() if isinstance(message, dict) else message
        sock.sendall(line + b"\n")
        running.listen(sock)

    return behave


# What may listen where the supervisor was, and what is said of it.
LISTENERS: dict[str, tuple[Callable[[Program, socket.socket], None], str]] = {
    "endless": (endless, "not to be understood"),
    "another protocol": (another_protocol, "not to be understood"),
    "another release": (another_release, "it speaks protocol 99"),
    "impostor": (welcoming(), "not the container that was made for us"),
    "impostor with a proof": (welcoming(proof="0" * 64), "not the container that was made for us"),
    "impostor with an echo": (welcoming(proof="echoed"), "not the container that was made for us"),
    "impostor with an odd proof": (welcoming(proof=["x"]), "not the container that was made for us"),
    "has a kernel": (proving(silent, kernel=True), "has a kernel already"),
    "refusing": (proving(answering({"error": {"kind": "running", "message": "no"}})), "no kernel starts in it: no"),
    "dying": (proving(closing), "no kernel starts in it"),
    "babbling": (proving(answering(b"[1]")), "no kernel starts in it"),
}
PATIENT_LISTENERS: dict[str, Callable[[Program, socket.socket], None] | None] = {
    "nobody": None,
    "silent": silent,
    "closing": closing,
    "slow": slow,
}


def poison_files(pool: PoolUnderTest) -> dict[str, tuple[str, str]]:
    """By the name of a slot: in which way it is poisoned, and what is to be said of it. No two of them are of the same age."""
    found = {}
    for age, (case, (harm, why)) in enumerate(DAMAGED_FILES.items()):
        slot = pool.invent()
        harm(pool.path(slot))
        pool.age(slot, 1000 - age)
        found[slot.name] = case, why
    for age, (case, (fields, why)) in enumerate(OTHER_FIELDS.items()):
        slot = pool.invent(age=500 - age)
        pool.rewrite(slot, {**plain(slot), **fields(slot)})
        found[slot.name] = case, why
    return found


def all_were_dropped(poisoned: Poisoned, cases: dict[str, tuple[str, str]]) -> None:
    dropped = poisoned.dropped()
    assert {case for name, (case, _) in cases.items() if name not in dropped} == set()
    wrong = {case: dropped[name] for name, (case, why) in cases.items() if not re.search(why, dropped[name])}
    assert wrong == {}
    assert poisoned.pool.ledger.slots() == []


async def test_files_that_are_damaged_do_not_hide_a_good_one(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    (good,) = await poisoned.pool.fill()
    cases = poison_files(poisoned.pool)
    kernel = await poisoned.starts_warm()
    assert engine.the_container() == good.name
    all_were_dropped(poisoned, cases)
    await no_kernel_is_left(kernel, engine)
    await poisoned.pool.filler.look()
    assert [claim for claim in poisoned.pool.ledger.claims() if claim.engine == engine.name] == []


@only_docker
async def test_nothing_but_files_that_are_damaged(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    cases = poison_files(poisoned.pool)
    kernel = await poisoned.starts_cold("damaged|no address")
    all_were_dropped(poisoned, cases)
    await no_kernel_is_left(kernel, engine)


@only_docker
@pytest.mark.parametrize("damage", ["directory", "fifo"])
async def test_a_file_that_is_damaged(damage: str, poisoned: Poisoned) -> None:
    slot = poisoned.pool.invent()
    DAMAGED_FILES[damage][0](poisoned.pool.path(slot))
    await poisoned.starts_cold("damaged")
    assert poisoned.dropped().keys() == {slot.name}
    assert (poisoned.pool.ledger.slots(), poisoned.pool.ledger.claims()) == ([], [])


# -- What is where a container was


async def test_listeners_that_are_no_warm_container(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """None that cannot prove to be the slot's supervisor is told a token or a key."""
    (good,) = await poisoned.pool.fill()
    cases, listeners = {}, {}
    with contextlib.ExitStack() as stack:
        for age, (case, (behave, why)) in enumerate(LISTENERS.items()):
            listeners[case] = stack.enter_context(program(behave))
            cases[poisoned.pool.invent(port=listeners[case].port, age=1000 - age).name] = case, why
        kernel = await poisoned.starts_warm()
        assert engine.the_container() == good.name
        all_were_dropped(poisoned, cases)
    assert {case for case, listener in listeners.items() if not listener.connections} == set()
    key = kernel.manager.session.key
    supervisors = {"has a kernel", "refusing", "dying", "babbling"}
    assert {case for case, listener in listeners.items() if TOKEN.encode() in listener.heard} == supervisors
    told = {case for case, listener in listeners.items() if key in listener.heard}
    assert {"refusing", "babbling"} <= told <= supervisors - {"has a kernel"}
    await no_kernel_is_left(kernel, engine)


@only_docker
async def test_listeners_that_keep_one_waiting(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """Not for long, and no longer for many of them: there are other slots still, which are not tried."""
    cases = {}
    with contextlib.ExitStack() as stack:
        for age, (case, behave) in enumerate([*PATIENT_LISTENERS.items()] * 3):
            port = stack.enter_context(program(behave)).port if behave else 1
            cases[poisoned.pool.invent(port=port, age=1000 - age).name] = case
        begin = time.monotonic()
        kernel = await poisoned.starts_cold("does not answer")
        assert time.monotonic() - begin < TRYING + 2 * ANSWER + COLD
    tried = poisoned.dropped()
    assert len({cases[name] for name in tried}) >= 3
    assert TRYING / (ANSWER + 0.5) - 1 <= len(tried) <= TRYING / ANSWER + 1
    assert all("does not answer" in why for why in tried.values())
    await no_kernel_is_left(kernel, engine)


@only_docker
async def test_a_supervisor_that_never_starts_the_kernel(
    poisoned: Poisoned, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "WARM_START", 1.5)
    with program(proving(silent)) as listener:
        slot = poisoned.pool.invent(port=listener.port)
        kernel = await poisoned.starts_cold("no kernel starts in it: The kernel did not start in time")
    assert poisoned.dropped().keys() == {slot.name}
    await no_kernel_is_left(kernel, engine)


@only_docker
async def test_a_start_that_is_cancelled_while_the_kernel_starts(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """Nobody is connected to the container any more, and who fills the pool removes it."""
    with program(proving(silent)) as listener:
        slot = poisoned.pool.invent(port=listener.port)
        manager = AsyncKernelManager(kernel_name="container-python")
        start: asyncio.Task[None] = asyncio.ensure_future(manager.start_kernel())
        assert await eventually_async(lambda: TOKEN.encode() in listener.heard, bool)
        assert listener.ended == 0
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        listener.is_over.set()
        assert await eventually_async(lambda: listener.ended, lambda ended: ended == 1) == 1
    assert [(claim.name, claim.kernel_id) for claim in poisoned.pool.ledger.claims()] in ([], [(slot.name, "")])


TOKENS = {"wrong": "wrong", "odd": "\ud800é", "long": "x" * 10_000}


async def test_the_port_of_another_container(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """It does not let us in, and serves whom it is for."""
    (other,) = await poisoned.pool.fill()
    cases = {}
    for age, (case, token) in enumerate(TOKENS.items()):
        slot = poisoned.pool.invent(port=other.container["ports"]["supervisor"], age=1000 - age)
        poisoned.pool.change(slot, container={**slot.container, "token": token})
        cases[slot.name] = case, "not the container that was made for us"
    kernel = await poisoned.starts_warm()
    assert engine.the_container() == other.name
    all_were_dropped(poisoned, cases)
    await no_kernel_is_left(kernel, engine)


# -- Containers


def host_pid(engine: EngineUnderTest, name: str) -> int:
    return int(engine.run("inspect", "--format", "{{.State.Pid}}", name))


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def claimed_by_another(slot: Slot, engine: EngineUnderTest) -> KernelContainer:
    """Somebody who has the token has started a kernel in it."""
    deadline, log = time.monotonic() + 10, logging.getLogger(__name__)
    container = await KernelContainer.claim(ENGINES[engine.name], slot.container, deadline=deadline, log=log)
    connection = {"key": "theirs", "signature_scheme": "hmac-sha256"}
    await container.start(Start(connection, slot.curve, {}), deadline)
    return container


def removed(engine: EngineUnderTest, slot: Slot) -> None:
    engine.run("rm", "--force", slot.name)


def paused(engine: EngineUnderTest, slot: Slot) -> None:
    engine.run("pause", slot.name)


def stopped(engine: EngineUnderTest, slot: Slot) -> None:
    os.kill(host_pid(engine, slot.name), signal.SIGSTOP)


def killed(engine: EngineUnderTest, slot: Slot) -> None:
    os.kill(host_pid(engine, slot.name), signal.SIGKILL)


def restarted(engine: EngineUnderTest, slot: Slot) -> None:
    """It is another one then, and has the name and the ports of the one before."""
    engine.run("restart", "--time", "0", slot.name)


# What is done to a container that waits in the pool, and whether it is still there when nobody looks after it.
DONE_TO_CONTAINERS: dict[str, tuple[Callable[[EngineUnderTest, Slot], None], bool]] = {
    "paused": (paused, True),
    "stopped": (stopped, True),
    "killed": (killed, False),
}


@pytest.mark.parametrize("done", DONE_TO_CONTAINERS)
async def test_a_container_that_does_not_answer(done: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    (slot,) = await poisoned.pool.fill()
    do, stays = DONE_TO_CONTAINERS[done]
    do(engine, slot)
    try:
        kernel = await poisoned.starts_cold("it does not answer")
        assert poisoned.dropped().keys() == {slot.name}
        await kernel.manager.shutdown_kernel(now=True)
    finally:
        if stays:
            engine.run("rm", "--force", slot.name)
    assert await eventually_async(engine.containers, lambda names: not names) == []


# Of the template and the parked kernel, which was forked from it: those that are killed.
PROCESSES = {"the template": slice(0, 1), "the parked kernel": slice(1, 2), "both": slice(0, 2)}


@pytest.mark.parametrize("which", PROCESSES)
async def test_processes_in_the_container_that_were_killed(which: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:  # fmt: skip
    """The supervisor has them forked anew: slower than parked, and faster than another container."""
    (slot,) = await poisoned.pool.fill()
    both = sorted(children(host_pid(engine, slot.name)))
    assert len(both) == 2
    for pid in reversed(both[PROCESSES[which]]):  # the parked one ends with the template
        os.kill(pid, signal.SIGKILL)
        await eventually_async(Path(f"/proc/{pid}").exists, lambda there: not there)  # PID 1 knows
    kernel = await poisoned.starts_warm()
    assert engine.the_container() == slot.name
    await no_kernel_is_left(kernel, engine)


async def test_a_container_that_was_restarted(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """It is a new one of the same name and token; whether it serves or not, the kernel starts."""
    (slot,) = await poisoned.pool.fill()
    try:
        engine.run("restart", "--time", "0", slot.name)
    except AssertionError:
        removed(engine, slot)  # an engine that removes it, and so cannot start it again
    kernel = await poisoned.starts()
    await kernel.manager.shutdown_kernel(now=True)
    left = await eventually_async(engine.containers, lambda names: names in ([], [slot.name]))
    if not kernel.provisioner.is_warm and left:  # it did not answer as soon as it was back
        removed(engine, slot)
    assert await eventually_async(engine.containers, lambda names: not names) == []


async def test_a_container_with_a_kernel_already(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """A kernel that is somebody's is left alone."""
    (slot,) = await poisoned.pool.fill()
    other = await claimed_by_another(slot, engine)
    try:
        kernel = await poisoned.starts_cold("has a kernel already")
        assert other.is_usable
        await kernel.manager.shutdown_kernel(now=True)
        assert await eventually_async(engine.containers, lambda names: len(names) == 1) == [slot.name]
        assert other.poll() is None
    finally:
        await other.end()
    assert await eventually_async(engine.containers, lambda names: not names) == []
    assert [claim.kernel_id for claim in poisoned.pool.ledger.claims()] in ([], [""])


PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())

# Keys, and whether a kernel can have them: one is forked then, since the parked one has others.
CURVES: dict[str, tuple[dict[str, str], bool]] = {
    "none": ({}, True),
    "another pair": ({"curve_publickey": PUBLIC, "curve_secretkey": SECRET}, True),
    "half a pair": ({"curve_publickey": PUBLIC}, False),
    "the other half": ({"curve_secretkey": SECRET}, False),
    "no pair": ({"curve_publickey": SECRET, "curve_secretkey": PUBLIC}, False),
    "no keys": ({"curve_publickey": "x", "curve_secretkey": "\ud800"}, False),
    "more": ({"curve_publickey": PUBLIC, "curve_secretkey": SECRET, "x": "y"}, False),
}


@only_docker
@pytest.mark.parametrize("curve", [name for name, (_, can_be) in CURVES.items() if can_be])
async def test_keys_that_are_not_the_parked_kernels(curve: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    (slot,) = await poisoned.pool.fill()
    poisoned.pool.change(slot, curve=CURVES[curve][0])
    kernel = await poisoned.starts_warm()
    await no_kernel_is_left(kernel, engine)


@only_docker
async def test_keys_that_are_none(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    (good,) = await poisoned.pool.fill()
    cases = {
        poisoned.pool.invent(curve=curve, age=1000 - age).name: (name, "no keys")
        for age, (name, (curve, can_be)) in enumerate(CURVES.items())
        if not can_be
    }
    kernel = await poisoned.starts_warm()
    assert engine.the_container() == good.name
    all_were_dropped(poisoned, cases)
    await no_kernel_is_left(kernel, engine)


async def test_an_engine_that_was_restarted(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """All of its containers are gone, and the next look at the pool finds out."""
    await poisoned.pool.fill()
    engine.run("rm", "--force", *engine.containers())
    kernel = await poisoned.starts_cold("it does not answer")
    await kernel.manager.shutdown_kernel(now=True)
    (anew,) = await poisoned.pool.fill()
    kernel = await poisoned.starts_warm()
    assert engine.the_container() == anew.name
    await no_kernel_is_left(kernel, engine)


# -- Directories


def of_nobody(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def a_link_to_nothing(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("/nowhere/at/all")


def a_fifo(path: Path) -> None:
    shutil.rmtree(path)
    os.mkfifo(path)


def gone(path: Path) -> None:
    shutil.rmtree(path)


NOT_OURS = "is not a directory of this user"

# What was done to a directory of the ledger, and why no kernel starts from it.
DIRECTORIES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "the pool is another users": ("", of_nobody, NOT_OURS),
    "the pool is a file": ("", a_file, NOT_OURS),
    "the pool is a link": ("", a_link, NOT_OURS),
    "the pool is gone": ("", gone, "no kernel like it"),
    "what it is in is a file": ("..", a_file, "no kernel like it|Not a directory"),
    "slots are a file": ("slots", a_file, NOT_OURS),
    "slots are gone": ("slots", gone, "no warm container is left"),
    "claims are a file": ("claims", a_file, NOT_OURS),
    "claims are a link": ("claims", a_link, NOT_OURS),
    "engines is a file": ("engines", a_file, NOT_OURS),
}


@as_root
@only_docker
@pytest.mark.parametrize("case", DIRECTORIES)
async def test_a_directory_that_is_no_good(case: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    part, harm, why = DIRECTORIES[case]
    poisoned.pool.invent(port=1)
    (poisoned.pool.directory / "claims").mkdir(0o700, exist_ok=True)
    harm(Path(os.path.normpath(poisoned.pool.directory / part)))
    kernel = await poisoned.starts_cold(why)
    await no_kernel_is_left(kernel, engine)


@only_docker
async def test_directories_that_are_open_to_others(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """They are closed to them, and serve."""
    await poisoned.pool.fill()
    directories = [path for path in poisoned.pool.directory.rglob("*") if path.is_dir()]
    for directory in (*directories, poisoned.pool.directory):
        directory.chmod(0o777)
    kernel = await poisoned.starts_warm()
    for part in ("", "slots", "claims", "wanted", "engines"):
        assert (poisoned.pool.directory / part).stat().st_mode & 0o077 == 0
    await no_kernel_is_left(kernel, engine)


@only_docker
async def test_parts_that_a_claim_can_do_without(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    await poisoned.pool.fill()
    for part in ("starting", "locks", "making", "failures"):
        shutil.rmtree(poisoned.pool.directory / part, ignore_errors=True)
        (poisoned.pool.directory / part).write_text("x")
    kernel = await poisoned.starts_warm()
    await no_kernel_is_left(kernel, engine)


# -- Disks


@contextmanager
def nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> Iterator[list[str]]:
    """What the ledger makes, changes, renames or removes below the directory is refused; what was tried is told."""
    refused = []

    def refusing(name: str, writes: Callable[..., bool]) -> None:
        real = getattr(os, name)

        def function(path: Any, *rest: Any, **named: Any) -> Any:
            below = not isinstance(path, int) and str(path).startswith(f"{directory}/")
            if below and writes(*rest, **named):
                refused.append(name)
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *rest, **named)

        patched.setattr(os, name, function)

    with monkeypatch.context() as patched:
        refusing("open", lambda flags, *_, **__: bool(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)))
        for name in ("mkdir", "rename", "replace", "unlink", "chmod"):
            refusing(name, lambda *_, **__: True)
        yield refused


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@only_docker
async def test_a_disk_that_takes_nothing(
    number: int, poisoned: Poisoned, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that cannot be claimed is left: nobody would know that it is."""
    slot = poisoned.pool.invent()
    with nothing_can_be_written(monkeypatch, poisoned.pool.directory, number) as refused:
        kernel = await poisoned.starts_cold(f"the pool cannot be used: .*{re.escape(os.strerror(number))}")
        assert refused
        await no_kernel_is_left(kernel, engine)
    assert poisoned.pool.slot() == slot


async def test_a_disk_that_is_full(
    poisoned: Poisoned, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names can still be made, and nothing be written to them: nobody would know whose the container is, so that it is not used."""
    (slot,) = await poisoned.pool.fill()
    real = os.fdopen

    def full(descriptor: int, *arguments: Any, **named: Any) -> Any:
        file = real(descriptor, *arguments, **named)
        if str(poisoned.pool.directory) in os.readlink(f"/proc/self/fd/{descriptor}"):
            file.write = lambda content: refuse() if content else 0
        return file

    def refuse() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", full)
        kernel = await poisoned.starts_cold(f"the pool cannot be used: .*{os.strerror(errno.ENOSPC)}")
        await kernel.manager.shutdown_kernel(now=True)
    assert [(claim.name, claim.kernel_id) for claim in poisoned.pool.ledger.claims()] == [(slot.name, "")]
    assert poisoned.pool.ledger.slots() == []
    removed(engine, slot)  # as who fills the pool does, after a while
    await poisoned.pool.fill()
    assert poisoned.pool.ledger.claims() == []


# -- What is remembered


def another_image(value: dict[str, Any]) -> None:
    value["image_id"] = "sha256:" + "0" * 64


def another_recipe(value: dict[str, Any]) -> None:
    value["recipe"]["request"]["memory"] = 1


def many_processors(value: dict[str, Any]) -> None:
    value["cpus"] = 10**400


def other_options(value: dict[str, Any]) -> None:
    value["user_options"] = ["\ud800", "--privileged"]


MISSED = "no container was made for it yet|no warm container is left"

# Records with other content, and why no kernel starts from the pool then.
RECORDS: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "another image": ("wanted", another_image, MISSED),
    "another recipe": ("wanted", another_recipe, MISSED),
    "many processors": ("engines", many_processors, "cannot be used|" + MISSED),
    "other options": ("engines", other_options, "cannot be used|" + MISSED),
}


def only_record(pool: PoolUnderTest, part: str) -> Path:
    (path,) = (pool.directory / part).iterdir()
    return path


@only_docker
@pytest.mark.parametrize("case", RECORDS)
async def test_a_record_that_says_something_else(case: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """The next start but one is warm again."""
    part, change, why = RECORDS[case]
    poisoned.pool.invent(port=1)
    path = only_record(poisoned.pool, part)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    kernel = await poisoned.starts_cold(why)
    await no_kernel_is_left(kernel, engine)


@pytest.mark.parametrize("part", ["wanted", "engines"])
async def test_a_record_that_is_damaged(part: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """After the cold start it is there again; where the pool was not filled since, the container that was made before serves."""
    (slot,) = await poisoned.pool.fill()
    only_record(poisoned.pool, part).write_text("{")
    kernel = await poisoned.starts_cold("no kernel like it was started here before" if part == "engines" else MISSED)
    await kernel.manager.shutdown_kernel(now=True)
    await poisoned.pool.fill()
    kernel = await poisoned.starts_warm()
    assert kernel.provisioner._container.name == slot.name
    await no_kernel_is_left(kernel, engine)


@only_docker
@pytest.mark.parametrize("damage", ["deep", "fifo"])
async def test_what_stands_for_records(damage: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    poisoned.pool.invent(port=1)
    for part in ("wanted", "engines"):
        path = only_record(poisoned.pool, part)
        path.unlink()
        (NO_JSON | NO_FILE)[damage](path)
    await no_kernel_is_left(await poisoned.starts_cold("no kernel like it was started here before"), engine)


@only_docker
@pytest.mark.parametrize("damage", ["fifo", "directory"])
async def test_a_journal_that_cannot_be_written(damage: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    await poisoned.pool.fill()
    (poisoned.pool.directory / "journal.jsonl").unlink(missing_ok=True)
    NO_FILE[damage](poisoned.pool.directory / "journal.jsonl")
    await no_kernel_is_left(await poisoned.starts_warm(), engine)


# -- Leftovers


async def test_leftovers_of_all_kinds(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """Of processes that were killed, over the years."""
    await poisoned.pool.fill()
    for part in ("slots", "claims", "making", "wanted", "engines", "failures", "starting", "locks"):
        directory = poisoned.pool.directory / part
        directory.mkdir(0o700, exist_ok=True)
        for number in range(200):
            for name in (f"container-kernels-{number:012x}.json", f".{number}.json.x", f"{number}-{number:032x}"):
                (directory / name).touch(0o600)
        for name, make in NO_FILE.items():
            make(directory / f"container-kernels-{name.replace(' ', '-')}.json")
    kernel = await poisoned.starts_warm()
    await no_kernel_is_left(kernel, engine)


@only_docker
@pytest.mark.parametrize(("age", "why"), [(0, "no warm container is left"), (60, "its taker died")])
async def test_a_claim_that_was_left_halfway(age: float, why: str, poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """Its taker may still live for some seconds; afterwards nobody can take the slot any more, and it is dropped."""
    slot = poisoned.pool.invent(port=1)
    claim = poisoned.pool.directory / "claims" / f"{slot.name}.json"
    claim.parent.mkdir(0o700, exist_ok=True)
    content(b"")(claim)
    os.utime(claim, (time.time() - age, time.time() - age))
    await no_kernel_is_left(await poisoned.starts_cold(why), engine)


# -- Clocks


@pytest.mark.parametrize(("seconds", "why"), [(7200, "expired"), (-7200, "from the future")])
@only_docker
async def test_a_clock_that_was_set(
    seconds: float, why: str, poisoned: Poisoned, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned.pool.invent(port=1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    await no_kernel_is_left(await poisoned.starts_cold(why), engine)


@only_docker
async def test_a_clock_that_was_set_back_by_little(
    poisoned: Poisoned, engine: EngineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await poisoned.pool.fill()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 50)
    await no_kernel_is_left(await poisoned.starts_warm(), engine)


@only_docker
async def test_files_from_another_time(poisoned: Poisoned, engine: EngineUnderTest) -> None:
    """A file system's clock is not ours: when a file was written only says which is tried first."""
    (slot,) = await poisoned.pool.fill()
    for path in poisoned.pool.directory.rglob("*"):
        os.utime(path, (0, 0) if path.suffix == ".json" else (4e9, 4e9))
    poisoned.pool.age(slot, -1e9)
    await no_kernel_is_left(await poisoned.starts_warm(), engine)
