"""PID 1 of a kernel's container: starts kernels, tells how they end, and ends the container when nobody needs it.

One thread, one loop. The states of a container, and what ends each:

    waiting     nobody has shown the token yet            its time to live
    claimed     a host holds the connection               the connection's loss, for longer than the lease's grace
    idle        claimed, and no kernel runs               a start, or the grace for one

Whatever ends the container, it ends by itself; the engine then removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from . import memory, process, template, wire

SETTINGS = "CONTAINER_KERNELS_GUEST"  # the variable with the settings, as JSON
STRANGERS = 8  # connections that have not shown the token
INTRODUCTION = 10.0  # seconds for a stranger to show it
LAST_WORDS = 1.6  # seconds that a death may wait for them
REHEARSAL = 1.5  # seconds after a start, so as not to steal the first cell's time
SAMPLING = 2.0  # seconds between looks at the memory limit's count
BINDING = 0.01  # seconds between looks for a foreign kernel's sockets


class Settings(NamedTuple):
    """What the host sets when it makes the container; times in seconds."""

    token_digest: str
    time_to_live: float
    lease_grace: float
    idle_grace: float
    scratch: str
    preload: List[str]
    template: bool

    @classmethod
    def read(cls) -> Settings:
        return cls(**json.loads(os.environ.pop(SETTINGS)))


class Connection:
    """One host that is connected, known (it has shown the token) or not yet."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.known = False
        self.decoder = wire.Decoder(wire.MAX_STRANGER)
        self.since = time.monotonic()

    def send(self, message: wire.Message) -> None:
        # Our messages are small, and a host that does not read them is no host.
        with contextlib.suppress(OSError):
            self.socket.send(wire.encode(message))


class Request(NamedTuple):
    """A request that waits for its answer."""

    connection: Connection
    id: Any

    def answer(self, **fields: Any) -> None:
        self.connection.send({"id": self.id, **fields})

    def refuse(self, kind: str, message: str) -> None:
        self.answer(error={"kind": kind, "message": message})


class Kernel:
    """The kernel process of this moment."""

    def __init__(self, connection_file: str, request: Request) -> None:
        self.connection_file = connection_file
        self.request: Optional[Request] = request  # until its sockets are bound
        self.pid: Optional[int] = None
        self.kills = [memory.kills()] * 2  # at the last two samples: a kill is counted before its process is gone
        self.end_expected = False
        self.ending: Optional[wire.Ending] = None
        self.ends: List[Request] = []  # who waits for its end
        self.ports: List[int] = []  # of a foreign kernel, until they are bound
        self.complaint = ""


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scratch = Path(settings.scratch) / "container-kernels"
        self.selector = selectors.DefaultSelector()
        self.listeners: List[socket.socket] = []
        self.connections: List[Connection] = []
        self.template_pid: Optional[int] = None
        self.template_failure: Optional[Tuple[str, str]] = None
        self.commands: Optional[socket.socket] = None
        self.facts: Dict[str, Any] = {}
        self.kernel: Optional[Kernel] = None
        self.mourning: Optional[Kernel] = None
        self.mourner: Optional[int] = None
        self.ended: Dict[int, int] = {}  # wait statuses of processes that nobody has asked for yet
        self.timers: Dict[str, float] = {"time to live": time.monotonic() + settings.time_to_live}
        self.running = True

    # -- The loop

    def run(self) -> Optional[template.Main]:
        """The container has nothing left to do; in a forked child: what that child is to do."""
        wake = self._catch_signals()
        child = self._start_template() if self.settings.template else None
        if child:
            return child
        self._listen()
        while self.running:
            for key, _ in self.selector.select(self._patience()):
                if key.fileobj is wake:
                    wake.recv(4096)
                else:
                    key.data(key.fileobj)
            self._reap()
            child = self._respawn() or self._look_at_clock()
            if child:
                return child
        return None

    def _catch_signals(self) -> socket.socket:
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._wake_writer = writing
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end("asked by a signal"))
        self.selector.register(reading, selectors.EVENT_READ)
        return reading

    def _listen(self) -> None:
        listener = socket.create_server(("", wire.SUPERVISOR_PORT), backlog=STRANGERS)
        listener.setblocking(False)
        self.listeners.append(listener)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def _patience(self) -> Optional[float]:
        if not self.timers:
            return None
        return max(0.0, min(self.timers.values()) - time.monotonic())

    def _set_timer(self, name: str, seconds: float) -> None:
        self.timers[name] = time.monotonic() + seconds

    def _look_at_clock(self) -> Optional[template.Main]:
        now = time.monotonic()
        for name in [name for name, due in self.timers.items() if due <= now]:
            del self.timers[name]
            if name in ("time to live", "lease", "idle"):
                self._end(f"{name} is over")
            elif name == "last words":
                self._stop_mourning()
            elif name == "rehearsal":
                self._command({"command": "rehearse"})
            elif name == "sample" and self.kernel:
                self.kernel.kills = [self.kernel.kills[1], memory.kills()]
                self._set_timer("sample", SAMPLING)
            elif name == "binding":
                self._look_at_ports()
            elif name == "strangers":
                self._dismiss_strangers(now)
        return None

    def _end(self, why: str) -> None:
        process.log(f"ends: {why}")
        self.running = False

    # -- Connections

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            connection = Connection(sock)
            strangers = [other for other in self.connections if not other.known]
            if len(strangers) >= STRANGERS:
                self._drop(strangers[0])
            self.connections.append(connection)
            self.selector.register(sock, selectors.EVENT_READ, lambda _: self._receive(connection))
            self._set_timer("strangers", INTRODUCTION)
            connection.send({"event": "greeting", "protocol": wire.PROTOCOL})

    def _dismiss_strangers(self, now: float) -> None:
        for connection in [other for other in self.connections if not other.known]:
            if now - connection.since >= INTRODUCTION:
                self._drop(connection)
        if any(not other.known for other in self.connections):
            self._set_timer("strangers", INTRODUCTION)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            for message in connection.decoder.feed(data):
                self._handle(connection, message)
        except wire.WireError as error:
            connection.send({"error": {"kind": "protocol", "message": str(error)}})
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        self.selector.unregister(connection.socket)
        connection.socket.close()
        if connection.known and not any(other.known for other in self.connections):
            self._set_timer("lease", self.settings.lease_grace)

    def _handle(self, connection: Connection, message: wire.Message) -> None:
        if not connection.known:
            self._introduce(connection, message)
            return
        request = Request(connection, message.get("id"))
        handlers = {
            "start": self._start,
            "signal": self._signal,
            "kill": self._kill,
            "expect_end": self._expect_end,
            "end": self._end_asked,
        }
        handler = handlers.get(str(message.get("op")))
        if handler is None:
            raise wire.WireError(f"there is no op {message.get('op')!r}")
        try:
            handler(request, message)
        except (KeyError, TypeError, ValueError) as error:
            request.refuse("protocol", f"{message['op']}: {type(error).__name__}: {error}")

    def _introduce(self, connection: Connection, message: wire.Message) -> None:
        if message.get("op") != "hello" or message.get("protocol") != wire.PROTOCOL:
            raise wire.WireError(
                f"this container speaks protocol {wire.PROTOCOL}, and the host {message.get('protocol')!r}"
            )
        if not wire.opens(message.get("token"), self.settings.token_digest):
            raise wire.WireError("wrong token")
        connection.known = True
        connection.decoder.limit = wire.MAX_MESSAGE
        for name in ("time to live", "lease"):
            self.timers.pop(name, None)
        if self.kernel is None:
            self._set_timer("idle", self.settings.idle_grace)
        connection.send({"event": "welcome", "kernel": self.kernel is not None})

    def _tell(self, message: wire.Message) -> None:
        for connection in self.connections:
            if connection.known:
                connection.send(message)

    # -- Requests

    def _start(self, request: Request, message: wire.Message) -> None:
        if self.kernel is not None:
            request.refuse("running", "a kernel runs already")
            return
        if self.template_failure and not message["argv"]:
            request.refuse(*self.template_failure)
            return
        self._stop_mourning()
        self.timers.pop("idle", None)
        self.timers.pop("rehearsal", None)
        self.kernel = kernel = Kernel(self._write_connection(message["connection"]), request)
        cwd = str(message["cwd"] or os.environ["HOME"])
        environment = {str(name): str(value) for name, value in message["environment"].items()}
        if message["argv"]:
            self._execute([str(word) for word in message["argv"]], cwd, environment)
            return
        start = {"connection_file": kernel.connection_file, "cwd": cwd, "environment": environment}
        self._command({"command": "start", "extra_arguments": list(message["extra_arguments"]), **start})

    def _write_connection(self, connection: Dict[str, Any]) -> str:
        path = self.scratch / "connection.json"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"ip": "0.0.0.0", "transport": "tcp", **wire.KERNEL_PORTS, **connection}, file)
        return str(path)

    def _execute(self, argv: List[str], cwd: str, environment: Dict[str, str]) -> None:
        """A kernel of another kind: its command replaces a forked child."""
        assert self.kernel is not None
        argv = [word.replace("{connection_file}", self.kernel.connection_file) for word in argv]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                process.become_kernel(cwd, environment)
                os.execvp(argv[0], argv)  # the kernel's own command
            except OSError as error:
                os.write(writing, f"{argv[0]}: {error.strerror}".encode())
            finally:
                os._exit(127)
        os.close(writing)
        self.kernel.pid = pid
        with os.fdopen(reading, "rb") as pipe:  # closed by a successful exec
            self.kernel.complaint = pipe.read(1000).decode(errors="replace")
        self.kernel.ports = list(wire.KERNEL_PORTS.values())
        self._set_timer("binding", BINDING)

    def _look_at_ports(self) -> None:
        if self.kernel is None or not self.kernel.ports:
            return
        if process.listening(self.kernel.ports):
            self.kernel.ports = []
            self._bound()
        else:
            self._set_timer("binding", BINDING)

    def _signal(self, request: Request, message: wire.Message) -> None:
        number = signal.Signals(message["signal"])
        if self.kernel and self.kernel.pid:
            if number in (signal.SIGTERM, signal.SIGKILL):
                self.kernel.end_expected = True
            process.signal_group(self.kernel.pid, number)
        request.answer()

    def _kill(self, request: Request, _: wire.Message) -> None:
        """Answered when the kernel is known to be gone."""
        if self.kernel is None:
            self._stop_mourning()
            request.answer()
            return
        self.kernel.end_expected = True
        self.kernel.ends.append(request)
        if self.kernel.pid:
            process.signal_group(self.kernel.pid, signal.SIGKILL)

    def _expect_end(self, request: Request, _: wire.Message) -> None:
        """The host is ending the kernel by its own channels: its end is no death."""
        if self.kernel:
            self.kernel.end_expected = True
        request.answer()

    def _end_asked(self, request: Request, _: wire.Message) -> None:
        request.answer()
        self._end("asked by the host")

    # -- The template

    def _start_template(self) -> Optional[template.Main]:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            self.selector.close()
            ours.close()
            os.close(reading)
            for sock in (*(connection.socket for connection in self.connections), *self.listeners):
                sock.close()
            settings = self.settings
            sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent.parent)]
            return lambda: template.main(theirs, template.Reports(writing), settings.preload, self.scratch)()
        theirs.close()
        os.close(writing)
        ours.setblocking(True)
        self.commands = ours
        self.template_pid = pid
        self.decoder = wire.Decoder()
        self.reports = os.fdopen(reading, "rb", buffering=0)
        self.selector.register(self.reports, selectors.EVENT_READ, self._read_reports)
        return None

    def _respawn(self) -> Optional[template.Main]:
        """A template that died (memory, a preloaded module) is made anew."""
        if self.template_pid is not None or not self.settings.template or self.template_failure:
            return None
        process.log("the template has died; a new one is made")
        return self._start_template()

    def _command(self, command: wire.Message) -> None:
        assert self.commands is not None
        with contextlib.suppress(OSError):  # its death is seen elsewhere
            self.commands.sendall(wire.encode(command))

    def _read_reports(self, reports: Any) -> None:
        data = reports.read(1 << 16)
        for report in self.decoder.feed(data):
            self._report(report)

    def _report(self, report: wire.Message) -> None:
        name = report["report"]
        if name == "loaded":
            self.facts = {key: report[key] for key in ("ipykernel", "python", "curve")}
            if self.kernel is None:
                self._command({"command": "rehearse"})
        elif name == "failed":
            self.template_failure = (report["kind"], report["message"])
            process.log(report["message"])
            if self.kernel and self.kernel.pid is None:
                self._start_refused(*self.template_failure)
        elif name == "mourner":
            self.mourner = report["pid"]
            if not self.mourning:
                self._stop_mourning()
        elif name == "forked" and self.kernel:
            self.kernel.pid = report["pid"]
            if self.kernel.ends:  # killed before it was born
                process.signal_group(report["pid"], signal.SIGKILL)
        elif name == "bound":
            self._bound()
        elif name == "start_failed" and self.kernel:
            self.kernel.complaint = report["message"]
        elif name == "mourned":
            self._stop_mourning()

    def _bound(self) -> None:
        if self.kernel and self.kernel.request:
            self.kernel.request.answer(pid=self.kernel.pid, facts=self.facts)
            self.kernel.request = None
            self._set_timer("sample", SAMPLING)
            if self.settings.template:
                self._set_timer("rehearsal", REHEARSAL)

    def _start_refused(self, kind: str, message: str) -> None:
        assert self.kernel is not None
        if self.kernel.request:
            self.kernel.request.refuse(kind, message)
        self.kernel = None
        self._set_timer("idle", self.settings.idle_grace)

    # -- Ends

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                self.ended[pid] = status
        if self.template_pid in self.ended:
            self.template_pid = None
            self._template_ended()
        if self.kernel and self.kernel.pid in self.ended:
            self._kernel_ended(self.kernel, self.ended[self.kernel.pid])
        # A kernel's status may come before the report of its fork: keep it only while one is awaited.
        if not (self.kernel and self.kernel.pid is None):
            self.ended.clear()

    def _template_ended(self) -> None:
        self._read_reports(self.reports)
        self.selector.unregister(self.reports)
        self.reports.close()
        if self.commands:
            self.commands.close()
        if self.kernel and self.kernel.pid is None:
            self._start_refused("template", "The template died while the kernel was started.")
        if self.mourning:
            self._stop_mourning()

    def _kernel_ended(self, kernel: Kernel, status: int) -> None:
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        ending = wire.Ending(
            exit_code=None if killed else os.WEXITSTATUS(status),
            signal=killed,
            out_of_memory=killed == signal.SIGKILL and not kernel.end_expected and memory.kills() > kernel.kills[0],
            memory_limit=memory.limit(),
        )
        self.kernel = None
        for name in ("sample", "binding", "rehearsal"):
            self.timers.pop(name, None)
        self._set_timer("idle", self.settings.idle_grace)
        if kernel.pid:
            process.signal_group(kernel.pid, signal.SIGKILL)  # children that it left
        if kernel.request:
            detail = f" {kernel.complaint}" if kernel.complaint else ""
            kernel.request.refuse("died", f"{ending.reason}{detail}")
            return
        kernel.ending = ending
        if kernel.end_expected or not self.template_pid or kernel.ports:
            self._announce(kernel)
        else:
            self.mourning = kernel
            self._set_timer("last words", LAST_WORDS)
            self._command({"command": "mourn", "connection_file": kernel.connection_file, "reason": ending.reason})

    def _stop_mourning(self) -> None:
        if self.mourner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.mourner, signal.SIGKILL)
        self.mourner = None
        self.timers.pop("last words", None)
        if self.mourning:
            kernel, self.mourning = self.mourning, None
            self._announce(kernel)

    def _announce(self, kernel: Kernel) -> None:
        for request in kernel.ends:
            request.answer()
        assert kernel.ending is not None
        self._tell({"event": "ended", "expected": kernel.end_expected, **kernel.ending._asdict()})


def main(when_it_fails: Callable[[], None]) -> None:
    """PID 1's program, and that of every process forked from it."""
    try:
        settings = Settings.read()
        _prepare(settings.scratch)
        child = Supervisor(settings).run()
    except BaseException:
        when_it_fails()
        raise
    if child:
        child()


def _prepare(scratch: str) -> None:
    """A home and a private directory exist, wherever the image lets this user write."""
    os.umask(0o022)
    private = Path(scratch) / "container-kernels"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    home = private / "home"
    # In place before Python looks for it: what `pip install --user` brings is then found after a restart.
    packages = home / ".local" / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    home_text = str(home)
    os.environ.update(HOME=home_text, PWD=home_text)
    os.environ.setdefault("USER", "kernel")
    os.environ.setdefault("LOGNAME", os.environ["USER"])
    in_virtual_environment = sys.prefix != sys.base_prefix
    if not in_virtual_environment and str(packages) not in sys.path:
        sys.path.append(str(packages))
