"""Containers: ours until they are gone, and one made by a bare `docker run`, with nothing of ours."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clients import first_reply
from jupyter_client.utils import run_sync
from kernels import Measured, managed

from container_kernels.spec import Spec

KERNEL_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
REMOVAL = 60.0  # seconds


@contextmanager
def contained(kernel_name: str, engine: str, reconnect: int) -> Iterator[Measured]:
    """A kernel of ours. The engine removes its container behind our back, and the next start would feel it: so that is waited for."""
    name = None
    with managed(kernel_name, reconnect) as kernel:
        try:
            yield kernel
        finally:
            name = container_of(kernel.manager.provisioner)
    if name is not None:
        wait_until_removed(engine, f"name={name}")


def container_of(provisioner: object) -> str | None:
    """The name of the kernel's container, if it has one."""
    info = run_sync(provisioner.get_provisioner_info)() if provisioner else {}  # type: ignore[attr-defined]
    name = info.get("container", {}).get("name")
    return None if name is None else str(name)


def wait_until_removed(engine: str, *filters: str) -> None:
    """The engine has no container, running or not, that fits any of the filters."""
    deadline = time.monotonic() + REMOVAL
    while time.monotonic() < deadline:
        if not any(_listed(engine, each) for each in filters):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{engine} has not removed a container of this measurement")


def _listed(engine: str, condition: str) -> str:
    argv = [engine, "ps", "--all", "--quiet", "--filter", condition]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def bare_run(engine: str, spec: Spec, user: str | None, reconnect: int) -> float:
    """Seconds from `docker run` to the first reply: the same image, limits, user and ports, its own ipykernel, nothing of ours."""
    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        connection = {"transport": "tcp", "key": uuid.uuid4().hex, "signature_scheme": "hmac-sha256"}
        connection_file = Path(folder) / "connection.json"
        try:
            begin = time.perf_counter()
            ports = dict(zip(KERNEL_PORTS, free_ports(len(KERNEL_PORTS)), strict=True))
            connection_file.write_text(json.dumps({**connection, "ip": "0.0.0.0", **ports}))
            connection_file.chmod(0o644)
            argv = run_arguments(engine, name, spec, user, connection_file, ports.values())
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
            first_reply({**connection, "ip": "127.0.0.1", **ports}, reconnect)
            return time.perf_counter() - begin
        finally:
            subprocess.run([engine, "rm", "--force", name], check=False, capture_output=True, timeout=60)
            wait_until_removed(engine, f"name={name}")


def run_arguments(
    engine: str, name: str, spec: Spec, user: str | None, connection_file: Path, ports: Iterable[int]
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
