"""The forms of values: what `container` reads out of a word, and what it says when it cannot."""

from __future__ import annotations

import ipaddress
import re
import signal as signals
from collections.abc import Callable
from typing import NamedTuple

from .errors import AppleError

MIB = 1 << 20
MINIMUM_MEMORY = 200 * MIB
MOST_PUBLISHED = 64
_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_CAPABILITIES = frozenset((
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN", "DAC_OVERRIDE",
    "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE",
    "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
    "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE",
    "SYS_TIME", "SYS_TTY_CONFIG", "SYSLOG", "WAKE_ALARM", "ALL",
))  # fmt: skip
_ULIMITS = frozenset((
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
))  # fmt: skip
# Up to 0.12.3 a signal's number is the Mac's.
_MAC_SIGNALS = {7: "EMT", 10: "BUS", 12: "SYS", 16: "URG", 17: "STOP", 18: "TSTP", 19: "CONT", 20: "CHLD", 23: "IO", 30: "USR1", 31: "USR2"}  # fmt: skip

Version = tuple[int, ...]


def _invalid(message: str) -> AppleError:
    return AppleError("invalidArgument", message)


def _is_int(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", text) is not None


def _is_uint32(text: str) -> bool:
    return re.fullmatch(r"[0-9]+", text) is not None and int(text) < 1 << 32


def _is_double(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


TYPED: dict[str, Callable[[str], bool]] = {"int": _is_int, "uint32": _is_uint32, "double": _is_double}


class Published(NamedTuple):
    host: str
    host_port: int
    container_port: int
    proto: str
    size: int

    def overlaps(self, other: Published) -> bool:
        """By port and protocol: the host's address does not count."""
        first, second = sorted((self, other), key=lambda published: published.host_port)
        return self.proto == other.proto and second.host_port < first.host_port + first.size


def publish(text: str) -> Published:
    match = re.fullmatch(
        r"(?:\[(?P<v6>[^\]]*)\]:|(?P<v4>[^:\[\]]*):)?(?P<host>[0-9-]+):(?P<inner>[0-9-]+)(?:/(?P<proto>.+))?", text
    )
    if match is None:
        raise _invalid(f"invalid publish value: {text}")
    proto = (match["proto"] or "tcp").lower()
    if proto not in ("tcp", "udp"):
        raise _invalid(f"invalid publish protocol: {proto}")
    host = "0.0.0.0"
    if match["v4"] is not None:
        host = _address(match["v4"], 4)
    elif match["v6"] is not None:
        host = _address(match["v6"], 6)
    outer, inner = _range(match["host"], "host"), _range(match["inner"], "container")
    if len(outer) != len(inner):
        raise _invalid(f"publish host and container port counts are not equal: {text}")
    return Published(host, outer[0], inner[0], proto, len(outer))


def _address(text: str, family: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != family:
        raise _invalid(f"invalid publish IPv{family} address: {text}")
    return text


def _range(text: str, side: str) -> range:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if match is None:
        raise _invalid(f"invalid publish {side} port: {text}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 < first <= last < 1 << 16:
        raise _invalid(f"invalid publish {side} port range: {text}")
    return range(first, last + 1)


def label(text: str) -> tuple[str, str]:
    """One `=` at the very end is lost; any other in the value is an error."""
    key, _, value = text.partition("=")
    if not key or "=" in value.removesuffix("="):
        raise _invalid(f"invalid label format {text}")
    return key, value.removesuffix("=")


def memory(text: str) -> int:
    """Bytes, cut to whole MiB; a bare number is bytes, and all units are powers of 1024."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmgtp]?)(?:i?b)?", text.lower())
    if match is None:
        raise _invalid(f"invalid memory value: {text}")
    return int(float(match[1]) * 1024 ** _UNITS[match[2]]) // MIB * MIB


class Mounted(NamedTuple):
    kind: str  # virtiofs | tmpfs | volume
    source: str
    target: str
    options: tuple[str, ...]
    only_directories: bool = False


def volume(text: str) -> Mounted:
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _invalid(f"invalid volume format: {text}")
    if len(parts) == 1:
        return Mounted("volume", "", _inside(text), ())
    source, target = parts[0], _inside(parts[1])
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    if "/" in source or source in (".", ".."):
        return Mounted("virtiofs", source, target, options)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", source) is None:
        raise _invalid(f"invalid volume name: {source}")
    return Mounted("volume", source, target, options)


def _inside(path: str) -> str:
    if not path.startswith("/"):
        raise _invalid(f"invalid destination path, it must be absolute: {path}")
    return path


def mount(text: str) -> Mounted:
    """A comma ends a value and `=` its name, wherever they are: neither can be part of a path."""
    kind, source, target, options = "virtiofs", "", "", []
    for item in text.split(","):
        key, *rest = item.split("=")
        if len(rest) > 1:
            raise _invalid(f"invalid mount format: {item}")
        value = rest[0] if rest else ""
        if key == "type":
            kind = {"bind": "virtiofs"}.get(value, value)
            if kind not in ("virtiofs", "tmpfs", "volume"):
                raise _invalid(f"unsupported mount type: {value}")
        elif key in ("source", "src"):
            source = value
        elif key in ("target", "dst", "destination"):
            target = value
        elif key in ("readonly", "ro"):  # whatever its value is
            options.append("ro")
        elif key in ("size", "mode"):
            options.append(item)
        else:
            raise _invalid(f"unknown mount option: {item}")
    if kind == "virtiofs" and not source:
        raise _invalid(f"mount has no source: {text}")
    return Mounted(kind, source, _inside(target), tuple(options), only_directories=True)


def tmpfs(text: str) -> Mounted:
    if ":" in text:
        raise _invalid(f"invalid tmpfs path, options are not supported: {text}")
    return Mounted("tmpfs", "tmpfs", _inside(text), ())


def network(text: str) -> str:
    name, *properties = text.split(",")
    if not name or (name == "none" and properties):
        raise _invalid(f"invalid network: {text}")
    for item in properties:
        key, _, value = item.partition("=")
        if key == "mac":
            good = re.fullmatch(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", value) is not None
        elif key == "mtu":
            good = value.isdigit() and 1280 <= int(value) <= 65535
        else:
            good = False
        if not good:
            raise _invalid(f"invalid network property: {item}")
    return name


def ulimit(text: str) -> tuple[str, int, int]:
    kind, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    if kind not in _ULIMITS:
        raise _invalid(f"unsupported ulimit type: {kind}")
    bounds = [-1 if bound in ("unlimited", "-1") else bound for bound in (soft, hard or soft)]
    if not equals or any(isinstance(bound, str) and not bound.isdigit() for bound in bounds):
        raise _invalid(f"invalid ulimit format: {text}")
    return kind, int(bounds[0]), int(bounds[1])


def capability(text: str) -> str:
    name = text.upper().removeprefix("CAP_")
    if name not in _CAPABILITIES:
        raise _invalid(f"invalid capability: {text}")
    return name if name == "ALL" else f"CAP_{name}"


def name(text: str, version: Version) -> str:
    """A container's, which is its id and its host name too."""
    if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", text) is None or (version >= (1, 2) and len(text) > 63):
        bad = f"container ID {text} is not a valid container ID" if version >= (1, 2) else f"invalid entity name {text}"
        raise _invalid(bad)
    return text


def signal(text: str, version: Version) -> str:
    """Its name, without SIG."""
    if text.isdigit():
        known = {item.value: item.name.removeprefix("SIG") for item in signals.Signals}
        found = (_MAC_SIGNALS if version < (1, 0) else {}).get(int(text)) or known.get(int(text))
    else:
        bare = text.upper().removeprefix("SIG")
        found = bare if f"SIG{bare}" in signals.Signals.__members__ else None
    if found is None:
        raise _invalid(f"invalid signal: {text}")
    return found


def _check_socket(text: str) -> None:
    host, colon, inner = text.partition(":")
    if not host or not colon or ":" in inner or not inner.startswith("/"):
        raise _invalid(f"invalid publish-socket format: {text}")


def _check_platform(text: str) -> None:
    if re.fullmatch(r"[a-z0-9]+/[a-z0-9_-]+(/[a-z0-9]+)?", text) is None:
        raise _invalid(f"invalid platform: {text}")


def _check_choice(text: str, *choices: str) -> None:
    if text not in choices:
        raise _invalid(f"unsupported value {text}")


def _check_pair(text: str) -> None:
    if "=" not in text:
        raise _invalid(f"invalid option format {text}")


def check(kind: str, text: str, version: Version) -> None:
    """The command can read this value; raises what it says if it cannot."""
    readers: dict[str, Callable[[str], object]] = {
        "publish": publish, "label": label, "memory": memory, "volume": volume, "mount": mount, "tmpfs": tmpfs,
        "network": network, "ulimit": ulimit, "capability": capability, "socket": _check_socket, "platform": _check_platform,
        "name": lambda text: name(text, version), "signal": lambda text: signal(text, version), "pair": _check_pair,
        "scheme": lambda text: _check_choice(text, "http", "https", "auto"),
        "os": lambda text: _check_choice(text, "linux"),
        "architecture": lambda text: _check_choice(text, "arm64", "amd64", "aarch64", "x86_64", "x86-64"),
    }  # fmt: skip
    if kind in readers:
        readers[kind](text)


def check_together(options: dict[str, list[str]], version: Version) -> None:
    """Values that are good each, but not beside each other."""
    published = [publish(text) for text in options.get("--publish", ())]
    if len(published) > MOST_PUBLISHED:
        raise _invalid(f"cannot exceed more than {MOST_PUBLISHED} port publish descriptors")
    if any(one.overlaps(other) for index, one in enumerate(published) for other in published[:index]):
        raise _invalid("host ports for different publish port specs may not overlap")
    kinds = [ulimit(text)[0] for text in options.get("--ulimit", ())]
    if len(set(kinds)) < len(kinds):
        raise _invalid("duplicate ulimit type")
    networks = [network(text) for text in options.get("--network", ())]
    if "none" in networks and len(networks) > 1:
        raise _invalid("no other networks may be specified along with 'none'")
    if (
        version >= (1, 0)
        and "--no-dns" in options
        and any(f"--dns{x}" in options for x in ("", "-search", "-option", "-domain"))
    ):
        raise _invalid("`--no-dns` cannot be used with other DNS options")
