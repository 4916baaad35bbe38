"""ipykernel's kernel and its application, with what a container adds to them."""

from __future__ import annotations

import sys
import threading
from typing import Any, Awaitable, Callable

from .imported import Imported, nothing_imported_for
from .running import Mark

RECONNECTION = 0.4  # seconds: ZeroMQ comes back after 100 to 200 ms


class KernelClasses:
    """Made by the template: traitlets looks at all that a new class inherits, and what that writes to is then still shared with the kernels."""

    def __init__(self) -> None:
        from ipykernel.ipkernel import IPythonKernel
        from ipykernel.kernelapp import IPKernelApp

        self.imported = Imported()
        self._ties = _Ties()
        self._kernel = _passing_as(IPythonKernel, _container_kernel(IPythonKernel, self._ties, self.imported))
        self._app = _passing_as(IPKernelApp, _container_app(IPKernelApp, self._ties, self.imported))

    def app(self, mark: Mark, heard: threading.Event, on_bound: Callable[[], None]) -> Any:
        """The application of this process; `on_bound` is called when its sockets are bound, and `heard` is set when all are here who listened before."""
        self._ties.mark, self._ties.heard, self._ties.on_bound = mark, heard, on_bound
        return self._app.instance(kernel_class=self._kernel)


class _Ties:
    """Of the one kernel that a process runs to the container's other processes. The template has none."""

    mark: Mark
    heard: threading.Event
    on_bound: Callable[[], None]


def _container_kernel(plain: Any, ties: _Ties, imported: Imported) -> Any:
    class Kernel(plain):  # type: ignore[misc] # known when it runs
        """Marks the cell that it runs, so that its death can be told to who waits for it."""

        def __init__(self, **kwargs: Any) -> None:
            with nothing_imported_for(sys.modules[plain.__module__]):
                super().__init__(**kwargs)
            # From ipykernel 7 on; its debugger has the same list.
            if getattr(self, "_kernel_modules", None) == []:
                self._kernel_modules += imported.files()

        def set_parent(self, *args: Any, **kwargs: Any) -> None:
            # A restart is faster than ZeroMQ's reconnection: the request may be here before its sender hears what we publish.
            # The last kernel's listeners come back one by one, and which of them is the sender's, nobody knows.
            ties.heard.wait(RECONNECTION)
            ties.heard.set()
            super().set_parent(*args, **kwargs)

        async def execute_request(self, stream: Any, ident: Any, parent: Any) -> None:
            ties.mark.set(list(ident), dict(parent["header"]))
            try:
                result = super().execute_request(stream, ident, parent)
                if isinstance(result, Awaitable):
                    await result
            finally:
                ties.mark.clear()

    return Kernel


def _container_app(plain: Any, ties: _Ties, imported: Imported) -> Any:
    class App(plain):  # type: ignore[misc] # known when it runs
        """Tells when the last of its sockets is bound; the kernel itself is made while the client connects."""

        def init_heartbeat(self) -> None:
            super().init_heartbeat()
            ties.on_bound()

        def init_code(self) -> None:
            with nothing_imported_for(sys.modules["IPython.core.shellapp"]):
                super().init_code()
            if getattr(self.shell, "_sys_modules_keys", None) == set():
                self.shell._sys_modules_keys |= imported.names()

    return App


def _passing_as(plain: Any, ours: Any) -> Any:
    """What a notebook sees is the plain one's name."""
    ours.__name__, ours.__qualname__, ours.__module__ = plain.__name__, plain.__qualname__, plain.__module__
    return ours
