"""Which words each release accepts. `grammar.json` has the options and commands; the values' forms are in `values`.

In the JSON, an option without `value` is a flag, and `"name >=1.0.0"` or `"name <1.0.0"` says in which releases a command has it. Words
are a command's positional arguments: `[x]` may be missing, `x...` may be many, and `verbatim` ones are the container's, whatever they are.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from . import values
from .errors import AppleError, Failed, Usage

VERSIONS = ("0.12.3", "1.0.0", "1.1.0", "1.2.2")
GROUPS = {"i": "image", "n": "network", "v": "volume", "s": "system", "r": "registry", "m": "machine"}


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


class Option(NamedTuple):
    names: tuple[str, ...]
    value: str | None  # what kind; None is a flag
    repeat: bool

    @property
    def key(self) -> str:
        return next((name for name in self.names if name.startswith("--")), self.names[0])

    @property
    def shown(self) -> str:
        return f"{self.key} <{self.key.lstrip('-')}>"


class Command(NamedTuple):
    path: str
    options: dict[str, Option]  # by each spelling
    words: tuple[str, ...]

    @property
    def verbatim(self) -> bool:
        return any(word.endswith(" verbatim") for word in self.words)


class Parsed(NamedTuple):
    """A command line that the parser lets through."""

    command: str
    options: dict[str, list[str]]  # by an option's first long name; a flag has the name that was used
    words: list[str]

    def flag(self, name: str) -> bool:
        return name in self.options

    def every(self, name: str) -> list[str]:
        return self.options.get(name, [])

    def one(self, name: str, default: str = "") -> str:
        return self.options.get(name, [default])[-1]


def _load() -> dict[str, Any]:
    with open(os.path.join(os.path.dirname(__file__), "grammar.json"), encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


_GRAMMAR = _load()


def _holds(condition: str, version: str) -> bool:
    if not condition:
        return True
    if condition.startswith(">="):
        return number(version) >= number(condition[2:])
    return number(version) < number(condition[1:])


def _exists(entry: dict[str, Any], version: str) -> bool:
    return number(entry.get("since", "0")) <= number(version) < number(entry.get("until", "99"))


def command(version: str, path: str) -> Command | None:
    entry = _GRAMMAR["commands"].get(path)
    if entry is None or not _exists(entry, version):
        return None
    options: dict[str, Option] = {}
    for item in entry["options"]:
        name, _, condition = item.partition(" ")
        if _holds(condition, version):
            stated = _GRAMMAR["options"][name]
            option = Option(tuple(stated["names"]), stated.get("value"), stated.get("repeat", False))
            options.update(dict.fromkeys(option.names, option))
    return Command(path, options, tuple(entry.get("words", ())))


def _resolve(version: str, argv: list[str]) -> tuple[Command, list[str]]:
    """The command that the first words name, and the others."""
    path, rest = "", list(argv)
    found: Command | None = None
    while rest and not rest[0].startswith("-"):
        word = GROUPS.get(rest[0], rest[0]) if not path else rest[0]
        deeper = _named(version, path, word)
        if deeper is None:
            break
        found, path, rest = deeper, deeper.path, rest[1:]
    if found is None:
        word = argv[0] if argv else ""
        if word.startswith("-"):
            raise Usage(f"Unknown option '{word}'", "")
        raise Failed(f"Plugin 'container-{word}' not found.")
    if not found.words and _is_group(path) and rest and not rest[0].startswith("-"):
        raise Usage(f"Unexpected argument '{rest[0]}'", path)
    return found, rest


def _is_group(path: str) -> bool:
    return any(other.startswith(f"{path} ") for other in _GRAMMAR["commands"])


def _named(version: str, parent: str, word: str) -> Command | None:
    for path, entry in _GRAMMAR["commands"].items():
        above, _, last = path.rpartition(" ")
        if above == parent and (
            word == last or (word in entry.get("aliases", ()) and not (_is_group(path) and not parent))
        ):
            return command(version, path)
    return None


def parse(version: str, argv: list[str]) -> Parsed:
    """What is asked for; raises what the release would say of anything that it does not take."""
    found, rest = _resolve(version, argv)
    options: dict[str, list[str]] = {}
    words: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--" and not found.verbatim:
            words += rest
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            if found.verbatim and len(words) == 1:
                words += rest
                break
        else:
            _option(found, word, rest, options)
    if "--help" not in options:
        _count(found, words)
        for name, given in options.items():
            option = found.options[name]
            for value in given if option.value else ():
                _check_type(found, option, value)
    return Parsed(found.path, options, words)


def _option(found: Command, word: str, rest: list[str], options: dict[str, list[str]]) -> None:
    if word in ("-h", "--help"):
        options["--help"] = [word]
        return
    if not word.startswith("--") and len(word) > 2 and word not in found.options:
        _flags(found, word, options)
        return
    name, equals, value = word.partition("=")
    option = found.options.get(name)
    # A short name takes its value from the next word only.
    if option is None or (equals and not name.startswith("--")):
        raise Usage(f"Unknown option '{name}'", found.path)
    if option.value is None:
        if equals:
            raise Usage(f"The option '{name}' does not take any value, but '{value}' was specified.", found.path)
        options.setdefault(option.key, []).append(name)
        return
    if not equals:
        if not rest or (rest[0].startswith("-") and rest[0] != "-"):
            raise Usage(f"Missing value for '{option.shown}'", found.path)
        value = rest.pop(0)
    options.setdefault(option.key, []).append(value)


def _flags(found: Command, word: str, options: dict[str, list[str]]) -> None:
    """`-it`: flags only. A value joined to its short name is no form that the parser knows."""
    for letter in word[1:]:
        option = found.options.get(f"-{letter}")
        if option is None or option.value is not None:
            raise Usage(f"Unknown option '{word}'", found.path)
        options.setdefault(option.key, []).append(f"-{letter}")


def _count(found: Command, words: list[str]) -> None:
    names = [word.partition(" ")[0] for word in found.words]
    needed = [name.removesuffix("...") for name in names if not name.startswith("[")]
    if len(words) < len(needed):
        raise Usage(f"Missing expected argument '<{needed[len(words)]}>'", found.path)
    if not any("..." in name for name in names) and len(words) > len(names):
        extra = words[len(names) :]
        listed = ", ".join(f"'{word}'" for word in extra)
        many = f"{len(extra)} unexpected arguments: {listed}" if len(extra) > 1 else f"Unexpected argument {listed}"
        raise Usage(many, found.path)


def _check_type(found: Command, option: Option, value: str) -> None:
    """What the parser itself converts; other values are read by the command, which fails with 1."""
    kind = option.value or ""
    if kind.startswith("one of "):
        choices = kind.removeprefix("one of ").split("|")
        if value not in choices:
            offered = ", ".join(f"'{choice}'" for choice in choices[:-1]) + f" and '{choices[-1]}'"
            raise Usage(
                f"The value '{value}' is invalid for '{option.shown}'. Please provide one of {offered}.", found.path
            )
    elif kind in values.TYPED and not values.TYPED[kind](value):
        raise Usage(f"The value '{value}' is invalid for '{option.shown}'", found.path)


def check_values(version: str, parsed: Parsed) -> None:
    """Every value is one that the command can read, as far as that can be told without looking at the machine."""
    found = command(version, parsed.command)
    assert found is not None
    for name, given in parsed.options.items():
        option = found.options.get(name)
        if option and option.value:
            for value in given:
                values.check(option.value, value, number(version))
    values.check_together(parsed.options, number(version))
    if parsed.command in ("stop", "kill", "delete", "image delete") and not (parsed.words or parsed.flag("--all")):
        what = "images" if parsed.command.startswith("image") else "containers"
        raise AppleError("invalidArgument", f"no {what} specified and --all not supplied")
    lean = parsed.flag("--quiet") or parsed.flag("--verbose")
    if lean and parsed.command == "image list" and parsed.one("--format") == "json" and number(version) < (1, 0):
        raise AppleError("invalidArgument", "cannot use flag --quiet or --verbose with --format json")


def too_little(version: str, parsed: Parsed) -> AppleError | None:
    """The service, not the command, minds that a machine has memory enough: what is asked first is whether the image is there."""
    memory = values.memory(parsed.one("--memory")) if parsed.flag("--memory") else values.MINIMUM_MEMORY
    if parsed.command in ("run", "create") and memory < values.MINIMUM_MEMORY:
        return AppleError("invalidArgument", f"minimum memory amount allowed is 200 MiB (got {memory} bytes)")
    return None


def refusal(version: str, argv: list[str]) -> str | None:
    """Why this release would not take these words; None if it would."""
    if argv == ["--version"]:
        return None
    try:
        parsed = parse(version, argv)
        check_values(version, parsed)
        if error := too_little(version, parsed):
            raise error
    except Failed as error:
        return error.text
    return None
