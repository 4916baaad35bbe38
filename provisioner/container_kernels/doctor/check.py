"""A check as a value: for the command line and any other face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ContainerKernelError, ServiceStopped

Verdict = Literal["ok", "skipped", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. With `failed`, no kernel would start; a `warning` stands in nobody's way yet, and what is `skipped`
    never will.

    `detail` is what an engine or a log said; `facts` are for programs.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, verdict: Verdict, error: ContainerKernelError, *, engine: str = "") -> Check:
        """`engine` is the one that was asked: a service of it that is stopped can be started."""
        remedy = error.hint
        if isinstance(error, ServiceStopped):
            remedy = f"{remedy} `jupyter container-kernels doctor --fix --engine {engine}` does it as well.".lstrip()
        return cls(name, verdict, error.message.removeprefix(f"{name}: "), remedy, error.detail)


def would_start(checks: Iterable[Check]) -> bool:
    return all(check.verdict != "failed" for check in checks)
