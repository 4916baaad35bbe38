"""Other ways to a kernel in a Docker container, each in a virtual environment of its own, installed as its documentation says."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from containers import wait_until_removed

CACHE = Path(__file__).parent.parent / ".cache" / "peers"
KERNEL = "peer"  # the kernelspec in each of the environments
LABEL = "io.container-kernels.peer"
PATIENCE = 120.0  # seconds for a kernel to come and go

GATEWAY_IMAGE = "container-kernels-benchmark/gateway"
GATEWAY_CONTAINERFILE = """
FROM {image}
COPY wheels /wheels
RUN pip install --no-index --find-links /wheels gateway_provisioners && jupyter image-bootstrap install --languages Python \\
 && chmod 0755 /usr/local/bin/bootstrap-kernel.sh
ENV KERNEL_LANGUAGE=Python
CMD ["/usr/local/bin/bootstrap-kernel.sh"]
"""


class Unavailable(Exception):
    """This machine cannot have the peer; its message says why."""


@dataclass(frozen=True)
class Peer:
    """`label` is on all of its containers. `set_up` makes its kernelspec, for the image or for one that is derived from it."""

    name: str
    requirements: tuple[str, ...]
    label: str
    set_up: Callable[[Peer, str], None]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return CACHE / self.name

    def program(self, name: str) -> str:
        return str(self.directory / "bin" / name)


class Worker:
    """A process in the peer's environment that starts its kernels."""

    def __init__(self, peer: Peer, process: subprocess.Popen[str]) -> None:
        self.peer = peer
        self._process = process

    def start(self) -> float:
        """Seconds from the call of `start_kernel` to the first reply. Raises Unavailable."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print("start", file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Unavailable("its process has ended") from None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise Unavailable(f"nothing after {PATIENCE:g} seconds")
        answer = json.loads(self._process.stdout.readline() or '{"error": "its process has ended"}')
        wait_until_removed("docker", f"label={self.peer.label}")
        if "error" in answer:
            raise Unavailable(answer["error"])
        return float(answer["seconds"])


@contextmanager
def worker(peer: Peer, image: str, reconnect: int) -> Iterator[Worker]:
    """Raises Unavailable."""
    install(peer, image)
    argv = [peer.program("python"), str(Path(__file__).with_name("peer_worker.py")), KERNEL, str(reconnect)]
    pipe, environment = subprocess.PIPE, _environment(peer)
    with (
        open(peer.directory / "worker.log", "w") as log,
        subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment) as process,
    ):
        try:
            yield Worker(peer, process)
        finally:
            process.kill()


def install(peer: Peer, image: str) -> None:
    if not (peer.directory / "complete").exists():
        venv.create(peer.directory, with_pip=True, clear=True)
        _run(peer, [peer.program("python"), "-m", "pip", "install", "--quiet", *peer.requirements])
        (peer.directory / "complete").touch()
    peer.set_up(peer, image)


def version(peer: Peer) -> str:
    code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    return _run(peer, [peer.program("python"), "-c", code, peer.name]).strip()


def _set_up_gateway(peer: Peer, image: str) -> None:
    context = peer.directory / "image"
    if not (context / "wheels").exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
        _run(peer, [*pip, "--dest", str(context / "wheels"), "gateway_provisioners"])
    (context / "Containerfile").write_text(GATEWAY_CONTAINERFILE.format(image=image))
    # It asks for the machine's addresses when it is imported, so it cannot be built without a network.
    build = ["docker", "build", "--quiet", "--force-rm", "--file", str(context / "Containerfile")]
    _run(peer, [*build, "--tag", GATEWAY_IMAGE, str(context)])
    kernelspec = [
        "docker-spec",
        "install",
        "--sys-prefix",
        "--replace",
        f"--kernel-name={KERNEL}",
        f"--image-name={GATEWAY_IMAGE}",
    ]
    _run(peer, [peer.program("jupyter"), *kernelspec])


def _set_up_envkernel(peer: Peer, image: str) -> None:
    kernelspec = ["docker", f"--name={KERNEL}", "--sys-prefix", "--display-name=Peer", "--pwd", image]
    _run(peer, [peer.program("envkernel"), *kernelspec, f"--label={peer.label}"])


def _run(peer: Peer, argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, env=_environment(peer), capture_output=True, text=True, check=True, timeout=600)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout).strip().splitlines()[-1:]
        raise Unavailable(f"{Path(argv[0]).name} {argv[1]} failed: {' '.join(last)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from None
    return done.stdout


def _environment(peer: Peer) -> dict[str, str]:
    path = f"{peer.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**ours, "PATH": path, "DOCKER_BUILDKIT": "0", **peer.environment}


PEERS = (
    Peer(
        name="gateway_provisioners",
        requirements=("gateway_provisioners[docker]",),
        label="app=gateway-provisioners",
        set_up=_set_up_gateway,
        environment={"GP_UNAUTHORIZED_USERS": "", "KERNEL_USERNAME": "benchmark"},  # it refuses root
    ),
    Peer(
        name="envkernel",
        requirements=("envkernel", "jupyter_client"),
        label=f"{LABEL}=envkernel",
        set_up=_set_up_envkernel,
    ),
)
