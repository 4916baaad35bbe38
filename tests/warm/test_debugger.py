"""A warm kernel's debugger steps over what is not the person's own code, and its template has noted what that is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from ..conftest import RunningKernel
from .pools import PoolUnderTest

Starter = Callable[..., Any]

KNOWN = """
import json, sys
shell = get_ipython()
files, names = shell.kernel._kernel_modules, shell._sys_modules_keys
print(json.dumps({
    "missed files": sorted({m.__file__ for m in sys.modules.copy().values() if hasattr(m, "__file__") and m.__file__} ^ set(files)),
    "missed names": sorted(set(sys.modules) ^ names),
    "the debugger's": shell.kernel.debugger.kernel_modules is files,
    "looked at modules": any(file is json.__file__ for file in files) or any(name is json.__name__ for name in names),
    "sys is back": all(sys.modules[name].sys is sys for name in ("ipykernel.ipkernel", "IPython.core.shellapp")),
}))
"""
# The second line calls a function of a module, whose code is to be stepped over.
CELL = "import textwrap\nx = textwrap.dedent('  a')\ny = x * 2\nprint(y)\n"


@pytest.fixture
async def kernel(warm: PoolUnderTest, start_kernel: Starter) -> RunningKernel:
    kernel: RunningKernel = await start_kernel()
    assert kernel.provisioner.is_warm
    return kernel


async def test_what_is_imported_is_known_though_no_module_was_looked_at(kernel: RunningKernel) -> None:
    """By a kernel that was parked, and by one that was forked anew."""
    expected = {
        "missed files": [],
        "missed names": [],
        "the debugger's": True,
        "looked at modules": False,
        "sys is back": True,
    }
    assert json.loads(await kernel.run(KNOWN)) == expected
    await kernel.manager.restart_kernel()
    assert json.loads(await kernel.run(KNOWN)) == expected


class Debugger:
    """The client's side of the debugger."""

    def __init__(self, kernel: RunningKernel) -> None:
        self._client = kernel.client
        self._numbers = itertools.count(1)

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        content = {"type": "request", "seq": next(self._numbers), "command": command, "arguments": arguments}
        message = self._client.session.msg("debug_request", content)
        self._client.control_channel.send(message)
        while True:
            reply = await self._client.get_control_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                answer: dict[str, Any] = reply["content"]
                assert answer["success"], answer
                return dict(answer.get("body") or {})

    async def stop(self) -> tuple[str, int]:
        """Where the code has stopped: the innermost function and its line."""
        while True:
            message = await self._client.get_iopub_msg(timeout=30)
            if message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped":
                thread = message["content"]["body"]["threadId"]
                frame = (await self.ask("stackTrace", threadId=thread))["stackFrames"][0]
                self.thread = thread
                return frame["name"], frame["line"]


async def test_it_stops_at_a_breakpoint_and_steps_over_modules(kernel: RunningKernel) -> None:
    debugger = Debugger(kernel)
    assert not (await debugger.ask("debugInfo"))["isStarted"]
    await debugger.ask("initialize", clientID="test", adapterID="", pathFormat="path", linesStartAt1=True)
    await debugger.ask("attach")
    path = (await debugger.ask("dumpCell", code=CELL))["sourcePath"]
    made = await debugger.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": 2}], sourceModified=False)
    assert made["breakpoints"][0]["verified"]
    await debugger.ask("configurationDone")
    kernel.client.execute(CELL)
    assert await debugger.stop() == ("<module>", 2)
    await debugger.ask("stepIn", threadId=debugger.thread)
    assert await debugger.stop() == ("<module>", 3)
    await debugger.ask("continue", threadId=debugger.thread)
    assert (await debugger.ask("debugInfo"))["isStarted"]
    await debugger.ask("disconnect", restart=False, terminateDebuggee=False)
