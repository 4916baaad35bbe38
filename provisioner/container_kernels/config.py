"""The edge to Jupyter's configuration and to the process's environment: the only reader of `os.environ`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from traitlets import Any as AnyTrait
from traitlets.config import Configurable

from .spec import FIELDS, Spec, mistyped, parse

_log = logging.getLogger(__name__)


class SettingTraits(Configurable):
    """`c.ContainerProvisioner.memory = "4g"` and the like: a trait for each setting of the spec, which checks the value; None is "not set"."""

    locals().update(
        {
            setting.name: AnyTrait(None, allow_none=True, help=f"{setting.help} Allowed: {setting.allowed}.").tag(
                config=True
            )
            for setting in FIELDS.values()
        }
    )

    def trait_settings(self) -> dict[str, Any]:
        """What configuration has set, by the settings' names."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}


def configured(config: Any) -> dict[str, Any]:
    """What `c.ContainerProvisioner` sets in a Jupyter program's configuration, by the settings' names."""
    section = type("ContainerProvisioner", (SettingTraits,), {})
    settings: dict[str, Any] = section(config=config).trait_settings()
    return settings


def read_spec(kernel_json: Mapping[str, Any], traits: Mapping[str, Any]) -> Spec:
    """The spec for a kernel started by this process, now. A variable that looks like a setting and is none is told once."""
    for sentence in mistyped(os.environ):
        _warn(sentence)
    return parse(kernel_json, traits, os.environ)


@cache
def _warn(sentence: str) -> None:
    _log.warning("%s", sentence)


def host_environment() -> dict[str, str]:
    return dict(os.environ)


def home() -> str:
    return str(Path.home())


def umask() -> int:
    """This process's, read without setting it, which would be seen by its other threads; the usual one where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Umask":
                return int(value, 8)
    return 0o022
