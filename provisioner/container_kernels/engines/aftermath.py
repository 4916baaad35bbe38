"""What is left to do after a command of an engine that did not go well: tell why, and clear away."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping

from ..errors import ContainerKernelError

LATE = (0.0, 0.5, 2.0)  # before each look for a container that a command which was ended has made, or still makes

# What an engine says, and what it means: the error, its message and its hint, with words to be filled in.
Known = tuple[re.Pattern[str], type[ContainerKernelError], str, str]


def told(known: Iterable[Known], said: str, words: Mapping[str, str]) -> ContainerKernelError | None:
    """The first of the known errors that fits, in words for a person; None where none does."""
    for pattern, error, message, hint in known:
        if pattern.search(said):
            return error(message.format_map(words), hint=hint.format_map(words), detail=said)
    return None


async def clear_away(name: str, removed: Callable[[str], Awaitable[bool]]) -> None:
    """Gone is the container that a `run` which was ended has made, or still makes: a daemon goes on with what it was asked for.

    `removed` removes it, and says whether there was one.
    """
    for pause in LATE:
        await asyncio.sleep(pause)
        with contextlib.suppress(ContainerKernelError):  # that `run` was ended is the one to tell
            if await removed(name):
                return
