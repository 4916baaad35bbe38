"""The template: a process with one thread that has imported everything a kernel needs, and is forked for every kernel.

It reads commands (JSON lines) from the supervisor and reports in lines short enough that a pipe writes them whole:

    commands  start {connection_file, curve, cwd, environment, extra_arguments, returning} · rehearse · park {connection_file, curve} ·
              mourn {connection_file, reason}
    reports   loaded {ipykernel, python, curve} · failed {kind, message} · forked {pid} · not_forked {message} · bound {pid} ·
              start_failed {message} · importing {module} · spoiled {module, reason} · learned · parking {pid} · parked ·
              not_parked {message} · mourner {pid} · mourned

A kernel is a grandchild: PID 1 adopts it, and so learns how it ended. What is forked returns its own main function, to be
called when the template's stack is unwound, so that the process ends as any Python program does.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import re
import select
import socket
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import kernel, last_words, process, wire
from .kernel_classes import KernelClasses
from .parked import Orders, Parked
from .preload import Imports, Spoiled
from .running import Mark

OLDEST_IPYKERNEL = (6, 0)
CURVE_IPYKERNEL = (7, 3)
REPORT = 2000  # characters of a text in a report: a pipe writes up to 4096 bytes whole

Main = Callable[[], None]


class Reports:
    """The writing end of the pipe to the supervisor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, report: str, **fields: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = value[-REPORT:]
        os.write(self.fd, wire.encode({"report": report, **fields}))

    def close(self) -> None:
        os.close(self.fd)


def main(commands: socket.socket, reports: Reports, preload: List[str], left_out: List[str], private: str) -> Main:
    """What this process is to do when the stack is unwound: nothing more (the template), or to be a kernel."""
    imports = Imports(left_out)
    try:
        facts = _load(preload, imports, reports)
        classes = KernelClasses()
        classes.imported.note()
        gc.freeze()  # keeps the kernels' pages shared
        reports.send("loaded", **facts)
        return _Template(commands, reports, private, imports, classes).serve()
    except _CannotServe as error:
        reports.send("failed", kind=error.kind, message=str(error))
        return _nothing
    except Spoiled as spoiled:
        reports.send("spoiled", module=spoiled.module, reason=spoiled.reason)
        os._exit(0)  # an ordinary end would wait for the module's threads


class _CannotServe(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _load(preload: List[str], imports: Imports, reports: Reports) -> Dict[str, Any]:
    # Read at import: without it, a kernel whose parent is PID 1 believes that it is an orphan.
    os.environ["JPY_PARENT_PID"] = "1"
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # debugpy's note on frozen modules would be the first thing that a client hears, before the kernel's welcome.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    try:
        import ipykernel
    except ImportError as error:
        message = f"The image's {sys.executable} cannot import ipykernel: {error}."
        raise _CannotServe("no-ipykernel", message) from None
    version = _version(ipykernel.__version__)
    if version < OLDEST_IPYKERNEL:
        needed = ".".join(map(str, OLDEST_IPYKERNEL))
        raise _CannotServe("old-ipykernel", f"The image has ipykernel {ipykernel.__version__}; {needed} is needed.")
    import ipykernel.kernelapp
    import zmq

    del os.environ["JPY_PARENT_PID"]
    imports.preload(preload, lambda name: reports.send("importing", module=name))
    return {
        "ipykernel": ipykernel.__version__,
        "python": "{}.{}.{}".format(*sys.version_info),
        "curve": version >= CURVE_IPYKERNEL and zmq.has("curve"),
    }


def _version(text: str) -> Tuple[int, int]:
    """Major and minor, also of a pre-release such as 8.0b1."""
    numbers = re.match(r"(\d*)\.?(\d*)", text)
    assert numbers is not None
    return int(numbers[1] or 0), int(numbers[2] or 0)


def _nothing() -> None:
    pass


class _Template:
    def __init__(
        self, commands: socket.socket, reports: Reports, private: str, imports: Imports, classes: KernelClasses
    ) -> None:
        self.commands = commands
        self.reports = reports
        self.private = private
        self.imports = imports
        self.classes = classes
        self.mark = Mark()
        self.rehearsal: Optional[int] = None  # the reading end of a rehearsing child's pipe
        self.rehearsing = 0  # its pid
        self.rehearsed = bytearray()
        self.to_learn: List[str] = []
        self.parked: Optional[Parked] = None

    def serve(self) -> Main:
        decoder = wire.Decoder()
        while True:
            waiting = [self.commands.fileno()] + ([] if self.rehearsal is None else [self.rehearsal])
            # A command never waits for more than one import.
            ready = select.select(waiting, [], [], 0 if self.to_learn else None)[0]
            if self.commands.fileno() in ready:
                data = self.commands.recv(1 << 16)
                if not data:
                    return _nothing
                for command in decoder.feed(data):
                    child = self._obey(command)
                    if child is not None:
                        return child
            elif self.rehearsal in ready:
                self._hear_rehearsal()
            elif self.to_learn:
                self._learn(self.to_learn.pop(0))

    def _obey(self, command: wire.Message) -> Optional[Main]:
        name = command["command"]
        if name == "start":
            return self._start(command)
        if name == "mourn":
            return self._mourn(command)
        if name == "rehearse":
            return self._rehearse()
        if name == "park":
            return self._park(command)
        return None

    def _start(self, command: wire.Message) -> Optional[Main]:
        self.mark.clear()
        if self._claimed(command) or not self._adopted_child("forked", "not_forked"):
            return None
        start = kernel.Start(
            connection_file=command["connection_file"],
            cwd=command["cwd"],
            environment=command["environment"],
            extra_arguments=command["extra_arguments"],
            returning=command["returning"],
        )
        self._forget_template()
        return lambda: kernel.run(start, self.classes, self.mark, self.reports)

    def _claimed(self, start: wire.Message) -> bool:
        """Whether a parked kernel is what the start asks for; one that does not fit has left its ports."""
        parked, self.parked = self.parked, None
        if parked is None:
            return False
        if not (parked.lives and parked.fits(start)):
            parked.leave()
            return False
        self.reports.send("forked", pid=parked.pid)
        parked.go(start)
        return True

    def _park(self, command: wire.Message) -> Optional[Main]:
        ours, theirs = socket.socketpair()
        if not self._adopted_child("parking", "not_parked"):
            theirs.close()
            parked = Parked(ours, command["curve"])
            self.parked = parked if parked.pid else None
            return None
        ours.close()
        self._forget_template()
        orders = Orders(theirs)
        return lambda: kernel.park(command["connection_file"], orders, self.classes, self.mark, self.reports)

    def _adopted_child(self, report: str, otherwise: str) -> bool:
        """True in a new grandchild, whose parent ends at once; False here, with its pid in the `report`, or `otherwise` why there is none."""
        try:
            middle = os.fork()
        except OSError as error:
            self.reports.send(otherwise, message=process.no_process(error.errno))
            return False
        if middle:
            _, status = os.waitpid(middle, 0)
            if status:
                self.reports.send(otherwise, message=process.no_process(os.WEXITSTATUS(status) or errno.ENOMEM))
            return False
        try:
            pid = os.fork()
        except OSError as error:
            os._exit(error.errno or errno.EAGAIN)
        if pid:
            self.reports.send(report, pid=pid)
            os._exit(0)
        return True

    def _forget_template(self) -> None:
        self.commands.close()
        if self.rehearsal is not None:
            os.close(self.rehearsal)
        if self.parked:
            self.parked.forget()

    def _mourn(self, command: wire.Message) -> Optional[Main]:
        cell = self.mark.get()
        if cell is None:
            self.reports.send("mourned")
            return None
        self.mark.clear()
        if not self._adopted_child("mourner", "mourned"):
            return None
        self._forget_template()

        def speak() -> None:
            with contextlib.suppress(Exception):
                last_words.say(command["connection_file"], cell, command["reason"], self.mark.listeners)
            self.reports.send("mourned")

        return speak

    # -- The rehearsal: a throw-away kernel shows what a kernel imports beyond ipykernel itself.

    def _rehearse(self) -> Optional[Main]:
        if self.rehearsal is not None:
            return None
        reading, writing = os.pipe()
        try:
            self.rehearsing = os.fork()
        except OSError as error:  # no process is left: it is for later
            os.close(reading)
            os.close(writing)
            self.reports.send("not_parked", message=process.no_process(error.errno))
            return None
        if self.rehearsing:
            os.close(writing)
            self.rehearsal = reading
            return None
        os.close(reading)
        self._forget_template()
        return lambda: kernel.rehearse(writing, self.private)

    def _hear_rehearsal(self) -> None:
        """The rehearsing child's modules are to be learned, once it has told all of them."""
        assert self.rehearsal is not None
        data = os.read(self.rehearsal, 1 << 16)
        self.rehearsed += data
        if data:
            return
        os.close(self.rehearsal)
        self.rehearsal = None
        os.waitpid(self.rehearsing, 0)
        self.to_learn = [name for name in json.loads(self.rehearsed or b"[]") if name not in sys.modules]
        self.rehearsed.clear()
        if not self.to_learn:
            self.reports.send("learned")

    def _learn(self, name: str) -> None:
        if name not in sys.modules:
            self.imports.learn(name)
        if self.to_learn:
            return
        process.give_memory_back()
        self.classes.imported.note()
        gc.freeze()
        self.reports.send("learned")
