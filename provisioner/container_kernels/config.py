"""The edge to Jupyter's configuration and to the process's environment: the only reader of `os.environ`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitlets import Any as AnyTrait
from traitlets.config import Configurable

from .spec import FIELDS, Spec, parse


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


def read_spec(kernel_json: Mapping[str, Any], traits: Mapping[str, Any]) -> Spec:
    """The spec for a kernel started by this process, now."""
    return parse(kernel_json, traits, os.environ)


def host_environment() -> dict[str, str]:
    return dict(os.environ)


def home() -> str:
    return str(Path.home())
