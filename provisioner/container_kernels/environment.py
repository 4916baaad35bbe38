"""Which variables a kernel gets: what was asked for, and nothing else of the host's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from .spec import Spec

# They tell who the person is and how their time and language are, and nothing more.
ALWAYS = ("JPY_SESSION_NAME", "LANG", "LANGUAGE", "LC_*", "TZ")

# The container has its own, whoever asks. Tokens of Jupyter's own processes are nobody else's business.
NEVER = (
    "HOME", "PATH", "PWD", "OLDPWD", "SHELL", "SHLVL", "USER", "LOGNAME", "HOSTNAME", "TMPDIR", "_", "XDG_*",
    "VIRTUAL_ENV*", "CONDA_*", "PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "LD_*", "DYLD_*",
    "JPY_PARENT_PID", "JPY_API_TOKEN", "JUPYTER_TOKEN", "JUPYTERHUB_*", "CONTAINER_KERNELS_*",
)  # fmt: skip


def kernel_environment(
    spec: Spec,
    *,
    host: Mapping[str, str],
    asked: Mapping[str, str],
    kernelspec: Mapping[str, str],
    localtime: Path = Path("/etc/localtime"),
) -> dict[str, str]:
    """The variables of a kernel, the later ones winning: the host's that always pass, those that `env_passthrough` names,
    what the client `asked` for, what the kernelspec's `env` says, what the setting `env` says."""
    environment = {name: value for name, value in host.items() if matches(name, ALWAYS)}
    if "TZ" not in environment and (zone := time_zone(localtime)):
        environment["TZ"] = zone
    named = {
        name: value for name, value in host.items() if matches(name, spec.env_passthrough) and not matches(name, NEVER)
    }
    allowed = {name: value for name, value in asked.items() if not matches(name, NEVER)}
    return {**environment, **named, **allowed, **kernelspec, **spec.env}


def asked_for(environment: Mapping[str, str], *baselines: Mapping[str, str]) -> dict[str, str]:
    """What a caller added or changed, where it passes a whole environment that began as the host's: entries in none of the baselines."""
    return {name: value for name, value in environment.items() if all(base.get(name) != value for base in baselines)}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def time_zone(localtime: Path) -> str | None:
    """The zone's name, such as Europe/Vienna, where the host's local time is a link to it."""
    _, found, name = os.path.realpath(localtime).partition("/zoneinfo/")
    return name if found and localtime.is_symlink() else None
