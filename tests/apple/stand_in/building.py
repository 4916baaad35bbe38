"""`build`, and the machine that it is done in: `buildkit`, which goes on running, and is listed among the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid

from . import images, shapes, under
from .errors import AppleError, NotPlayed
from .grammar import Parsed
from .showing import emit, only_json
from .world import Record, World

BUILDER = "buildkit"
NOT_PLAYED = ("--cache-in", "--cache-out", "--secret", "--ssh", "--dns", "--dns-domain", "--dns-option", "--dns-search")
_SAME = ("--build-arg", "--label", "--target")


def build(world: World, parsed: Parsed) -> int:
    for name in NOT_PLAYED:
        if parsed.flag(name):
            raise NotPlayed(f"build {name}")
    if any(output != "type=oci" for output in parsed.every("--output")):
        raise NotPlayed("build --output")
    context = parsed.words[0] if parsed.words else "."
    if not os.path.isdir(context):
        raise AppleError("invalidArgument", f"context dir does not exist {context}")
    start(world, parsed)
    tags = parsed.every("--tag") or [str(uuid.uuid4())]
    names = [under.names(world, tag)[0] for tag in tags]
    argv = [
        world.engine,
        "build",
        "--force-rm",
        *_options(world, parsed, context),
        *(f"--tag={name}" for name in names),
        context,
    ]
    done = subprocess.run(argv, stdout=2, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise AppleError("unknown", f"failed to build: {(done.stderr.strip().splitlines() or [''])[-1]}")
    for tag, name in zip(tags, names, strict=True):
        images.made(world, name)
        print(under.normal(tag) if parsed.flag("--quiet") else f"Successfully built {under.normal(tag)}")
    return 0


def _options(world: World, parsed: Parsed, context: str) -> list[str]:
    file = parsed.one("--file") or next((path for path in _usual(context) if os.path.exists(path)), "")
    if not file:
        raise AppleError("notFound", "Dockerfile or Containerfile not found")
    options = [f"--file={file}", *(f"{name}={value}" for name in _SAME for value in parsed.every(name))]
    options += [name for name in ("--no-cache", "--pull") if parsed.flag(name)]
    # Podman would ask each registry that it knows for the short name of what is here.
    return [*options, "--format=docker", "--pull=never"] if world.engine == "podman" else options


def _usual(context: str) -> list[str]:
    return [os.path.join(context, name) for name in ("Dockerfile", "Containerfile")]


def start(world: World, parsed: Parsed) -> int:
    """It boots as any other."""
    with world.lock():
        if world.record(BUILDER):
            return 0
        world.log_boot("begin", BUILDER)
        world.boot_time()
        world.keep(_record())
        world.log_boot("end", BUILDER)
    return 0


def stop(world: World, parsed: Parsed) -> int:
    with world.lock():
        world.forget(BUILDER)
    return 0


def status(world: World, parsed: Parsed) -> int:
    """0 also when there is none, and then not in JSON."""
    only_json(parsed)
    record = world.record(BUILDER)
    if record is None:
        print("builder is not running")
        return 0
    if parsed.one("--format") == "json":
        return emit(world, [shapes.container(world, record)])
    print(BUILDER)
    return 0


def _record() -> Record:
    """Nothing runs underneath: the engine builds by itself."""
    lists = (
        "ports",
        "mounts",
        "env",
        "image_env",
        "groups",
        "ulimits",
        "capAdd",
        "capDrop",
        "dns",
        "dnsSearch",
        "dnsOption",
    )
    empty = {**{key: [] for key in lists}, **dict.fromkeys(("workdir", "user", "shmSize", "stopSignal"), "")}
    flags = dict.fromkeys(("terminal", "interactive", "init", "readOnly"), False)
    return {
        "id": BUILDER, "image": "other.example.org/apple/container-builder-shim/builder:0.8.0", "digest": f"sha256:{'b' * 64}",
        "under_image": "", "under": f"no-{BUILDER}", "made": False, "remove": False, "created": time.time(), "started": time.time(),
        "status": "running", "networks": [], "runtime": None, "shown_command": ["/usr/local/bin/container-builder-shim"],
        "command": [],
        "config": {
            "labels": {"com.apple.container.resource.role": "builder"}, "cpus": 2, "memory": 2 << 30, "network": "default",
            "architecture": under.HOST, **empty, **flags,
        },
    }  # fmt: skip
