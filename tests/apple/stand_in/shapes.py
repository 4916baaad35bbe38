"""What each release prints as JSON. Up to 0.12.3 dates are seconds since 2001 and a status is a word; since 1.0.0 neither is."""

from __future__ import annotations

import json
import time
from typing import Any

from . import under
from .world import Record, World

EPOCH = 978307200  # 2001-01-01
INDEX = "application/vnd.oci.image.index.v1+json"
_KEPT = ("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "StopSignal")


def printed(world: World, content: Any, *, pretty: bool = False) -> str:
    """`/` is escaped, keys are sorted since 1.0.0, and `inspect` is indented since then."""
    modern = world.release >= (1, 0)
    if modern and pretty:
        text = json.dumps(content, indent=2, sort_keys=True, separators=(",", " : "), ensure_ascii=False)
    else:
        text = json.dumps(content, sort_keys=modern, separators=(",", ":"), ensure_ascii=False)
    return text.replace("/", "\\/")


def date(world: World, seconds: float) -> Any:
    return iso(seconds) if world.release >= (1, 0) else seconds - EPOCH


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def container(world: World, record: Record) -> dict[str, Any]:
    networks = [_attachment(world, record, found) for found in record["networks"]] if _runs(record) else []
    started = {"startedDate": date(world, record["started"])} if record["started"] else {}
    configuration = _configuration(world, record)
    if world.release < (1, 0):
        return {"status": record["status"], "configuration": configuration, "networks": networks, **started}
    status = {"state": record["status"], "networks": networks, **started}
    return {"id": record["id"], "configuration": configuration, "status": status}


def _runs(record: Record) -> bool:
    return record["status"] in ("running", "stopping")


def _attachment(world: World, record: Record, found: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "network": "default",
        "hostname": record["id"],
        "ipv4Address": f"{found['address']}/{found['prefix']}",
        "ipv4Gateway": found["gateway"],
        "macAddress": found["mac"],
        "mtu": 1280,
    }
    return shown | ({"variant": "reserved"} if world.release >= (1, 1) else {})


def _configuration(world: World, record: Record) -> dict[str, Any]:
    config = record["config"]
    modern = world.release >= (1, 0)
    connected = config["network"] != "none"
    shown: dict[str, Any] = {
        "id": record["id"],
        "image": {"reference": record["image"], "descriptor": descriptor(record["digest"])},
        "mounts": [_mount(mount) for mount in config["mounts"]],
        "publishedPorts": [_port(port) for port in config["ports"]],
        "publishedSockets": [],
        "labels": config["labels"],
        "sysctls": {},
        "networks": [{"network": "default", "options": {"hostname": record["id"], "mtu": 1280}}] if connected else [],
        "dns": {"nameservers": config["dns"], "searchDomains": config["dnsSearch"], "options": config["dnsOption"]},
        "rosetta": config["architecture"] != under.HOST,
        "initProcess": _process(record),
        "platform": {"os": "linux", "architecture": config["architecture"]},
        "resources": {"cpus": config["cpus"], "memoryInBytes": config["memory"]} | ({"cpuOverhead": 1} if modern else {}),
        "runtimeHandler": "container-runtime-linux",
        "virtualization": False,
        "ssh": False,
        "readOnly": config["readOnly"],
        "useInit": config["init"],
        "capAdd": config["capAdd"],
        "capDrop": config["capDrop"],
    }  # fmt: skip
    if modern:
        shown["creationDate"] = iso(record["created"])
        for key in ("shmSize", "stopSignal"):
            if config[key]:
                shown[key] = config[key]
    return shown


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    kind: dict[str, Any] = {mount["kind"]: {}}
    if mount["kind"] == "volume":
        kind = {"volume": {"name": mount["source"], "format": "ext4", "cache": {"on": {}}, "sync": {"fsync": {}}}}
    return {"type": kind, "source": mount["source"], "destination": mount["target"], "options": mount["options"]}


def _port(port: dict[str, Any]) -> dict[str, Any]:
    return {
        "hostAddress": port["host"],
        "hostPort": port["host_port"],
        "containerPort": port["container_port"],
        "proto": port["proto"],
        "count": port["size"],
    }


def _process(record: Record) -> dict[str, Any]:
    config = record["config"]
    user: dict[str, Any] = {"id": {"uid": 0, "gid": 0}}
    if config["user"]:
        user = {"raw": {"userString": config["user"]}}
    pairs = dict(item.split("=", 1) for item in (*config["image_env"], *config["env"]))
    command = record["shown_command"]
    return {
        "executable": command[0],
        "arguments": command[1:],
        "environment": [f"{key}={value}" for key, value in pairs.items()],
        "workingDirectory": config["workdir"] or "/",
        "terminal": config["terminal"],
        "user": user,
        "supplementalGroups": [int(group) for group in config["groups"]],
        "rlimits": [_rlimit(text) for text in config["ulimits"]],
    }


def _rlimit(text: str) -> dict[str, Any]:
    from .values import ulimit

    kind, soft, hard = ulimit(text)
    limits = {"soft": soft, "hard": hard}
    return {"limit": f"RLIMIT_{kind.upper()}"} | {key: (1 << 64) - 1 if v < 0 else v for key, v in limits.items()}


def descriptor(digest: str) -> dict[str, Any]:
    return {"mediaType": INDEX, "digest": digest, "size": 10303}


def image(world: World, found: dict[str, Any], *, listed: bool) -> dict[str, Any]:
    """One image, of what the engine says of it."""
    digest = "sha256:" + found["Id"].removeprefix("sha256:")
    if listed and world.release < (1, 0):
        size = f"{found['Size'] / 1e6:.1f} MB"
        return {"reference": found["reference"], "fullSize": size, "descriptor": descriptor(digest)}
    architecture = under.architecture(world, found["reference"])
    platform = {"os": "linux", "architecture": architecture} | ({"variant": "v8"} if architecture == "arm64" else {})
    config = {key: value for key, value in (found["Config"] or {}).items() if key in _KEPT and value}
    layers = {"type": "layers", "diff_ids": (found.get("RootFS") or {}).get("Layers") or []}
    whole = {**platform, "created": found["Created"], "config": config, "rootfs": layers, "history": []}
    variant = {"platform": platform, "size": found["Size"], "config": whole}
    if world.release < (1, 0):
        return {"name": found["reference"], "index": descriptor(digest), "variants": [variant]}
    created = (found["Created"] or "1970-01-01T00:00:00")[:19] + "Z"
    configuration = {"name": found["reference"], "creationDate": created, "descriptor": descriptor(digest)}
    return {
        "id": digest.removeprefix("sha256:"),
        "configuration": configuration,
        "variants": [variant | {"digest": digest}],
    }


def network(world: World, subnet: str, gateway: str) -> dict[str, Any]:
    """The builtin one."""
    created = date(world, time.time())
    labels = {"com.apple.container.resource.role": "builtin"}
    status = {"ipv4Subnet": subnet, "ipv4Gateway": gateway}
    if world.release < (1, 0):
        plugin: dict[str, Any] = {"pluginInfo": {"plugin": "container-network-vmnet"}}
        config = {"id": "default", "creationDate": created, "mode": "nat", "labels": labels, **plugin}
        return {"id": "default", "state": "running", "config": config, "status": status}
    plugin = {"plugin": "container-network-vmnet", "options": {}}
    configuration = {"name": "default", "creationDate": created, "mode": "nat", "labels": labels, **plugin}
    return {"id": "default", "configuration": configuration, "status": status}
