"""The real supervisor, as PID 1 of a real container, spoken to over its wire by a host of the tests' own.

It is the same program on every engine, so one engine is enough: the first of those that are tested.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from container_kernels.engines.docker import run_arguments
from container_kernels.engines.protocol import ContainerRequest, Mount
from container_kernels.guest import wire
from container_kernels.kernel_container import BOOT, GUEST_MOUNT
from container_kernels.ports import HOST, Ports

from ..conftest import eventually
from ..conftest import tested_engines as engines_here

IMAGE = "container-kernels/python"
DATA_IMAGE = "container-kernels/data"
TOKEN = "the token of the tests"
PATIENCE = 30.0  # seconds until a test gives up
KEY = "the key"
CONNECTION = {"key": KEY, "signature_scheme": "hmac-sha256"}
IPYKERNEL = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
SETTINGS = {
    "token_digest": wire.digest(TOKEN),
    "time_to_live": 120.0,
    "lease_grace": 120.0,
    "idle_grace": 120.0,
    "scratch": "/tmp",
    "umask": 0o022,
    "preload": [],
    "template": True,
}

PRIVATE = f"/tmp/.container-kernels-{wire.digest(TOKEN)[:16]}"

# Run in the container, beside the supervisor.
PROCESSES = """
import json, os, sys
table = {}
for entry in filter(str.isdigit, os.listdir("/proc")):
    try: name, _, rest = open(f"/proc/{entry}/stat").read().rpartition(")")
    except OSError: continue
    words = rest.split()
    if int(entry) != os.getpid(): table[int(entry)] = [int(words[1]), words[0]]
print(json.dumps(table))
"""
# The command lines of all processes but the one that looks.
COMMANDS = """
import os
for entry in filter(str.isdigit, os.listdir("/proc")):
    if int(entry) != os.getpid(): print(open(f"/proc/{entry}/cmdline").read())
"""
KILL = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"


class Closed(Exception):
    """The supervisor has closed the connection."""


class Host:
    """One connection to the supervisor."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.socket = sock
        self.decoder = wire.Decoder()
        self.messages: list[wire.Message] = []
        self.number = 0

    def say(self, message: wire.Message | bytes) -> None:
        self.socket.sendall(message if isinstance(message, bytes) else wire.encode(message))

    def hear(self) -> wire.Message:
        """The next message. Raises Closed."""
        while not self.messages:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                raise Closed from None
            if not data:
                raise Closed
            self.messages = self.decoder.feed(data)
        return self.messages.pop(0)

    def introduce(self, token: str = TOKEN) -> wire.Message:
        """The supervisor's answer to the token."""
        self.say({"op": "hello", "protocol": wire.PROTOCOL, "token": token})
        return self.hear()

    def send(self, op: str, **fields: Any) -> int:
        self.number += 1
        self.say({"op": op, "id": self.number, **fields})
        return self.number

    def answer(self, number: int) -> wire.Message:
        """The answer to a request; what comes before it is kept for later."""
        before = []
        while (message := self.hear()).get("id") != number:
            before.append(message)
        self.messages = before + self.messages
        return message

    def ask(self, op: str, **fields: Any) -> wire.Message:
        return self.answer(self.send(op, **fields))

    def event(self) -> wire.Message:
        while "event" not in (message := self.hear()):
            continue
        return message

    def start(self, **fields: Any) -> wire.Message:
        start: dict[str, Any] = {
            "connection": CONNECTION,
            "environment": {},
            "cwd": None,
            "argv": [],
            "extra_arguments": [],
        }
        return self.ask("start", **{**start, **fields})

    def is_closed(self) -> bool:
        with contextlib.suppress(Closed):
            while True:
                self.hear()
        return True


@dataclass
class Guest:
    """A container whose PID 1 is the supervisor."""

    engine: str
    name: str
    ports: Ports
    open: list[Any] = field(default_factory=list)

    def say(self, *arguments: str) -> str:
        done = subprocess.run([self.engine, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, code: str, *arguments: str) -> str:
        """As root, so that it may look at everything."""
        return self.say("exec", "--user", "0:0", self.name, "python3", "-c", code, *arguments)

    def processes(self) -> dict[int, tuple[int, str]]:
        """Parent and state of each process but the one that looks."""
        table = json.loads(self.run(PROCESSES))
        return {int(pid): (int(parent), str(state)) for pid, (parent, state) in table.items()}

    def kill(self, pid: int, number: int) -> None:
        self.run(KILL, str(pid), str(number))

    def log(self) -> str:
        done = subprocess.run([self.engine, "logs", self.name], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def exists(self) -> bool:
        argv = [self.engine, "container", "inspect", self.name]
        return subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0

    def is_gone(self) -> bool:
        return not eventually(self.exists, lambda exists: not exists, timeout=PATIENCE)

    def connect(self) -> Host:
        """Greeted, and not yet introduced."""
        deadline = time.monotonic() + PATIENCE
        while True:
            # An engine's proxy accepts before the supervisor listens, and closes again.
            with contextlib.suppress(ConnectionError, Closed):
                sock = socket.create_connection((HOST, self.ports.supervisor), PATIENCE)
                self.open.append(sock)
                host = Host(sock)
                assert host.hear() == {"event": "greeting", "protocol": wire.PROTOCOL}
                return host
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def claim(self) -> Host:
        host = self.connect()
        assert host.introduce()["event"] == "welcome"
        return host

    def client(self) -> BlockingKernelClient:
        """A client of the kernel, ready."""
        client = BlockingKernelClient()
        info = {
            "transport": "tcp",
            "ip": HOST,
            **self.ports.kernel,
            "key": KEY.encode(),
            "signature_scheme": "hmac-sha256",
        }
        client.load_connection_info(info)  # type: ignore[arg-type] # a dict of another name
        client.start_channels()
        self.open.append(client)
        client.wait_for_ready(timeout=PATIENCE)
        return client

    def template(self, kernel: int | None = None) -> int:
        """Its pid: the child of PID 1 that is no kernel."""
        (pid,) = [
            pid for pid, (parent, state) in self.processes().items() if parent == 1 and pid != kernel and state != "Z"
        ]
        return pid

    def close(self) -> None:
        for each in self.open:
            each.stop_channels() if isinstance(each, BlockingKernelClient) else each.close()


StartGuest = Callable[..., Guest]


def start_guest(
    prelude: str = "", *, image: str = IMAGE, engine_args: Sequence[str] = (), mounts: Sequence[Mount] = (), memory: int = 512 << 20,
    user: str | None = None, environment: Mapping[str, str] | None = None, **settings: Any,
) -> Guest:  # fmt: skip
    """A container that is begun. `prelude` is code that runs before the guest's own, to shorten its times or spoil its Python."""
    engine = engines_here()[0]
    code = BOOT.replace("import container_kernels_guest.boot", f"{prelude}\nimport container_kernels_guest.boot")
    for _ in range(5):
        ports = Ports.choose()
        request = ContainerRequest(
            name=f"guest-test-{uuid.uuid4().hex[:12]}",
            image=image,
            command=("python3", "-c", code),
            cpus=1.0,
            memory=memory,
            pids=100,
            user=user,
            mounts=(GUEST_MOUNT, *mounts),
            ports=ports.published,
            environment={**(environment or {}), "CONTAINER_KERNELS_GUEST": json.dumps({**SETTINGS, **settings})},
            engine_args=tuple(engine_args),
        )
        run = subprocess.run([engine, *run_arguments(request)], capture_output=True, text=True, timeout=60, check=False)
        if run.returncode == 0:
            return Guest(engine, request.name, ports)
        subprocess.run([engine, "rm", "--force", request.name], capture_output=True, timeout=60, check=False)
        assert "address already in use" in run.stderr or "already allocated" in run.stderr, run.stderr
    raise AssertionError("no free ports")


def end_guest(guest: Guest) -> None:
    guest.close()
    subprocess.run([guest.engine, "rm", "--force", guest.name], capture_output=True, timeout=60, check=False)


@pytest.fixture
def begin() -> Iterator[StartGuest]:
    begun: list[Guest] = []

    def start(*arguments: Any, **settings: Any) -> Guest:
        begun.append(start_guest(*arguments, **settings))
        return begun[-1]

    yield start
    for guest in begun:
        end_guest(guest)


@pytest.fixture
def guest(begin: StartGuest) -> Guest:
    return begin()


@pytest.fixture(scope="module")
def door() -> Iterator[Guest]:
    """One container for the tests of who is let in: none of them starts a kernel."""
    made = start_guest(template=False)
    yield made
    end_guest(made)


def execute(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """The reply's content."""
    reply: dict[str, Any] = client.execute_interactive(
        code, timeout=PATIENCE, allow_stdin=False, output_hook=lambda _: None
    )
    content: dict[str, Any] = reply["content"]
    return content


def value(client: BlockingKernelClient, expression: str) -> str:
    """The repr of an expression's value."""
    asked = client.execute("", silent=True, user_expressions={"value": expression})
    reply = client.get_shell_msg(timeout=PATIENCE)
    while reply["parent_header"].get("msg_id") != asked:  # an answer to `wait_for_ready`, which may ask more than once
        reply = client.get_shell_msg(timeout=PATIENCE)
    text: str = reply["content"]["user_expressions"]["value"]["data"]["text/plain"]
    return text


def is_running(client: BlockingKernelClient, code: str) -> str:
    """The cell is executed and has printed `at work`; its message id."""
    message_id = client.execute("print('at work', flush=True)\n" + code)
    while client.get_iopub_msg(timeout=PATIENCE)["msg_type"] != "stream":
        continue
    return str(message_id)


# -- Who is let in


def test_a_stranger_gets_a_greeting_and_nothing_else(door: Guest) -> None:
    stranger = door.connect()
    stranger.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        stranger.hear()


@pytest.mark.parametrize("op", ["start", "end", "kill", "signal"])
def test_a_stranger_is_not_obeyed(door: Guest, op: str) -> None:
    stranger = door.connect()
    stranger.say({"op": op, "id": 1, "signal": 9})
    assert stranger.hear()["error"]["kind"] == "protocol"
    assert stranger.is_closed()
    door.claim()  # and it is not the worse for it


@pytest.mark.parametrize("token", ["", "another", TOKEN[:-1], TOKEN + " ", None, 5, ["a"], {"a": 1}, "\ud800"])
def test_a_wrong_token_is_refused(door: Guest, token: Any) -> None:
    stranger = door.connect()
    assert stranger.introduce(token) == {"error": {"kind": "protocol", "message": "wrong token"}}
    assert stranger.is_closed()
    door.claim()  # and it is not the worse for it


@pytest.mark.parametrize("protocol", [wire.PROTOCOL + 1, 0, None, "1"])
def test_another_protocol_is_refused_even_with_the_token(door: Guest, protocol: Any) -> None:
    stranger = door.connect()
    stranger.say({"op": "hello", "protocol": protocol, "token": TOKEN})
    message = stranger.hear()["error"]["message"]
    assert message == f"this container speaks protocol {wire.PROTOCOL}, and the host {protocol!r}"
    assert stranger.is_closed()


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\n", b"[]\n", b"x" * (wire.MAX_STRANGER + 1)]
)
def test_a_stranger_that_talks_otherwise_or_too_much(door: Guest, data: bytes) -> None:
    stranger = door.connect()
    stranger.say(data)
    assert stranger.is_closed()
    door.claim()  # and it is not the worse for it


@pytest.mark.parametrize("data", [b"x" * (wire.MAX_MESSAGE + 2), b"garbage\n", b'{"op": "dance", "id": 1}\n', b"{}\n"])
def test_a_host_that_talks_otherwise_or_too_much(door: Guest, data: bytes) -> None:
    host = door.claim()
    with contextlib.suppress(ConnectionError):
        host.say(data)
    assert host.is_closed()
    door.claim()


def test_a_long_message_of_a_host_is_taken(door: Guest) -> None:
    answer = door.claim().ask("kill", padding="x" * (wire.MAX_MESSAGE - 100))
    assert "error" not in answer


def test_only_so_many_strangers_wait(door: Guest) -> None:
    host = door.claim()
    strangers = [door.connect() for _ in range(12)]
    assert all(stranger.is_closed() for stranger in strangers[:4])
    assert strangers[-1].introduce()["event"] == "welcome"
    assert "error" not in host.ask("kill")  # one that is known is not among them


def test_a_stranger_has_little_time(begin: StartGuest) -> None:
    guest = begin("import container_kernels_guest.connections as c; c.INTRODUCTION = 0.2", template=False)
    host, stranger = guest.claim(), guest.connect()
    assert stranger.is_closed()
    assert "error" not in host.ask("kill")


def test_two_hosts_hear_the_same(guest: Guest) -> None:
    one, other = guest.claim(), guest.claim()
    one.start()
    other.ask("signal", signal=9)
    assert one.event() == other.event()


@pytest.mark.parametrize(
    "fields",
    [{"environment": []}, {"environment": None}, {"argv": 5}, {"connection": "x"}, {"extra_arguments": None}],
)  # fmt: skip
def test_a_request_that_is_malformed_is_refused_and_no_more(door: Guest, fields: dict[str, Any]) -> None:
    host = door.claim()
    assert host.start(**{"argv": ["false"], **fields})["error"]["kind"] == "protocol"
    assert host.ask("signal", signal="x")["error"]["kind"] == "protocol"
    assert host.ask("signal", signal=4000)["error"]["kind"] == "protocol"
    assert host.start(argv=["false"])["error"]["kind"] == "died"  # no kernel was left half started


def test_a_kernel_for_a_template_that_is_not_there(door: Guest) -> None:
    assert door.claim().start()["error"]["kind"] == "template"


# -- Starting and ending


def test_a_kernel_starts_and_is_reached_at_once(guest: Guest) -> None:
    host = guest.claim()
    answer = host.start()
    assert answer["pid"] in guest.processes()
    assert set(answer["facts"]) == {"ipykernel", "python", "curve"}
    # Each socket speaks at the first try: an engine's proxy would accept for nobody, and close.
    for port in guest.ports.kernel.values():
        with socket.create_connection((HOST, port), PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            assert sock.recv(1) == b"\xff"  # ZMTP's greeting
    client = guest.client()
    assert value(client, "6 * 7") == "42"
    assert host.start()["error"] == {"kind": "running", "message": "a kernel runs already"}


def test_what_a_start_sets(guest: Guest) -> None:
    host = guest.claim()
    host.start(
        environment={"MARK": "ü 'x'", "TZ": "Asia/Tokyo"}, cwd="/var", extra_arguments=["--IPKernelApp.log_level=40"]
    )
    client = guest.client()
    seen = value(client, "(__import__('os').environ['MARK'], __import__('os').getcwd(), __import__('time').tzname[0])")
    assert eval(seen) == ("ü 'x'", "/var", "JST")
    assert "--IPKernelApp.log_level=40" in value(client, "__import__('sys').argv")


def test_again_and_again_in_one_container(guest: Guest) -> None:
    host = guest.claim()
    pids = set()
    for n in range(3):
        pids.add(host.start()["pid"])
        client = guest.client()
        assert value(client, "globals().get('x', 'new')") == "'new'"
        execute(client, f"x = {n}")
        client.stop_channels()
        assert "error" not in host.ask("kill")
        ended = host.event()
        assert (ended["signal"], ended["expected"]) == (9, True)
    assert len(pids) == 3


def test_a_directory_that_is_not_there(guest: Guest) -> None:
    error = guest.claim().start(cwd="/there/is/none")["error"]
    assert error["kind"] == "died"
    assert "No such file or directory: '/there/is/none'" in error["message"]


def test_an_argument_that_the_kernel_does_not_take(guest: Guest) -> None:
    host = guest.claim()
    error = host.start(extra_arguments=["--no-such-option=["])
    assert "pid" in error or error["error"]["kind"] == "died"
    host.ask("kill")
    assert "pid" in host.start()


def test_an_interrupt(guest: Guest) -> None:
    host = guest.claim()
    host.start()
    client = guest.client()
    is_running(client, "import time; time.sleep(600)")
    assert "error" not in host.ask("signal", signal=2)
    assert client.get_shell_msg(timeout=PATIENCE)["content"]["ename"] == "KeyboardInterrupt"
    assert value(client, "1") == "1"


def test_a_signal_or_a_kill_when_there_is_no_kernel(door: Guest) -> None:
    host = door.claim()
    for op in ("signal", "kill", "expect_end"):
        assert "error" not in host.ask(op, signal=15)


def test_killed_before_it_is_born(guest: Guest) -> None:
    host = guest.claim()
    start: dict[str, Any] = {
        "connection": CONNECTION,
        "environment": {},
        "cwd": None,
        "argv": [],
        "extra_arguments": [],
    }
    started, killed = host.send("start", **start), host.send("kill")
    assert host.answer(started)["error"]["kind"] in ("died", "template")
    host.answer(killed)
    assert "pid" in host.start()


def test_the_host_ends_the_container(guest: Guest) -> None:
    host = guest.claim()
    host.start()
    assert "error" not in host.ask("end")
    assert host.is_closed()
    assert guest.is_gone()


def test_the_engine_ends_the_container(guest: Guest) -> None:
    guest.claim().start()
    guest.say("kill", "--signal", "TERM", guest.name)
    assert guest.is_gone()


# -- How a kernel ends


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [
        ("import os; os._exit(3)", 3, None),
        ("import os; os.kill(os.getpid(), 9)", None, 9),
        ("import os; os.kill(os.getpid(), 11)", None, 11),
    ],
)
def test_how_it_ended_is_told_and_the_cell_hears_of_it(
    guest: Guest, code: str, exit_code: int | None, signal: int | None
) -> None:
    host = guest.claim()
    host.start()
    client = guest.client()
    reply = execute(client, code)  # its last words
    ended = host.event()
    assert (ended["event"], ended["exit_code"], ended["signal"], ended["expected"]) == (
        "ended",
        exit_code,
        signal,
        False,
    )
    assert ended["out_of_memory"] is False
    assert (reply["status"], reply["ename"]) == ("error", "KernelDied")
    assert reply["evalue"] == wire.Ending.from_message(ended).reason
    assert "pid" in host.start()


def test_out_of_memory_is_told(begin: StartGuest) -> None:
    guest = begin(memory=160 << 20)
    host = guest.claim()
    host.start()
    reply = execute(guest.client(), "hoard = []\nwhile True: hoard.append(bytearray(b'x' * (1 << 20)))")
    ended = host.event()
    assert (ended["signal"], ended["out_of_memory"], ended["memory_limit"]) == (9, True, 160 << 20)
    assert reply["evalue"] == "The kernel ran out of memory: it was killed at the container's limit of 160 MiB."
    assert "pid" in host.start()


def test_an_end_that_was_expected(guest: Guest) -> None:
    host = guest.claim()
    pid = host.start()["pid"]
    host.ask("expect_end")
    guest.kill(pid, 15)
    ended = host.event()
    assert (ended["expected"], ended["out_of_memory"]) == (True, False)


def test_an_end_while_no_host_was_there_is_told_to_the_next(guest: Guest) -> None:
    host = guest.claim()
    pid = host.start()["pid"]
    host.socket.close()
    guest.kill(pid, 9)
    eventually(guest.processes, lambda table: pid not in table, timeout=PATIENCE)
    again = guest.connect()
    again.introduce()
    assert again.event()["signal"] == 9


@pytest.mark.parametrize("how", ["killed", "dead"])
def test_its_children_go_with_it(guest: Guest, how: str) -> None:
    host = guest.claim()
    kernel = host.start()["pid"]
    client = guest.client()
    child = value(client, "__import__('subprocess').Popen(['sleep', '600']).pid")
    assert int(child) in guest.processes()
    if how == "killed":
        host.ask("kill")
    else:
        guest.kill(kernel, 9)  # the kernel alone
    left = eventually(guest.processes, lambda table: int(child) not in table, timeout=PATIENCE)
    assert int(child) not in left


def test_zombies_are_reaped(guest: Guest) -> None:
    host = guest.claim()
    host.start()
    # Orphans: their parent ends first, so they are PID 1's when they end.
    execute(guest.client(), "import subprocess\nfor _ in range(20): subprocess.run(['sh', '-c', 'sleep 0.1 & true'])")
    states = eventually(
        lambda: [state for parent, state in guest.processes().values() if parent == 1],
        lambda states: len(states) == 2,
        timeout=PATIENCE,
    )
    assert len(states) == 2  # the template and the kernel
    assert "Z" not in states


def test_a_pid_that_is_reaped_is_not_signalled(begin: StartGuest) -> None:
    """It may be another process's by now."""
    told = "def told(*words): os.write(2, f'os.kill{words}\\n'.encode()); kill(*words)\nos.kill = told"
    guest = begin(f"import os; kill = os.kill\n{told}")
    host = guest.claim()
    pid = host.start()["pid"]
    host.ask("kill")
    assert host.event()["signal"] == 9
    assert f"os.kill({pid}" not in guest.log()


# -- When no process is left

# Fails the template's own fork, or the one of the process between it and the kernel, while /full/yes is there.
FULL = """import errno, os; fork = os.fork
def full():
    between = os.getppid() != 1
    if os.getpid() != 1 and os.path.exists("/full/yes") and between is {between}: raise OSError(errno.EAGAIN, "full")
    return fork()
os.fork = full
"""
NO_PROCESS = {
    "kind": "no-process",
    "message": "The container has no process left: its limit is reached (`pids`).",
}
# Takes every process that there is, also those that become free, until it is told to stop.
HOARDER = """
import os, signal, time
children = []
while not os.path.exists("/full/enough"):
    try:
        pid = os.fork()
    except OSError:
        open("/full/hoarded", "w").close()
        time.sleep(0.005)
        continue
    if not pid:
        signal.pause()
    children.append(pid)
for child in children: os.kill(child, 9); os.waitpid(child, 0)
"""
HOARD = f"""
import os, subprocess, time
subprocess.Popen(["python3", "-c", {HOARDER!r}], start_new_session=True)
while not os.path.exists("/full/hoarded"): time.sleep(0.01)
"""


@pytest.mark.parametrize("between", [False, True])
def test_a_kernel_that_cannot_be_forked(begin: StartGuest, tmp_path: Path, between: bool) -> None:
    guest = begin(FULL.format(between=between), mounts=[Mount(str(tmp_path), "/full")])
    host = guest.claim()
    (tmp_path / "yes").touch()
    for _ in range(2):
        assert host.start()["error"] == NO_PROCESS
    (tmp_path / "yes").unlink()
    assert "pid" in host.start()
    assert "Traceback" not in guest.log()


@pytest.mark.parametrize("between", [False, True])
def test_last_words_that_cannot_be_forked(begin: StartGuest, tmp_path: Path, between: bool) -> None:
    prelude = "import container_kernels_guest.supervisor as s; s.LAST_WORDS = 600"
    guest = begin(f"{FULL.format(between=between)}{prelude}", mounts=[Mount(str(tmp_path), "/full")])
    host = guest.claim()
    host.start()
    is_running(guest.client(), "import os, time\nwhile not os.path.exists('/full/yes'): time.sleep(0.01)\nos._exit(3)")
    (tmp_path / "yes").touch()
    assert host.event()["exit_code"] == 3
    assert "the template had died" not in guest.log()


@pytest.mark.parametrize("argv", [[], IPYKERNEL])
def test_the_containers_processes_are_used_up(begin: StartGuest, tmp_path: Path, argv: list[str]) -> None:
    guest = begin(mounts=[Mount(str(tmp_path), "/full")])
    host = guest.claim()
    host.start()
    assert execute(guest.client(), HOARD)["status"] == "ok"
    host.ask("kill")

    def start() -> wire.Message:
        """Until what the kernel left is used up, too, one may start, or begin to."""
        answer = host.start(argv=argv)
        host.ask("kill")
        return answer

    seen = eventually(start, lambda answer: answer.get("error") == NO_PROCESS, timeout=PATIENCE)
    assert seen.get("error") == NO_PROCESS
    (tmp_path / "enough").touch()
    assert "pid" in eventually(lambda: host.start(argv=argv), lambda answer: "pid" in answer, timeout=PATIENCE)


# -- The template


def test_a_template_that_is_killed_is_made_anew(guest: Guest) -> None:
    host = guest.claim()
    kernel = host.start()["pid"]
    template = guest.template(kernel)
    guest.kill(template, 9)
    client = guest.client()
    assert value(client, "6 * 7") == "42"  # the kernel lives on
    host.ask("kill")
    kernel = host.start()["pid"]
    assert guest.template(kernel) != template
    assert "the template had died; there is a new one" in guest.log()


def test_a_template_that_dies_while_it_starts_a_kernel(guest: Guest) -> None:
    host = guest.claim()
    host.start()
    host.ask("kill")
    host.event()
    template = guest.template()
    guest.kill(template, 19)  # stopped: it does not see the next command
    number = host.send("start", connection=CONNECTION, environment={}, cwd=None, argv=[], extra_arguments=[])
    guest.kill(template, 9)
    assert "pid" in host.answer(number)  # the next template forks it


def test_a_template_that_dies_while_it_rehearses(begin: StartGuest, tmp_path: Path) -> None:
    (tmp_path / "slow_rehearsal.py").write_text(
        "import time, container_kernels_guest.kernel as k\nk.rehearse = lambda *_: time.sleep(600)\n"
    )
    guest = begin(
        mounts=[Mount(str(tmp_path), "/preload")], environment={"PYTHONPATH": "/preload"}, preload=["slow_rehearsal"]
    )
    host = guest.claim()

    def rehearsing() -> list[int]:
        return [parent for pid, (parent, _) in guest.processes().items() if parent not in (0, 1) and pid != 1]

    (template,) = eventually(rehearsing, bool, timeout=PATIENCE)
    guest.kill(template, 9)  # its child still holds the pipe of its reports
    eventually(guest.processes, lambda table: template not in table, timeout=PATIENCE)
    assert "pid" in host.start()


def test_a_preloaded_module_that_is_missing_or_broken(begin: StartGuest, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("raise RuntimeError('no')")
    (tmp_path / "leaves.py").write_text("raise SystemExit(1)")
    (tmp_path / "good.py").write_text("print('good is loaded')")
    guest = begin(
        mounts=[Mount(str(tmp_path), "/preload", read_only=True)],
        environment={"PYTHONPATH": "/preload"},
        preload=["there_is_none", "raises", "leaves", "good"],
    )
    host = guest.claim()
    assert "pid" in host.start()
    client = guest.client()
    assert value(client, "'good' in __import__('sys').modules") == "True"
    log = guest.log()
    assert "preload: there_is_none is left out: ModuleNotFoundError" in log
    assert "preload: raises is left out: RuntimeError: no" in log
    assert "preload: leaves is left out: SystemExit: 1" in log


# What a module must not leave behind, and what is said of it. There are more of them than templates may die.
SPOILERS = {
    "x_thread": (
        "import threading, time; threading.Thread(target=time.sleep, args=[600]).start()",
        "it starts a thread",
    ),
    "x_native": ("import _thread, time; _thread.start_new_thread(time.sleep, (600,))", "it starts a thread"),
    "x_child": ("import subprocess; kept = subprocess.Popen(['sleep', '612'])", "it starts a process"),
    "x_net": ("import socket; kept = socket.socket()", "it opens a socket"),
    "x_piped": ("import os; kept = os.pipe()", "it opens a pipe"),
    "x_poll": ("import select; kept = select.epoll()", "it opens anon_inode:[eventpoll]"),
    "x_device": ("kept = open('/dev/ptmx', 'rb', buffering=0)", "it opens /dev/p"),
    "x_handler": ("import signal; signal.signal(signal.SIGTERM, lambda *_: None)", "it changes what SIGTERM does"),
    "x_asks": ("from IPython import get_ipython; get_ipython()", "it asks for IPython's shell"),
    "x_broken": ("import socket; kept = __builtins__['kept'] = socket.socket(); 1 / 0", "it opens a socket"),
    "x_leaves": ("import os; os._exit(0)", "Python dies"),
    "x_crashes": ("import os; os.kill(os.getpid(), 11)", "Python dies"),
}
IMPATIENT = "import container_kernels_guest.preload as p; p.ENDING = 0.3"


def with_modules(
    begin: StartGuest, directory: Path, modules: Mapping[str, str], prelude: str = "", **settings: Any
) -> Guest:
    """A guest that finds the modules."""
    for name, source in modules.items():
        (directory / f"{name}.py").write_text(source)
    mounts = [Mount(str(directory), "/modules", read_only=True)]
    return begin(prelude, mounts=mounts, environment={"PYTHONPATH": "/modules"}, **settings)


def test_preloaded_modules_that_spoil_the_template(begin: StartGuest, tmp_path: Path) -> None:
    modules = {name: source for name, (source, _) in SPOILERS.items()}
    guest = with_modules(begin, tmp_path, {**modules, "good": ""}, IMPATIENT, preload=[*SPOILERS, "good"])
    kernel = guest.claim().start()["pid"]  # waits for the last of the templates
    log = guest.log()
    for name, (_, reason) in SPOILERS.items():
        assert f"preload: {name} is left out: {reason}" in log
        assert log.count(f"preload: {name} is left out: {reason}") == 1
    assert "the template had died" not in log
    loaded = value(guest.client(), f"[name for name in {[*SPOILERS, 'good']} if name in __import__('sys').modules]")
    assert loaded == "['good']"
    assert "612" not in guest.run(COMMANDS)  # the child that was started is ended, too
    assert {pid for pid, (parent, _) in guest.processes().items() if parent == 1} == {kernel, guest.template(kernel)}


def test_a_preloaded_module_that_leaves_nothing_behind(begin: StartGuest, tmp_path: Path) -> None:
    harmless = """
import subprocess, threading, time
threading.Thread(target=time.sleep, args=[0.1]).start()
subprocess.run(["true"])
subprocess.Popen(["sleep", "0.1"])
kept = [open(path, "rb") for path in ("/dev/null", "/dev/urandom", __file__)]
"""
    guest = with_modules(begin, tmp_path, {"harmless": harmless}, preload=["harmless"])
    assert "pid" in guest.claim().start()
    assert "left out" not in guest.log()
    assert value(guest.client(), "'harmless' in __import__('sys').modules") == "True"


def test_a_module_that_spoils_the_template_when_it_learns(begin: StartGuest, tmp_path: Path) -> None:
    modules = {
        "teaches": "import container_kernels_guest.kernel as k; k.REHEARSED_CELL = 'import spoils, taught'",
        "spoils": SPOILERS["x_thread"][0],
        "taught": "import sys; print('taught the template', file=sys.stderr)",
    }
    guest = with_modules(begin, tmp_path, modules, preload=["teaches"])
    host = guest.claim()
    host.start()
    client = guest.client()
    execute(client, "kept = 42")
    log = eventually(guest.log, lambda log: "taught the template" in log, timeout=PATIENCE)
    assert log.count("preload: spoils is left out: it starts a thread when it is imported") == 1
    assert log.count("taught the template") == 1
    assert "the template had died" not in log
    assert value(client, "kept") == "42"  # of all this, the kernel has noticed nothing
    client.stop_channels()
    host.ask("kill")
    host.start()
    seen = value(guest.client(), "[name in __import__('sys').modules for name in ('teaches', 'spoils', 'taught')]")
    assert seen == "[True, False, True]"


def test_ipykernel_ends_the_process(begin: StartGuest, tmp_path: Path) -> None:
    guest = with_modules(begin, tmp_path, {"ipykernel": SPOILERS["x_leaves"][0]})
    host = guest.claim()
    assert host.start()["error"]["kind"] == "template"
    # It is not made anew for ever.
    eventually(guest.log, lambda log: "Python dies while it imports ipykernel" in log, timeout=PATIENCE)
    assert host.start()["error"] == {"kind": "template", "message": "Python dies while it imports ipykernel."}
    assert guest.log().count("the template had died") <= 3


def test_a_version_that_is_a_pre_release(begin: StartGuest) -> None:
    answer = begin("import ipykernel; ipykernel.__version__ = '8.0b1'").claim().start()
    assert answer["facts"]["ipykernel"] == "8.0b1"


def test_no_two_kernels_draw_the_same_numbers(begin: StartGuest) -> None:
    guest = begin(image=DATA_IMAGE, preload=["numpy", "numpy.random"])
    host = guest.claim()
    drawn = set()
    for _ in range(2):
        host.start()
        client = guest.client()
        assert value(client, "'numpy.random' in __import__('sys').modules") == "True"  # loaded by the template
        drawn.add(value(client, "float(__import__('numpy').random.rand())"))
        client.stop_channels()
        host.ask("kill")
        host.event()
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("prelude", "kind", "words"),
    [
        ("sys.modules['ipykernel'] = None", "no-ipykernel", "cannot import ipykernel"),
        ("import types; sys.modules['ipykernel'] = types.SimpleNamespace(__version__='5.5.6')", "old-ipykernel", "ipykernel 5.5.6; 6.0 is needed"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_serve(begin: StartGuest, prelude: str, kind: str, words: str) -> None:
    host = begin(prelude).claim()
    for _ in range(2):
        error = host.start()["error"]
        assert error["kind"] == kind
        assert words in error["message"]


# -- Kernels of another kind


def test_a_kernel_by_its_own_command(begin: StartGuest) -> None:
    guest = begin(template=False)
    host = guest.claim()
    pid = host.start(argv=IPYKERNEL, cwd="/var", environment={"MARK": "yes"})["pid"]
    client = guest.client()
    assert eval(value(client, "(__import__('os').getpid(), __import__('os').getcwd(), __import__('os').environ['MARK'])")) == (pid, "/var", "yes")  # fmt: skip
    client.execute("import os; os._exit(4)")
    ended = host.event()
    assert (ended["exit_code"], ended["expected"]) == (4, False)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/there/is/no/kernel"], ["code 127", "/there/is/no/kernel: No such file or directory"]),
        (["false"], ["code 1"]),
        (["sh", "-c", "kill -9 $$"], ["SIGKILL"]),
    ],
)
def test_a_command_that_does_not_become_a_kernel(door: Guest, argv: list[str], words: list[str]) -> None:
    error = door.claim().start(argv=argv)["error"]
    assert error["kind"] == "died"
    assert all(word in error["message"] for word in words)


def test_a_command_in_a_directory_that_is_not_there(door: Guest) -> None:
    error = door.claim().start(argv=["true"], cwd="/there/is/none")["error"]
    assert "/there/is/none: No such file or directory" in error["message"]


def test_noise_on_the_kernels_stderr(begin: StartGuest) -> None:
    guest = begin(template=False)
    noise = 'for n in $(seq 200); do echo noise $n >&2; done; yes $(seq -s noise 300) | head -c 10000000 >&2; exec "$@"'
    host = guest.claim()
    assert "pid" in host.start(argv=["sh", "-c", noise, "sh", *IPYKERNEL])
    assert value(guest.client(), "6 * 7") == "42"
    assert "noise" in guest.log()


# -- When nobody needs it


def test_nobody_comes(begin: StartGuest) -> None:
    assert begin(time_to_live=0.5, template=False).is_gone()


def test_its_host_is_gone(begin: StartGuest) -> None:
    guest = begin(lease_grace=0.5, time_to_live=60.0)
    host = guest.claim()
    host.start()
    host.socket.close()
    assert guest.is_gone()


def test_its_host_comes_back_in_time(begin: StartGuest) -> None:
    guest = begin(lease_grace=2.5, template=False)
    guest.claim().socket.close()
    again = guest.claim()
    again.socket.settimeout(3.0)
    with pytest.raises(TimeoutError):  # it is not closed when the first lease's grace is over
        again.hear()


def test_no_kernel_is_wanted(begin: StartGuest) -> None:
    guest = begin(idle_grace=0.5, template=False)
    assert guest.claim().is_closed()  # though its host is there
    assert guest.is_gone()


def test_no_kernel_is_wanted_any_more(begin: StartGuest) -> None:
    guest = begin(idle_grace=1.5)
    host = guest.claim()
    host.start()
    client = guest.client()
    execute(client, "import time; time.sleep(2)")  # a kernel that runs is none that is not wanted
    host.ask("kill")
    assert host.is_closed()
    assert guest.is_gone()


# -- Odd containers


@pytest.mark.parametrize("user", [None, "12345:54321"])
def test_a_root_that_is_read_only_and_any_user(begin: StartGuest, user: str | None) -> None:
    guest = begin(user=user, engine_args=["--read-only", "--tmpfs", "/tmp"])
    host = guest.claim()
    assert "pid" in host.start(), guest.log()
    client = guest.client()
    assert value(client, "f\"{__import__('os').getuid()}:{__import__('os').getgid()}\"") == repr(user or "0:0")
    reply = execute(
        client,
        "import os, pathlib; home = pathlib.Path.home(); (home / 'made').touch(); assert os.access(home, os.W_OK)",
    )
    assert reply["status"] == "ok", reply


def test_keys_are_not_written_where_a_person_may_look(begin: StartGuest, tmp_path: Path) -> None:
    guest = begin(mounts=[Mount(str(tmp_path), "/tmp/container-kernels")])
    host = guest.claim()
    host.start()
    assert value(guest.client(), "str(__import__('pathlib').Path.home())") == repr(f"{PRIVATE}/home")
    assert not list(tmp_path.iterdir())


def test_a_private_directory_that_is_somebody_elses(begin: StartGuest, tmp_path: Path) -> None:
    guest = begin(mounts=[Mount(str(tmp_path), PRIVATE)], template=False)
    log = eventually(guest.log, lambda log: "container-kernels: cannot start" in log, timeout=PATIENCE)
    assert "container-kernels: cannot start: FileExistsError" in log
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "made"), [(0o077, 0o600), (0, 0o666)])
@pytest.mark.parametrize("argv", [[], IPYKERNEL])
def test_the_hosts_umask_is_the_kernels(begin: StartGuest, umask: int, made: int, argv: list[str]) -> None:
    guest = begin(umask=umask)
    host = guest.claim()
    host.start(argv=argv)
    client = guest.client()
    assert value(client, "open('/tmp/made', 'w').close()") == "None"
    modes = f"[__import__('os').stat(path).st_mode & 0o777 for path in ('/tmp/made', '{PRIVATE}', '{PRIVATE}/connection.json')]"
    assert value(client, modes) == str([made, 0o700, 0o600])


def test_a_scratch_that_cannot_be_written_is_told_in_the_log(begin: StartGuest) -> None:
    guest = begin(user="12345:54321", scratch="/usr")
    log = eventually(guest.log, lambda log: "container-kernels: cannot start" in log, timeout=PATIENCE)
    assert "container-kernels: cannot start: PermissionError" in log
    assert guest.exists()  # it is kept readable


def test_a_disk_that_is_full_is_told_to_the_host(begin: StartGuest) -> None:
    guest = begin(engine_args=["--read-only", "--tmpfs", "/tmp:size=1m"], template=False)
    host = guest.claim()
    guest.run(
        "import contextlib, os\nfile = open('/tmp/filling', 'wb', buffering=0)\nwith contextlib.suppress(OSError):\n while True: file.write(b'x' * 512)"
    )
    error = host.start(argv=IPYKERNEL)["error"]
    assert "No space left on device" in error["message"]
    guest.run("import os; os.unlink('/tmp/filling')")
    assert host.start(argv=["false"])["error"]["kind"] == "died"  # the supervisor lives, and works


def test_the_kernel_cannot_signal_the_supervisor(begin: StartGuest) -> None:
    guest = begin()
    host = guest.claim()
    host.start()
    client = guest.client()
    execute(client, "import os, signal; os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGSEGV)")
    assert guest.exists()
    assert value(client, "6 * 7") == "42"
