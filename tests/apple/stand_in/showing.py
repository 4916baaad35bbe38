"""list, inspect, logs and stats: none of them waits for the service's lock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from . import attached, shapes, under
from .errors import AppleError, Failed, NotPlayed
from .grammar import Parsed
from .world import Record, World

APART = 2.0  # seconds between the two samples of `stats`
CGROUP = "/sys/fs/cgroup"


def emit(world: World, content: Any, *, pretty: bool = False) -> int:
    print(shapes.printed(world, content, pretty=pretty))
    return 0


def only_json(parsed: Parsed) -> None:
    if parsed.one("--format", "table") not in ("json", "table"):
        raise NotPlayed(f"--format {parsed.one('--format')}")


def list_containers(world: World, parsed: Parsed) -> int:
    only_json(parsed)
    records = [record for record in world.records() if parsed.flag("--all") or record["status"] == "running"]
    if parsed.flag("--quiet"):
        print("".join(f"{record['id']}\n" for record in records), end="")
        return 0
    if parsed.one("--format") == "json":
        return emit(world, [shapes.container(world, record) for record in records])
    rows = [("ID", "IMAGE", "OS", "ARCH", "STATE", "ADDR")]
    for record in records:
        address = record["networks"][0]["address"] if record["networks"] and record["status"] == "running" else ""
        rows.append(
            (record["id"], record["image"], "linux", record["config"]["architecture"], record["status"], address)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def inspect(world: World, parsed: Parsed) -> int:
    """In the order of the list. What is missing is silence up to 0.12.3, and since then a failure that prints nothing of the others."""
    records = [record for record in world.records() if record["id"] in parsed.words]
    if world.release >= (1, 0):
        known = {record["id"] for record in records}
        for name in parsed.words:
            if name not in known:
                raise AppleError("notFound", f"container not found: {name}")
    return emit(world, [shapes.container(world, record) for record in records], pretty=True)


def logs(world: World, parsed: Parsed) -> int:
    if parsed.flag("--boot"):
        raise NotPlayed("logs --boot")
    name = parsed.words[0]
    record = world.record(name)
    doing = f"failed to get logs for container {name}"
    if record is None:
        raise AppleError("internalError", doing, AppleError("notFound", f"container with ID {name} not found"))
    if not record["made"]:
        raise AppleError("internalError", doing, AppleError("notFound", "failed to open container logs: no such file"))
    argv = [world.engine, "logs", *attached.since(record), record["under"]]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    output = done.stdout
    if parsed.flag("-n"):
        lines = [line for line in output.split(b"\n") if line.strip()]
        wanted = int(parsed.one("-n"))
        output = b"".join(line + b"\n" for line in lines[max(0, len(lines) - wanted) :])
    try:
        output.decode()
    except UnicodeDecodeError:
        raise AppleError("internalError", "failed to convert container logs to utf8") from None
    sys.stdout.flush()
    attached.write(1, output)
    if parsed.flag("--follow"):
        _follow(world, record, len(done.stdout))
    return 0


def _follow(world: World, record: Record, seen: int) -> None:
    """For ever, also when the container has ended. Empty lines are dropped."""
    while True:
        time.sleep(0.1)
        argv = [world.engine, "logs", *attached.since(record), record["under"]]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        fresh = done.stdout[seen:] if done.returncode == 0 else b""
        seen += len(fresh)
        attached.write(1, b"".join(line + b"\n" for line in fresh.split(b"\n") if line))


def stats(world: World, parsed: Parsed) -> int:
    only_json(parsed)
    records = {record["id"]: record for record in world.records() if record["status"] == "running"}
    for name in parsed.words:
        if name not in records:
            raise Failed(f"no such container: {name}")
    if parsed.one("--format") != "json":
        raise NotPlayed("stats as a table")
    chosen = [record for name, record in records.items() if not parsed.words or name in parsed.words]
    time.sleep(APART)
    return emit(world, [sample for record in chosen if (sample := _sample(world, record))])


def _sample(world: World, record: Record) -> dict[str, Any] | None:
    found = under.container(world, record)
    if found is None or not found["State"]["Running"]:
        return None
    process = found["State"]["Pid"]
    try:
        with open(f"/proc/{process}/cgroup") as file:
            groups = dict(line.strip().split(":", 2)[1:] for line in file)
    except FileNotFoundError:
        return None
    received, sent = _traffic(process)
    return {
        "id": record["id"],
        "memoryUsageBytes": _number(groups, "memory", "memory.usage_in_bytes", "memory.current"),
        "memoryLimitBytes": record["config"]["memory"],
        "cpuUsageUsec": _cpu(groups),
        "networkRxBytes": received,
        "networkTxBytes": sent,
        "blockReadBytes": 0,
        "blockWriteBytes": 0,
        "numProcesses": _number(groups, "pids", "pids.current", "pids.current"),
    }


def _read(groups: dict[str, str], controller: str, old: str, new: str) -> str:
    """A file of the container's control group, of either generation."""
    if controller in groups:
        path = f"{CGROUP}/{controller}{groups[controller]}/{old}"
    else:
        path = next((f"{CGROUP}/{name}{at}/{old}" for name, at in groups.items() if controller in name.split(",")), "")
    if not path:
        path = f"{CGROUP}{groups['']}/{new}"
    with open(path) as file:
        return file.read()


def _number(groups: dict[str, str], controller: str, old: str, new: str) -> int:
    return int(_read(groups, controller, old, new))


def _cpu(groups: dict[str, str]) -> int:
    text = _read(groups, "cpuacct", "cpuacct.usage", "cpu.stat")
    return int(text.split()[1]) if text.startswith("usage_usec") else int(text) // 1000


def _traffic(process: int) -> tuple[int, int]:
    received = sent = 0
    path = f"/proc/{process}/net/dev"
    if os.path.exists(path):
        with open(path) as file:
            for line in file:
                name, colon, counters = line.partition(":")
                if colon and name.strip() != "lo":
                    received += int(counters.split()[0])
                    sent += int(counters.split()[8])
    return received, sent
