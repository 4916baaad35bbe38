"""Who a kernel is in its container, so that the files it writes are the person's own on the host."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .engines.protocol import EngineInfo
from .spec import Spec


@dataclass(frozen=True)
class User:
    """`uid_gid` as engines write it, further groups, and the engine's arguments without which it would be somebody else."""

    uid_gid: str
    groups: tuple[int, ...] = ()
    engine_args: tuple[str, ...] = ()


ROOT = User("0:0")


def choose(spec: Spec, info: EngineInfo) -> User:
    """For `auto`, this process's user and groups, or root of an engine whose root is the person."""
    if spec.user == "root" or (spec.user == "auto" and info.keeps_owner):
        return ROOT
    if spec.user == "auto":
        return User(f"{os.getuid()}:{os.getgid()}", tuple(os.getgroups()), info.user_options)
    return User(spec.user, engine_args=info.user_options)
