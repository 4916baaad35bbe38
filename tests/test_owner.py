"""Whose a container is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from container_kernels import owner


async def test_this_process_is_not_gone() -> None:
    label = await owner.this_process()
    assert label.startswith(f"{os.getpid()}:")
    assert label.endswith(f":{platform.node()}")
    assert not await owner.is_gone(label)


async def test_a_process_that_has_ended_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220 # returns at once
    start = await owner.started(process.pid)
    label = f"{process.pid}:{start}:{platform.node()}"
    assert start
    assert not await owner.is_gone(label)
    process.communicate(b"\n")
    assert await owner.is_gone(label)
    assert await owner.started(process.pid) == ""


async def test_another_process_with_the_same_id_is_not_the_owner() -> None:
    assert await owner.is_gone(f"{os.getpid()}:1:{platform.node()}")


async def test_when_in_doubt_it_is_not_gone() -> None:
    start = await owner.started(os.getpid())
    for label in ("", "x", "x:1:y", f"{os.getpid()}:1:another host", f"{os.getpid()}:{start}", f":1:{platform.node()}"):
        assert not await owner.is_gone(label)


async def test_a_host_name_that_is_odd() -> None:
    assert not await owner.is_gone(f"999999999:1:not:{platform.node()}x")
