"""What a report is cleared of: who and where the person is, what is secret, and what is nobody's business.

Rather too much is taken away than too little: what is known to be harmless stays, such as the directories that every machine has.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import json
import os
import platform
import pwd
import re
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import home
from ..engines.protocol import LABEL

SECRET, VALUE, PATH, ADDRESS, HOST, USER = "<secret>", "<value>", "<path>", "<address>", "<host>", "<user>"

# The first parts of paths that tell nothing of a person.
_ROOTS = frozenset(
    {
        "", "Applications", "Library", "System", "bin", "dev", "etc", "lib", "lib64", "nix", "opt", "private", "proc", "run", "sbin",
        "sys", "tmp", "usr", "var",
    }
)  # fmt: skip
_KNOWN_HOSTS = ("docker.com", "github.com", "pypi.org", "localhost")
_GENERIC = frozenset({"root", "user", "admin", "localhost", "localhost.localdomain", "local"})

_SENSITIVE = r"[\w.-]*(?:token|secret|passw(?:or)?d|credential|authorization)[\w.-]*|[\w.-]*key"
_SENSITIVE_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
_SENSITIVE_PAIR = re.compile(
    rf"""(?<![\w.-])({_SENSITIVE})(\\?["']?\s*[:=]\s*\\?["']?)(?:(?:bearer|basic)\s+)?([^\s"'\\,;}}]+)""", re.IGNORECASE
)
_VARIABLE = re.compile(r"(?<![\w-])([A-Z][A-Z0-9]*_?[A-Z0-9_]+)=(?!=)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']+)")
_RANDOM = re.compile(
    r"(?:[A-Z2-7]{4}:){11}[A-Z2-7]{4}|(?<![\w/-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*[0-9])[A-Za-z0-9_-]{24,}={0,2}(?![\w/])"
)
_URL = re.compile(r"([A-Za-z][\w+.-]*://)(?:[^/\s@\"']*@)?(\[[^\]\s]*\]|[^/\s:\"'?#]+)([^\s\"'?]*)(\?[^\s\"']*)?")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d\.)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_QUOTED_PATH = re.compile(r"(?<=['\"`])/(?!/)[^'\"`\n]*(?=['\"`])")
_BARE_PATH = re.compile(r"(?<![\w.~/>-])/(?!/)[^\s:,;'\"`()\[\]{}<>=\\]+")

_PAIRS = frozenset({"--env", "-e", "--label", "-l", "--build-arg", "--annotation"})  # options with NAME=VALUE


class Private:
    """What is private here. `directories` are those of the person's work, wherever they are."""

    def __init__(
        self, *, home: str, users: Iterable[str], hosts: Iterable[str], directories: Iterable[str] = ()
    ) -> None:
        known = {_package(): "<container_kernels>", **dict.fromkeys(_real(directories), "<directory>")}
        known |= {**dict.fromkeys(_real([sys.prefix]), "<python>"), **dict.fromkeys(_real([home]), "~")}
        # The longest first: one may be in another.
        self._known = sorted(known.items(), key=lambda each: -len(each[0]))
        names = {**dict.fromkeys(hosts, HOST), **dict.fromkeys(users, USER)}
        named = {name: what for name, what in names.items() if len(name) > 1 and name.lower() not in _GENERIC}
        self._names = [
            (re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE), what)
            for name, what in sorted(named.items(), key=lambda each: -len(each[0]))
        ]

    @classmethod
    def of_this_person(cls, directories: Iterable[str] = ()) -> Private:
        hosts = {platform.node(), socket.gethostname()}
        return cls(
            home=home(),
            users=_user(),
            hosts=hosts | {name.partition(".")[0] for name in hosts},
            directories=directories,
        )

    def text(self, text: str) -> str:
        """Any text, cleared."""
        return self._cleared(self._placed(text))

    def _placed(self, text: str) -> str:
        for path, name in self._known:
            text = re.sub(rf"{re.escape(path)}(?![\w-])", name, text)
        return text

    def _cleared(self, text: str) -> str:
        text = _SENSITIVE_PAIR.sub(rf"\1\2{SECRET}", text)
        text = _VARIABLE.sub(rf"\1={VALUE}", text)
        text = _URL.sub(_public_url, text)
        text = _EMAIL.sub("<email>", text)
        text = _RANDOM.sub(SECRET, text)
        text = _QUOTED_PATH.sub(_public_path, text)
        text = _BARE_PATH.sub(_public_path, text)
        for pattern in (_IPV4, _IPV6):
            text = pattern.sub(_public_address, text)
        for name_pattern, what in self._names:
            text = name_pattern.sub(what, text)
        return text

    def words(self, argv: Sequence[str]) -> list[str]:
        """A command, without the values of variables, and of labels that are not ours."""
        cleared: list[str] = []
        for index, word in enumerate(argv):
            option, equals, value = word.partition("=") if word.startswith("--") else ("", "", "")
            if index and argv[index - 1] in _PAIRS:
                cleared.append(self._pair(word))
            elif equals and option in _PAIRS:
                cleared.append(f"{option}={self._pair(value)}")
            else:
                cleared.append(self._whole(word))
        return cleared

    def _pair(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        if not equals:
            return self.text(pair)
        return f"{self.text(name)}={self.text(value) if _is_ours(name) else VALUE}"

    def answer(self, text: str) -> str:
        """What a command has printed; of JSON, also what only its place tells to be private."""
        try:
            return json.dumps(self._value(json.loads(text)), indent=1, ensure_ascii=False)
        except ValueError:
            return self.text(text)

    def _value(self, value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            if key.lower() in ("labels", "annotations"):
                return {name: self._whole(str(each)) if _is_ours(name) else VALUE for name, each in value.items()}
            if key.lower() in ("env", "environment"):
                return dict.fromkeys(map(self.text, value), VALUE)
            return {self.text(name): self._value(each, name) for name, each in value.items()}
        if isinstance(value, list):
            if key.lower() in ("env", "environment", "labels"):
                return [self._pair(str(each)) for each in value]
            return ["<a container that is not ours>" if _is_foreign(each) else self._value(each) for each in value]
        if isinstance(value, str):
            return SECRET if value and _SENSITIVE_NAME.fullmatch(key) else self._whole(value)
        return value

    def _whole(self, text: str) -> str:
        """A text which may be a path as a whole, whatever is in it; or two, as in the value of `--volume`."""
        text = self._placed(text)
        if re.match(r"/(?!/)[^\n]*$", text):
            text = ":".join(_public_path(part) if part.startswith("/") else part for part in text.split(":"))
        return self._cleared(text)


def _real(paths: Iterable[str]) -> set[str]:
    """As they are written, and where they lead; without those that would fit everything."""
    some = {each for path in paths for each in (path.rstrip("/"), os.path.realpath(path))}
    return {each for each in some if each.count("/") > 1 or each in ("/root",)}


def _package() -> str:
    return str(Path(__file__).parent.parent)


def _user() -> set[str]:
    """How the person is called here; the full name as well."""
    names = set()
    with contextlib.suppress(KeyError, OSError):
        names.add(getpass.getuser())
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(os.getuid())
        names |= {entry.pw_name, entry.pw_gecos.partition(",")[0]}
    return names


def _is_ours(label: str) -> bool:
    return label == LABEL or label.startswith(f"{LABEL}.")


def _is_foreign(item: object) -> bool:
    """Whether this is what an engine says of a container that has labels, and none of ours."""
    if not isinstance(item, Mapping) or not ("status" in item or "State" in item):
        return False
    configuration = item.get("configuration") or item.get("Config") or {}
    labels = configuration.get("labels", configuration.get("Labels")) if isinstance(configuration, Mapping) else None
    return not any(map(_is_ours, labels or ()))


def _public_url(match: re.Match[str]) -> str:
    scheme, host, rest, query = match.groups(default="")
    is_known = any(host == known or host.endswith(f".{known}") for known in _KNOWN_HOSTS) or _is_near(host.strip("[]"))
    return f"{scheme}{host if is_known else HOST}{rest}{'?' + VALUE if query else ''}"


def _public_address(match: re.Match[str]) -> str:
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return match[0] if _is_near(match[0]) else ADDRESS


def _is_near(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_private
    except ValueError:
        return False


def _public_path(match: re.Match[str] | str) -> str:
    path = match if isinstance(match, str) else match[0]
    return path if path.split("/", 2)[1] in _ROOTS else PATH
