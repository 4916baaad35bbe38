"""Jupyter's own programs as subprocesses, each with directories of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from container_kernels.ports import Ports

from ..conftest import EngineUnderTest, eventually, eventually_async

PROGRAM_TIMEOUT = 60.0
EXTENSIONS_OFF = dict.fromkeys(("jupyterlab", "jupyter_lsp", "jupyter_server_terminals", "notebook_shim"), False)


@pytest.fixture(autouse=True)
def jupyter_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's Jupyter configuration is read, and nothing of a test's is left; kernelspecs come from the prefix."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("JUPYTER_PATH", "JUPYTER_TOKEN", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write_kernelspec() -> Callable[..., str]:
    """Writes a kernelspec like `container-python`, with a configuration and words of its own; its name is returned."""

    def write(name: str, config: dict[str, Any], **words: Any) -> str:
        directory = Path(os.environ["JUPYTER_DATA_DIR"]) / "kernels" / name
        directory.mkdir(parents=True)
        stanza = {"provisioner_name": "container-kernels", "config": config}
        spec = {
            "argv": [],
            "display_name": name,
            "language": "python",
            "interrupt_mode": "signal",
            "metadata": {"supported_encryption": ["curve"], "kernel_provisioner": stanza},
            **words,
        }
        (directory / "kernel.json").write_text(json.dumps(spec))
        return name

    return write


def none_left(engine: EngineUnderTest, *, timeout: float = 10) -> bool:
    """Whether the engine has removed all of the test's containers: it does so when it sees them ended."""
    return not eventually(engine.containers, lambda names: not names, timeout=timeout)


@dataclass
class Program:
    """One of Jupyter's programs, running; its output goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, text: str, *, timeout: float = PROGRAM_TIMEOUT) -> str:
        """All of its output, once `text` is in it."""
        eventually(lambda: self.process.poll() is not None or text in self.output, bool, timeout=timeout)
        assert text in self.output, self.output
        return self.output

    def ends(self, *, timeout: float = PROGRAM_TIMEOUT) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.output}") from None


@pytest.fixture
def start_program(engine: EngineUnderTest, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts `jupyter ARGUMENT…`, or another program of the environment, on the engine under test."""
    programs: list[Program] = []

    def start(*arguments: str, run: str = "jupyter", stdin: bytes | None = None, **popen: Any) -> Program:
        log = tmp_path / f"program-{len(programs)}.log"
        command = [str(Path(sys.executable).with_name(run)), *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **popen,
            )
        if stdin is not None:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
        programs.append(Program(process, log))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            # Their last resort is a second signal.
            for _ in range(2):
                program.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.process.wait(15)
                    break
            else:
                program.process.kill()
                program.process.wait()


@dataclass
class Result:
    """What became of one cell."""

    status: str = ""
    printed: str = ""
    error: str = ""
    states: list[str] = field(default_factory=list)


class Channels:
    """A kernel's websocket, as a notebook in JupyterLab holds it."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self._session = uuid.uuid4().hex

    async def send(self, message_type: str, content: dict[str, Any], *, channel: str = "shell") -> str:
        identity = uuid.uuid4().hex
        header = {
            "msg_id": identity,
            "msg_type": message_type,
            "session": self._session,
            "username": "test",
            "date": datetime.now(timezone.utc).isoformat(),
            "version": "5.3",
        }
        message = {
            "header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": [], "channel": channel
        }  # fmt: skip
        await self._connection.write_message(json.dumps(message))
        return identity

    async def receive(self, *, timeout: float = 30) -> dict[str, Any]:
        data = await asyncio.wait_for(asyncio.ensure_future(self._connection.read_message()), timeout)
        assert data is not None, "the server has closed the websocket"
        return cast("dict[str, Any]", json.loads(data))

    async def start(self, code: str) -> str:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        return await self.send("execute_request", {**content, "user_expressions": {}})

    async def until(self, wanted: Callable[[dict[str, Any]], bool], *, timeout: float = 30) -> dict[str, Any]:
        """The first message that is wanted."""
        deadline = time.monotonic() + timeout
        while True:
            message = await self.receive(timeout=deadline - time.monotonic())
            if wanted(message):
                return message

    async def printed(self, text: str, *, timeout: float = 30) -> None:
        await self.until(lambda message: text in message["content"].get("text", ""), timeout=timeout)

    async def state(self, wanted: str, *, timeout: float = 30) -> None:
        await self.until(lambda message: message["content"].get("execution_state") == wanted, timeout=timeout)

    async def finish(self, identity: str, *, timeout: float = 30) -> Result:
        """The cell has its reply, and the kernel is idle again."""
        result = Result()

        def collect(message: dict[str, Any]) -> bool:
            if message["parent_header"].get("msg_id") != identity:
                return False
            content = message["content"]
            if message["msg_type"] == "stream":
                result.printed += content["text"]
            elif message["msg_type"] == "status":
                result.states.append(content["execution_state"])
            elif message["msg_type"] == "execute_reply":
                result.status = content["status"]
                result.error = f"{content.get('ename', '')}: {content.get('evalue', '')}"
            return bool(result.status) and "idle" in result.states

        try:
            await self.until(collect, timeout=timeout)
        except asyncio.TimeoutError:
            raise AssertionError(f"the cell does not end: {result}") from None
        return result

    async def run(self, code: str, *, timeout: float = 30) -> str:
        result = await self.finish(await self.start(code), timeout=timeout)
        assert result.status == "ok", result
        return result.printed.strip()


class Server:
    """A running `jupyter server` on loopback."""

    def __init__(self, program: Program, root: Path, url: str, token: str) -> None:
        self.program = program
        self.root = root
        self._url = url
        self._token = token

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """The status, and the answer's JSON."""
        return await asyncio.to_thread(self._request, method, path, body)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self._url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        status, answer = await self.request("GET", path)
        assert status == 200, answer
        return answer

    async def start_session(self, notebook: str = "a.ipynb", kernel: str = "container-python") -> dict[str, Any]:
        """A notebook with its kernel, as JupyterLab opens it."""
        status, session = await self.post_session(notebook, kernel)
        assert status == 201, session
        return cast("dict[str, Any]", session)

    async def post_session(self, notebook: str, kernel: str) -> tuple[int, Any]:
        body = {"path": notebook, "name": Path(notebook).name, "type": "notebook", "kernel": {"name": kernel}}
        return await self.request("POST", "/api/sessions", body)

    async def kernel(self, kernel_id: str) -> dict[str, Any]:
        return cast("dict[str, Any]", await self.get(f"/api/kernels/{kernel_id}"))

    async def kernel_becomes(self, kernel_id: str, good: Callable[[Any], bool], *, timeout: float = 20) -> Any:
        """The REST model of the kernel, once it is good."""
        model = await eventually_async(
            lambda: self._request("GET", f"/api/kernels/{kernel_id}", None)[1], good, timeout=timeout
        )
        assert good(model), model
        return model

    @contextlib.asynccontextmanager
    async def channels(self, kernel_id: str, session_id: str = "") -> AsyncIterator[Channels]:
        session = session_id or uuid.uuid4().hex
        url = f"{self._url}/api/kernels/{kernel_id}/channels?session_id={session}&token={self._token}"
        connection = await websocket_connect(url.replace("http", "ws", 1))
        try:
            yield Channels(connection)
        finally:
            connection.close()
            # Read to the end, so that no task of it outlives the test's loop.
            with contextlib.suppress(asyncio.TimeoutError):
                while await asyncio.wait_for(asyncio.ensure_future(connection.read_message()), 10) is not None:
                    pass

    async def resolve(self, kernel_id: str, path: str) -> tuple[int, Any]:
        return await self.request("GET", f"/api/resolvePath?kernel={kernel_id}&path={quote(path)}")


@pytest.fixture
def start_server(start_program: Callable[..., Program], tmp_path: Path) -> Callable[..., Server]:
    """Starts `jupyter server`, or another application, with a root directory of its own; it is ended afterwards."""

    def start(*arguments: str, application: str = "server") -> Server:
        root = tmp_path / "root"
        root.mkdir()
        if application == "server":
            # It starts sooner without what the environment has put into it.
            arguments += (f"--ServerApp.jpserver_extensions={EXTENSIONS_OFF}",)
        token = uuid.uuid4().hex
        port = Ports.choose().supervisor  # of which it is known that connections arrive
        program = start_program(
            application, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
            f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}", *arguments, cwd=root,
        )  # fmt: skip
        told = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{program.process.pid}.json"
        eventually(lambda: told.exists() or program.process.poll() is not None, bool, timeout=PROGRAM_TIMEOUT)
        assert told.exists(), program.output
        server = Server(program, root, f"http://127.0.0.1:{eventually(lambda: _port(told), bool)}", token)
        assert eventually(lambda: _answers(server), bool, timeout=PROGRAM_TIMEOUT), program.output
        return server

    return start


def _port(told: Path) -> int:
    with contextlib.suppress(ValueError):  # it is being written
        return int(json.loads(told.read_text())["port"])
    return 0


def _answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server._request("GET", "/api", None)[0] == 200
    return False


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()
