"""The service itself, and what is not about one container."""

from __future__ import annotations

import ipaddress
import json
import sys
from typing import Any

from . import shapes, under
from .errors import AppleError, Failed
from .grammar import Parsed
from .service import COMMIT, is_up, server
from .showing import emit, only_json
from .world import World


def status(world: World, parsed: Parsed) -> int:
    """1 unless it answers. `service: "mute"` is registered, and silent."""
    only_json(parsed)
    state = {"mute": "not running"}.get(world.faults().get("service", ""), "unregistered")
    running = is_up(world)
    shown: dict[str, Any] = {
        "status": "running" if running else state,
        "appRoot": "/Users/me/Library/Application Support/com.apple.container/" if running else "",
        "installRoot": "/usr/local/" if running else "",
        "apiServerVersion": server(world) if running else "",
        "apiServerCommit": COMMIT.ljust(40, "0") if running else "",
        "apiServerBuild": "release" if running else "",
        "apiServerAppName": "container-apiserver" if running else "",
    }
    if parsed.one("--format") == "json":
        emit(world, shown)
    elif running:
        print("".join(f"{key.ljust(20)}{value}\n" for key, value in [("FIELD", "VALUE"), *shown.items()]), end="")
    else:
        print(
            f"apiserver is {'not running' if state == 'not running' else 'not running and not registered with launchd'}"
        )
    return 0 if running else 1


def start(world: World, parsed: Parsed) -> int:
    """Asks about a kernel that is missing, unless a flag answers."""
    fault = world.faults().get("service")
    out = sys.stderr if world.release >= (1, 2) else sys.stdout
    print("Launching container-apiserver...", file=out, flush=True)
    if fault == "broken":
        raise AppleError(
            "internalError", "failed to get a response from apiserver", AppleError("timeout", "XPC timeout")
        )
    if fault:
        world.mend("service")
    if world.faults().get("kernel") == "missing" and _wants_kernel(parsed):
        print("Installing kernel...", file=out)
        world.mend("kernel")
    return 0


def _wants_kernel(parsed: Parsed) -> bool:
    if parsed.flag("--enable-kernel-install"):
        return parsed.one("--enable-kernel-install") == "--enable-kernel-install"
    print(
        "Install the recommended default kernel from [https://example.invalid/kata.tar.xz]? [Y/n]: ", end="", flush=True
    )
    answer = sys.stdin.readline()
    if not answer:
        raise Failed("failed to read user input")
    return answer.strip().lower() in ("", "y", "yes")


def set_kernel(world: World, parsed: Parsed) -> int:
    if not (parsed.flag("--recommended") or parsed.flag("--binary") or parsed.flag("--tar")):
        raise AppleError("invalidArgument", "missing argument '--binary'")
    world.mend("kernel")
    return 0


def version(world: World, parsed: Parsed) -> int:
    """The service's part is there only if it answers; its version is a whole line."""
    only_json(parsed)
    shown = [
        {"version": world.version, "buildType": "release", "commit": COMMIT.ljust(40, "0"), "appName": "container"}
    ]
    if is_up(world):
        shown.append(shown[0] | {"version": server(world), "appName": "container-apiserver"})
    if parsed.one("--format") == "json":
        return emit(world, shown)
    for part in shown:
        print(f"{part['appName'].ljust(24)}{part['version'].ljust(80)}{part['buildType']}  {part['commit']}")
    return 0


def networks(world: World, parsed: Parsed) -> int:
    only_json(parsed)
    if world.spend("network_list_timeout"):
        raise AppleError("timeout", "XPC timeout for request to com.apple.container.apiserver/networkList")
    if parsed.flag("--quiet"):
        print("default")
        return 0
    if parsed.one("--format") == "json":
        return emit(world, [_network(world)])
    subnet, _ = _range(world)
    print(f"NETWORK  SUBNET\ndefault  {subnet}")
    return 0


def inspect_network(world: World, parsed: Parsed) -> int:
    for name in parsed.words:
        if name != "default" and world.release >= (1, 0):
            raise AppleError("notFound", f"network not found: {name}")
    return emit(world, [_network(world)] if "default" in parsed.words else [], pretty=True)


def _network(world: World) -> dict[str, Any]:
    return shapes.network(world, *_range(world))


def _range(world: World) -> tuple[str, str]:
    """The engine's own network, which the containers' addresses are really of."""
    name = {"docker": "bridge", "podman": "podman"}[world.engine]
    (found,) = json.loads(under.must(world, "network", "inspect", name))
    known = (found.get("subnets") or (found.get("IPAM") or {}).get("Config") or [{}])[0]
    subnet = str(known.get("Subnet") or known["subnet"])
    gateway = known.get("Gateway") or known.get("gateway") or ipaddress.ip_network(subnet)[1]
    return subnet, str(gateway)
