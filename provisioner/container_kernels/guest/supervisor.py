"""PID 1 of a kernel's container: starts kernels, tells how they end, and ends the container when nobody needs it.

One thread, one loop. The states of a container, and what ends each:

    waiting     nobody has shown the token yet            its time to live
    shelved     made ready, and left for whoever claims   its new time to live
    claimed     a host holds the connection               the connection's loss, for longer than the lease's grace
    idle        claimed, and no kernel runs               a start, or the grace for one

Whatever ends the container, it ends by itself; the engine then removes it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import home, memory, process, template, template_process, wire
from .connections import Connections, Request
from .kernel_process import KernelProcess
from .settings import Settings
from .shelf import Shelf
from .timers import Timers

LAST_WORDS = 2.5  # seconds that a death may wait for them
REHEARSAL = 1.5  # seconds after a start, so as not to steal the first cell's time
POSTPONED = 20  # times at most
SAMPLING = 2.0  # seconds between looks at the memory limit's count
RESPAWN = 0.5  # seconds until the next try, where a new template could not be forked
DEATHS = 2  # of templates that one kernel may cost
BINDING = 0.01  # seconds between looks for a foreign kernel's sockets
LOADS = 3  # templates that die before they are ready, until no more are made


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.selector = selectors.DefaultSelector()
        self.timers = Timers()
        self.connections = Connections(
            self.selector,
            self.timers,
            settings.token_digest,
            on_request=self._obey,
            on_claim=self._claimed,
            on_loss=self._lost,
        )
        self.template: Optional[template_process.TemplateProcess] = None
        self.template_failure: Optional[Tuple[str, str]] = None
        self.failed_loads = 0
        self.left_out: List[str] = []  # modules that no template imports any more
        self.culprit: Optional[str] = None  # the module that is to blame when the template ends
        self.facts: Dict[str, Any] = {}
        self.learned = False  # whether the template has nothing left to import
        self.postponed = 0  # times that the rehearsal was
        self.shelf = Shelf()
        self.kernel: Optional[KernelProcess] = None
        self.mourning: Optional[KernelProcess] = None
        self.mourner: Optional[int] = None
        self.ended: Dict[int, int] = {}  # wait statuses of processes that nobody has asked for yet
        self.running = True

    # -- The loop

    def run(self) -> Optional[template.Main]:
        """The container has nothing left to do; in a forked child: what that child is to do."""
        wake = self._catch_signals()
        child = self._start_template() if self.settings.template else None
        if child:
            return child
        self.timers.set("time to live", self.settings.time_to_live)
        self.connections.listen()
        gc.enable()
        while self.running:
            for key, _ in self.selector.select(self.timers.patience()):
                if key.fileobj is wake:
                    wake.recv(4096)
                else:
                    key.data(key.fileobj)
            self._reap()
            self._look_at_clock()
            child = self._respawn()
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

    def _look_at_clock(self) -> None:
        for name in self.timers.due():
            if name in ("time to live", "lease", "idle"):
                self._end(f"{name} is over")
            elif name == "strangers":
                self.connections.dismiss_strangers()
            elif name == "last words":
                self._stop_mourning()
            elif name == "binding":
                self._look_at_ports()
            elif name == "rehearsal":
                self._rehearse()
            elif name == "sample" and self.kernel:
                self.kernel.kills = [self.kernel.kills[1], memory.kills()]
                self.timers.set("sample", SAMPLING)

    def _rehearse(self) -> None:
        """It is for later, and others may be waiting for the machine's processors now; but not for ever."""
        if self.template is None or self.learned:
            return
        if self.postponed < POSTPONED and process.machine_is_busy():
            self.postponed += 1
            self.timers.set("rehearsal", REHEARSAL)
            return
        self.postponed = 0
        self.template.command("rehearse")

    def _end(self, why: str) -> None:
        process.log(f"ends: {why}")
        self.running = False

    # -- Requests

    def _claimed(self) -> bool:
        self.shelf.closed = False
        self.timers.clear("time to live", "lease")
        if self.kernel is None:
            self.timers.set("idle", self.settings.idle_grace)
        return self.kernel is not None

    def _lost(self) -> None:
        """Nobody is connected any more: that is as it should be while the container is on the shelf."""
        if not self.shelf.closed:
            self.timers.set("lease", self.settings.lease_grace)

    def _obey(self, request: Request) -> None:
        operation = request.message.get("op")
        handlers = {
            "start": self._start,
            "shelve": self._shelve,
            "signal": self._signal,
            "kill": self._kill,
            "expect_end": self._expect_end,
            "end": self._end_asked,
        }
        handler = handlers.get(str(operation))
        if handler is None:
            raise wire.WireError(f"there is no op {operation!r}")
        try:
            handler(request)
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            if self.kernel and self.kernel.request is request:
                self.kernel = None
                self.timers.set("idle", self.settings.idle_grace)
            kind = "system" if isinstance(error, OSError) else "protocol"
            request.refuse(kind, f"{operation}: {type(error).__name__}: {error}")

    def _start(self, request: Request) -> None:
        message = request.message
        argv = [str(word) for word in message["argv"]]
        extra_arguments = [str(word) for word in message["extra_arguments"]]
        cwd = str(message["cwd"] or os.environ["HOME"])
        environment = {str(name): str(value) for name, value in message["environment"].items()}
        if self.kernel is not None:
            request.refuse("running", "a kernel runs already")
            return
        if self.template_failure and not argv:
            request.refuse(*self.template_failure)
            return
        if not argv and not self.settings.template:
            request.refuse("template", "this container was made for a kernel that has an argv of its own")
            return
        self._stop_mourning()
        self.shelf.used = True
        connection_file = self._write_connection(message["connection"])
        self.timers.clear("idle", "rehearsal")
        self.kernel = kernel = KernelProcess(connection_file, request)
        if argv:
            self._execute(kernel, argv, cwd, environment)
            return
        kernel.fork = {
            "connection_file": kernel.connection_file,
            "curve": str(message["connection"].get("curve_publickey", "")),
            "cwd": cwd,
            "environment": environment,
            "extra_arguments": extra_arguments,
            "returning": message.get("returning") is True,
        }
        self._fork_kernel()

    def _fork_kernel(self) -> None:
        """The template has been asked to fork the kernel that waits for it; a template that has just died cannot, and the next one will."""
        if self.kernel and self.kernel.fork and self.template:
            self.template.command("start", **self.kernel.fork)

    def _write_connection(self, connection: Dict[str, Any]) -> str:
        path = os.path.join(self.settings.private, "connection.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"ip": "0.0.0.0", "transport": "tcp", **wire.KERNEL_PORTS, **connection}, file)
        return path

    def _execute(self, kernel: KernelProcess, argv: List[str], cwd: str, environment: Dict[str, str]) -> None:
        """A kernel of another kind: its command replaces a forked child."""
        words = [word.replace("{connection_file}", kernel.connection_file) for word in argv]
        try:
            kernel.pid, kernel.complaint = process.execute(words, cwd, environment)
        except OSError as error:
            self._refuse_unborn("no-process", process.no_process(error.errno))
            return
        kernel.ports = list(wire.KERNEL_PORTS.values())
        self.timers.set("binding", BINDING)

    def _look_at_ports(self) -> None:
        if self.kernel is None or not self.kernel.ports:
            return
        if process.listening(self.kernel.ports):
            self.kernel.ports = []
            self._bound()
        else:
            self.timers.set("binding", BINDING)

    def _signal(self, request: Request) -> None:
        number = signal.Signals(request.message["signal"])
        if self.kernel and self.kernel.pid:
            if number in (signal.SIGTERM, signal.SIGKILL):
                self.kernel.end_expected = True
            process.signal_kernel(self.kernel.pid, number)
        request.answer()

    def _kill(self, request: Request) -> None:
        """Answered when the kernel is known to be gone."""
        if self.kernel is None:
            self._stop_mourning()
            request.answer()
            return
        self.kernel.end_expected = True
        self.kernel.ends.append(request)
        if self.kernel.pid:
            process.signal_kernel(self.kernel.pid, signal.SIGKILL)

    def _expect_end(self, request: Request) -> None:
        """The host is ending the kernel by its own channels: its end is no death."""
        if self.kernel:
            self.kernel.end_expected = True
        request.answer()

    def _end_asked(self, request: Request) -> None:
        request.answer()
        self._end("asked by the host")

    # -- The shelf

    def _shelve(self, request: Request) -> None:
        """Answered when nothing can be done any more before a claim; from then on the container waits for one, and needs no host."""
        curve = {str(name): str(value) for name, value in request.message["curve"].items()}
        time_to_live = float(request.message["time_to_live"])
        if self.shelf.used:
            request.refuse("used", "this container has had a kernel")
            return
        if self.template_failure:
            request.refuse(*self.template_failure)
            return
        self.shelf = Shelf(request, curve, time_to_live)
        if not self.settings.template:
            self._close_shelf(parked=False)
        elif self.learned:
            self._park()

    def _park(self) -> None:
        """A kernel waits, with everything done but what a claim sets. Its own key opens nothing: nobody is told of it."""
        if self.shelf.request is None or self.template is None:
            return
        secret = {"key": os.urandom(32).hex(), "signature_scheme": "hmac-sha256", **self.shelf.curve}
        connection_file = self._write_connection(secret)
        self.template.command(
            "park", connection_file=connection_file, curve=self.shelf.curve.get("curve_publickey", "")
        )

    def _refuse_shelf(self, kind: str, message: str) -> None:
        request, self.shelf.request = self.shelf.request, None
        if request:
            request.refuse(kind, message)

    def _close_shelf(self, *, parked: bool) -> None:
        request, self.shelf.request = self.shelf.request, None
        if request is None:
            return
        self.shelf.closed = True
        self.timers.clear("idle", "rehearsal")
        self.timers.set("time to live", self.shelf.time_to_live)
        request.answer(parked=parked, facts=self.facts, memory=memory.usage())

    # -- The template

    def _start_template(self) -> Optional[template.Main]:
        forked = template_process.fork(self.settings.preload, self.left_out, self.settings.private, self._forget)
        self.template = forked.parent
        if self.template:
            self.selector.register(self.template.reports, selectors.EVENT_READ, lambda _: self._hear())
        return forked.child

    def _forget(self) -> None:
        self.selector.close()
        self.connections.forget()

    def _respawn(self) -> Optional[template.Main]:
        """A template that died (memory, a preloaded module) is made anew."""
        if self.template or not self.settings.template or self.template_failure:
            return None
        try:
            child = self._start_template()
        except OSError:  # the kernel has used up the container's processes
            self.timers.set("respawn", RESPAWN)
            return None
        if child is None:
            if self.culprit is None:
                process.log("the template had died; there is a new one")
            self.culprit = None
            self._fork_kernel()
        return child

    def _hear(self) -> None:
        assert self.template is not None
        for report in self.template.read():
            self._report(report)

    def _report(self, report: wire.Message) -> None:
        name = report["report"]
        if name == "loaded":
            self.failed_loads = 0
            self.learned = False
            self.culprit = None
            self.facts = {key: report[key] for key in ("ipykernel", "python", "curve")}
            if self.kernel is None and self.template:
                self.template.command("rehearse")
            elif self.kernel:
                self.timers.set("rehearsal", REHEARSAL)
        elif name == "importing":
            self.culprit = report["module"]
        elif name == "spoiled":
            self.culprit = report["module"]
            self._leave_out(report["module"], report["reason"])
        elif name == "failed":
            self.template_failure = (report["kind"], report["message"])
            process.log(report["message"])
            self._refuse_unborn(*self.template_failure)
            self._refuse_shelf(*self.template_failure)
        elif name == "forked" and self.kernel:
            self.kernel.pid = report["pid"]
            self.kernel.fork = {}
            if self.kernel.ends:  # killed before it was born
                process.signal_kernel(report["pid"], signal.SIGKILL)
        elif name == "not_forked":
            self._refuse_unborn("no-process", report["message"])
        elif name == "bound":
            self._bound()
        elif name == "learned":
            self.learned = True
            self._park()
        elif name == "parked":
            self._close_shelf(parked=True)
        elif name == "not_parked":
            process.log(f"no kernel is parked: {report['message']}")
            self._close_shelf(parked=False)
        elif name == "start_failed" and self.kernel:
            self.kernel.complaint = report["message"]
        elif name == "mourner":
            self.mourner = report["pid"]
            if not self.mourning:
                self._stop_mourning()
        elif name == "mourned":
            self._stop_mourning()

    def _bound(self) -> None:
        if self.kernel and self.kernel.request:
            self.kernel.request.answer(pid=self.kernel.pid, facts=self.facts)
            self.kernel.request = None
            self.timers.set("sample", SAMPLING)
            self.timers.set("rehearsal", REHEARSAL)

    def _refuse_unborn(self, kind: str, message: str) -> None:
        """A kernel that the template was to fork, and will not."""
        kernel = self.kernel
        if kernel is None or kernel.pid is not None:
            return
        self.kernel = None
        self.timers.set("idle", self.settings.idle_grace)
        for request in [*([kernel.request] if kernel.request else []), *kernel.ends]:
            request.refuse(kind, message)

    def _template_ended(self) -> None:
        assert self.template is not None
        self._hear()
        self.selector.unregister(self.template.reports)
        self.template.close()
        self.template = None
        self._stop_mourning()
        if self.culprit:
            self._leave_out(self.culprit, "Python dies when it is imported")
            return
        self.failed_loads += 1
        if self.failed_loads == LOADS:
            self.template_failure = ("template", "Python dies while it imports ipykernel.")
            process.log(self.template_failure[1])
            self._refuse_shelf(*self.template_failure)
        if self.kernel and self.kernel.fork:
            self.kernel.deaths += 1
            if self.template_failure or self.kernel.deaths == DEATHS:
                self._refuse_unborn("template", "The template died while the kernel was started.")

    def _leave_out(self, module: str, reason: str) -> None:
        """The next template is made without the module."""
        if module not in self.left_out:
            self.left_out.append(module)
            process.log(f"preload: {module} is left out: {reason}")

    # -- Ends

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                self.ended[pid] = status
        if self.template and self.template.pid in self.ended:
            self._template_ended()
        if self.kernel and self.kernel.pid in self.ended:
            self._kernel_ended(self.kernel, self.ended[self.kernel.pid])
        # A kernel's status may come before the report of its fork: keep it only while one is awaited.
        if not (self.kernel and self.kernel.pid is None):
            self.ended.clear()

    def _kernel_ended(self, kernel: KernelProcess, status: int) -> None:
        kernel.end_by(status)
        assert kernel.ending is not None
        assert kernel.pid is not None
        self.kernel = None
        self.timers.clear("sample", "binding", "rehearsal")
        self.timers.set("idle", self.settings.idle_grace)
        process.kill_group(kernel.pid)  # children that it left
        if kernel.request:
            kernel.request.refuse("died", f"{kernel.ending.reason} {kernel.complaint}".strip())
            for request in kernel.ends:
                request.answer()
        elif kernel.end_expected or self.template is None:
            self._announce(kernel)
        else:
            self.mourning = kernel
            self.timers.set("last words", LAST_WORDS)
            self.template.command("mourn", connection_file=kernel.connection_file, reason=kernel.ending.reason)

    def _stop_mourning(self) -> None:
        if self.mourner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.mourner, signal.SIGKILL)
        self.mourner = None
        self.timers.clear("last words")
        if self.mourning:
            kernel, self.mourning = self.mourning, None
            self._announce(kernel)

    def _announce(self, kernel: KernelProcess) -> None:
        for request in kernel.ends:
            request.answer()
        assert kernel.ending is not None
        self.connections.tell({"event": "ended", "expected": kernel.end_expected, **kernel.ending._asdict()})


def main(when_it_fails: Callable[[], None]) -> None:
    """PID 1's program, and that of every process forked from it."""
    try:
        settings = Settings.read()
        home.prepare(settings)
        child = Supervisor(settings).run()
    except BaseException:
        when_it_fails()
        raise
    if child:
        child()
