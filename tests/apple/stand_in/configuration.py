"""A container as it is asked for: from words to a record, with all that `create` checks."""

from __future__ import annotations

import os
import sys
import time
import uuid
from typing import Any

from . import under, values
from .errors import AppleError, Failed, NotPlayed
from .grammar import Parsed, too_little
from .images import fetched
from .values import Mounted
from .world import Record, World

DEFAULT_MEMORY = 1 << 30
DEFAULT_CPUS = 4
NOT_PLAYED = (
    "--publish-socket", "--ssh", "--virtualization", "--kernel", "--kernel-arg", "--masked-path", "--read-only-path", "--runtime",
    "--init-image",
)  # fmt: skip


def record_of(world: World, parsed: Parsed) -> Record:
    """The record of a container that is not there yet; what the service minds about its resources is not looked at."""
    for name in NOT_PLAYED:
        if parsed.flag(name):
            raise NotPlayed(name)
    if any(values.publish(text).proto == "udp" for text in parsed.every("--publish")):
        raise NotPlayed("UDP")
    identity = parsed.one("--name", str(uuid.uuid4()))
    values.name(identity, world.release)
    if parsed.command == "run" and world.record(identity):
        raise AppleError("exists", f"container with id {identity} already exists")
    mounts = [_checked(mount) for mount in _mounts(parsed)]
    if parsed.command == "run":
        progress(
            parsed,
            "[1/6] Fetching image",
            "[2/6] Unpacking image",
            "[3/6] Fetching kernel",
            "[4/6] Fetching init image",
        )
    image = fetched(world, parsed.words[0], _architecture(parsed))
    if world.faults().get("kernel") == "missing":
        missing = "please use the `container system kernel set` command to configure it"
        raise AppleError("notFound", f"default kernel not configured for architecture {under.HOST}, {missing}")
    network = _network(world, parsed)
    foreign = under.foreign(world, parsed.words[0])
    command = _command(parsed, image)
    return {
        "id": identity,
        "image": image["reference"],
        "digest": "sha256:" + image["Id"].removeprefix("sha256:"),
        "under_image": image["name"],
        "under": f"stand-in-{world.digest}-{identity}-{uuid.uuid4().hex[:6]}",
        "made": False,
        "remove": parsed.flag("--rm"),
        "created": time.time(),
        "started": None,
        "status": "stopped",
        "networks": [],
        "runtime": None,
        "shown_command": command,
        "command": list(under.NEVER_LISTENS) if foreign else command,
        "config": _config(parsed, image, mounts, network) | {"architecture": under.OTHER if foreign else under.HOST},
    }


def progress(parsed: Parsed, *steps: str) -> None:
    """Lines on stderr, before any error, where nobody has said that there be none."""
    if parsed.one("--progress", "auto") != "none":
        for step in steps:
            print(f"{step} [0s]", file=sys.stderr, flush=True)


def check_resources(world: World, parsed: Parsed) -> None:
    if error := too_little(world.version, parsed):
        raise AppleError("internalError", "failed to create container", error)


def _config(parsed: Parsed, image: dict[str, Any], mounts: list[Mounted], network: str) -> dict[str, Any]:
    of_image = image["Config"] or {}
    user = parsed.one("--user")
    if parsed.flag("--uid"):
        user = f"{parsed.one('--uid')}:{parsed.one('--gid', '0')}"
    return {
        "labels": dict(values.label(text) for text in parsed.every("--label")),
        "ports": [values.publish(text)._asdict() for text in parsed.every("--publish")],
        "mounts": [mount._asdict() for mount in mounts],
        "env": environment(parsed),
        "image_env": of_image.get("Env") or [],
        "workdir": parsed.one("--workdir", of_image.get("WorkingDir") or ""),
        "user": user or of_image.get("User") or "",
        "groups": [parsed.one("--gid")] if parsed.flag("--gid") and not parsed.flag("--uid") else [],
        "terminal": parsed.flag("--tty"),
        "interactive": parsed.flag("--interactive"),
        "ulimits": parsed.every("--ulimit"),
        "cpus": int(parsed.one("--cpus", str(DEFAULT_CPUS))),
        "memory": values.memory(parsed.one("--memory")) if parsed.flag("--memory") else DEFAULT_MEMORY,
        "shmSize": values.memory(parsed.one("--shm-size")) if parsed.flag("--shm-size") else 0,
        "init": parsed.flag("--init"),
        "readOnly": parsed.flag("--read-only"),
        "capAdd": [values.capability(text) for text in parsed.every("--cap-add")],
        "capDrop": [values.capability(text) for text in parsed.every("--cap-drop")],
        "dns": parsed.every("--dns"),
        "dnsSearch": parsed.every("--dns-search"),
        "dnsOption": parsed.every("--dns-option"),
        "network": network,
        "stopSignal": of_image.get("StopSignal") or "",
    }


def _architecture(parsed: Parsed) -> str | None:
    """What is asked for in words or by the environment; None means the host's."""
    platform = parsed.one("--platform") or os.environ.get("CONTAINER_DEFAULT_PLATFORM", "")
    asked = parsed.one("--arch") or platform.partition("/")[2].partition("/")[0]
    return {"aarch64": "arm64", "x86_64": "amd64", "x86-64": "amd64"}.get(asked, asked) or None


def _command(parsed: Parsed, image: dict[str, Any]) -> list[str]:
    config = image["Config"] or {}
    arguments = parsed.words[1:]
    if parsed.flag("--entrypoint"):
        return [parsed.one("--entrypoint"), *arguments]
    command = [*(config.get("Entrypoint") or []), *(arguments or config.get("Cmd") or [])]
    if not command:
        raise AppleError("invalidArgument", "Command/Entrypoint not specified for container process")
    return command


def environment(parsed: Parsed) -> list[str]:
    """`K=V` each, the later over the earlier; a bare `K` is taken from our own, if it is there."""
    pairs: dict[str, str] = {}
    for path in parsed.every("--env-file"):
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except OSError as error:
            raise Failed(f"failed to read envfile at {path}: {error.strerror}") from None
        pairs.update(_pairs([line for line in lines if line and not line.startswith("#")]))
    pairs.update(_pairs(parsed.every("--env")))
    return [f"{key}={value}" for key, value in pairs.items()]


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if equals or key in os.environ:
            pairs[key] = value if equals else os.environ[key]
    return pairs


def _mounts(parsed: Parsed) -> list[Mounted]:
    readers = {"--volume": values.volume, "--mount": values.mount, "--tmpfs": values.tmpfs}
    return [reader(text) for option, reader in readers.items() for text in parsed.every(option)]


def _checked(mount: Mounted) -> Mounted:
    if mount.kind == "volume":
        if not mount.source:
            mount = mount._replace(source=f"anon-{uuid.uuid4()}")
        print(f"Warning: volume '{mount.source}' is created when it is missing", file=sys.stderr)
        return mount
    if mount.kind == "tmpfs":
        return mount
    source = os.path.abspath(mount.source)
    if not os.path.exists(source):
        raise AppleError("invalidArgument", f"path '{mount.source}' does not exist")
    if mount.only_directories and not os.path.isdir(source):
        raise AppleError("invalidArgument", f"path '{mount.source}' is not a directory")
    return mount._replace(source=source)


def _network(world: World, parsed: Parsed) -> str:
    """Asked of the service, unless there is to be none: which may take too long for it."""
    networks = [values.network(text) for text in parsed.every("--network")] or ["default"]
    if networks == ["none"]:
        return "none"
    if world.spend("network_list_timeout"):
        late = AppleError("timeout", "XPC timeout for request to com.apple.container.apiserver/networkList")
        raise AppleError("internalError", "failed to list networks", late)
    for network in networks:
        if network != "default":
            raise AppleError("notFound", f"network {network} not found")
    if len(networks) > 1:
        raise NotPlayed("several networks")
    return networks[0]
