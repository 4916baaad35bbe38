"""Who a kernel is, by setting and by engine."""

from __future__ import annotations

import os

import pytest

from container_kernels.engines.protocol import EngineInfo
from container_kernels.spec import Spec
from container_kernels.user import ROOT, User, choose

REMAPS = ("--userns", "host")


def info(*, keeps_owner: bool = False, user_options: tuple[str, ...] = ()) -> EngineInfo:
    return EngineInfo("docker", "1", "container", False, keeps_owner, "x86_64", 2, "", user_options)


@pytest.mark.parametrize(
    ("user", "engine", "chosen"),
    [
        ("root", info(), ROOT),
        ("root", info(user_options=REMAPS), ROOT),
        ("auto", info(keeps_owner=True), ROOT),
        ("auto", info(), User("1000:100", (100, 27))),
        ("auto", info(user_options=REMAPS), User("1000:100", (100, 27), REMAPS)),
        ("5:6", info(user_options=REMAPS), User("5:6", (), REMAPS)),
        ("5:6", info(keeps_owner=True), User("5:6")),
    ],
)
def test_choose(user: str, engine: EngineInfo, chosen: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 100)
    monkeypatch.setattr(os, "getgroups", lambda: [100, 27])
    assert choose(Spec(user=user), engine) == chosen
