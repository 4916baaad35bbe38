"""The kernels that are measured: one started by a kernel manager, and one by a bare `docker run`.

Each is a context manager that yields how to measure it, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients import Connection, first_reply
from jupyter_client.manager import KernelManager

from container_kernels import owner
from container_kernels.engines.protocol import LABEL
from container_kernels.spec import Spec

KERNEL_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")

# Waits until the container's other processes have used no cpu for longer than the template waits with its rehearsal:
# a person restarts a kernel that has settled.
SETTLE = """
import os, time
from pathlib import Path
def ticks():
    pids = [p.name for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sorted(pids), sum(int(stat[11]) + int(stat[12]) for stat in stats)
quiet, last, deadline = time.monotonic(), None, time.monotonic() + 15
while time.monotonic() < min(quiet + 2.5, deadline):
    try:
        now = ticks()
    except OSError:
        now = None
    if now is None or now != last:
        quiet, last = time.monotonic(), now
    time.sleep(0.1)
"""


@dataclass
class Measured:
    """A kernel manager's kernel; each method returns the seconds from the call to the first reply."""

    manager: KernelManager
    reconnect: int

    def start(self) -> float:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self._timed(lambda: self.manager.start_kernel(**quiet))

    def restart(self) -> float:
        return self._timed(self.manager.restart_kernel)

    def restart_now(self) -> float:
        return self._timed(lambda: self.manager.restart_kernel(now=True))

    def settle(self) -> None:
        first_reply(self._connection, self.reconnect, SETTLE)

    @property
    def _connection(self) -> Connection:
        return self.manager.get_connection_info()

    def _timed(self, do: Callable[[], object]) -> float:
        begin = time.perf_counter()
        do()
        first_reply(self._connection, self.reconnect)
        return time.perf_counter() - begin


@contextmanager
def managed(kernel_name: str, reconnect: int) -> Iterator[Measured]:
    """A kernel that `jupyter_client` starts, by whichever provisioner its kernelspec names."""
    manager = KernelManager(kernel_name=kernel_name)
    try:
        yield Measured(manager, reconnect)
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def bare_run(engine: str, spec: Spec, user: str | None, reconnect: int) -> float:
    """Seconds from `docker run` to the first reply: the same image, limits, user and ports, its own ipykernel, nothing of ours."""
    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        connection = {"transport": "tcp", "ip": "0.0.0.0", "key": uuid.uuid4().hex, "signature_scheme": "hmac-sha256"}
        connection_file = Path(folder) / "connection.json"
        try:
            begin = time.perf_counter()
            ports = dict(zip(KERNEL_PORTS, free_ports(len(KERNEL_PORTS)), strict=True))
            connection_file.write_text(json.dumps({**connection, **ports}))
            connection_file.chmod(0o644)
            argv = run_arguments(engine, name, spec, user, connection_file, list(ports.values()))
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
            first_reply({**connection, **ports}, reconnect)
            return time.perf_counter() - begin
        finally:
            subprocess.run([engine, "rm", "--force", name], check=False, capture_output=True, timeout=60)


def wait_until_removed(engine: str) -> None:
    """The engine has removed this process's containers; it does so behind our back, and the next start would feel it."""
    owner_label = f"label={LABEL}.owner={asyncio.run(owner.this_process())}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        argv = [engine, "ps", "--all", "--quiet", "--filter", owner_label]
        if not subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout.strip():
            return
        time.sleep(0.05)
    raise TimeoutError(f"{engine} has not removed a container of this measurement")


def run_arguments(
    engine: str, name: str, spec: Spec, user: str | None, connection_file: Path, ports: list[int]
) -> list[str]:
    words = [engine, "run", "--detach", "--rm", "--pull", "never", "--name", name]
    words += ["--cpus", f"{spec.cpus:g}", "--memory", str(spec.memory), "--memory-swap", str(spec.memory)]
    words += ["--pids-limit", str(spec.pids), *(["--user", user] if user else [])]
    for port in ports:
        words += ["--publish", f"127.0.0.1:{port}:{port}"]
    words += ["--mount", f"type=bind,source={connection_file},target=/connection.json"]
    return [*words, spec.image, "python3", "-m", "ipykernel_launcher", "-f", "/connection.json"]


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
