"""The forms of all that is said to `container`: each is accepted by each release, and stands in `forms.txt`, for a reader to check by eye.

A form is a call without what differs from one to the next: `forms.of(argv)`. A new one is added by hand, or by
`STAND_IN_FORMS=add` in the environment of the tests, and then read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .stand_in.grammar import VERSIONS, refusal

FORMS = Path(__file__).with_name("forms.txt")
ADD = "STAND_IN_FORMS"

# What a value is written as, by its option; the first pattern that fits.
_VALUES: dict[str, tuple[tuple[str, str], ...]] = {
    "--name": ((r"container-kernels-[0-9a-f]{12}", "CONTAINER"), (r".*", "NAME")),
    "--label": ((r"([a-z.-]+)=.*", r"\1=…"),),
    "--env": ((r"([A-Za-z_]+)=.*", r"\1=…"),),
    "--build-arg": ((r"([A-Za-z_]+)=.*", r"\1=…"),),
    "--cpus": ((r"\d+", "N"),),
    "--memory": ((r"\d+m", "Nm"),),
    "--ulimit": ((r"nproc=\d+", "nproc=N"),),
    "--user": ((r"\d+:\d+", "UID:GID"),),
    "--publish": ((r"127\.0\.0\.1:\d+-\d+:(\d+)-(\d+)", r"127.0.0.1:A-B:\1-\2"), (r"127\.0\.0\.1:\d+:(\d+)", r"127.0.0.1:A:\1")),
    "--volume": ((r"/[^:]*:/[^:]*:ro", "/SOURCE:/TARGET:ro"), (r"/[^:]*:/[^:]*", "/SOURCE:/TARGET")),
    "--mount": ((r"type=bind,source=/[^,=]*,target=/[^,=]*", "type=bind,source=/SOURCE,target=/TARGET"),),
    "--platform": ((r"linux/(amd64|arm64)", "linux/ARCHITECTURE"),),
    "--entrypoint": ((r".*", "PROGRAM"),),
    "--tag": ((r".*", "IMAGE"),),
    "--file": ((r".*", "CONTAINERFILE"),),
    "--input": ((r".*", "ARCHIVE"),),
    "-n": ((r"\d+", "N"),),
}  # fmt: skip
_KEPT = {"--progress", "--format", "--signal", "--time", "--workdir", "--network"}  # their values say something
_WORDS = {
    "inspect": "CONTAINER", "delete": "CONTAINER", "stop": "CONTAINER", "logs": "CONTAINER", "run": "IMAGE …", "create": "IMAGE …",
    "image inspect": "IMAGE", "image pull": "IMAGE", "image tag": "IMAGE IMAGE", "build": "CONTEXT",
}  # fmt: skip


def of(argv: Sequence[str]) -> str:
    """One line: options that may come several times, one after another, stand once."""
    verb = [word for word in argv[: 2 if argv[0] in ("image", "system") else 1] if not word.startswith("-")]
    words, rest = list(verb), list(argv[len(verb) :])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in _VALUES or option in _KEPT:
            option = f"{option} {_value(option, rest.pop(0))}"
        if option not in words:
            words.append(option)
    if rest:
        words.append(_WORDS.get(" ".join(verb), " ".join(rest)))
    return " ".join(words)


def _value(option: str, text: str) -> str:
    for pattern, replacement in _VALUES.get(option, ()):
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return match.expand(replacement)
    return text


def known() -> list[str]:
    return FORMS.read_text(encoding="utf-8").splitlines() if FORMS.exists() else []


def check(calls: Iterable[Sequence[str]]) -> None:
    """Each call is accepted by each release, and its form is known."""
    calls = list(calls)
    refused = [(version, argv, why) for argv in calls for version in VERSIONS if (why := refusal(version, list(argv)))]
    assert not refused, refused
    new = {of(argv) for argv in calls} - set(known())
    if new and os.environ.get(ADD) == "add":
        FORMS.write_text("".join(f"{form}\n" for form in sorted({*known(), *new})), encoding="utf-8")
        return
    assert not new, f"forms that are not in {FORMS.name}: {sorted(new)}"
