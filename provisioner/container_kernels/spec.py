"""What a kernel container is: settings from three places, parsed and checked once, then immutable.

`FIELDS` is the one list of settings. Each reads a value from kernel.json or traitlets (JSON-like) or from an environment variable (text).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from .engines.protocol import Mount
from .errors import SpecError
from .quantities import size

ENV_PREFIX = "CONTAINER_KERNELS_"
NO_SETTINGS = {
    "CONTAINER_KERNELS_GUEST",
    "CONTAINER_KERNELS_TEST_ENGINES",
}  # of the same prefix: the guest's, and the tests'

WorkdirPolicy = Literal["auto", "root", "notebook", "none"]


@dataclass(frozen=True)
class Spec:
    """The checked settings of one kernel. Memory is in bytes, startup_timeout and pool_ttl in seconds."""

    engine: str | None = None
    require_vm: bool = False
    autostart: bool | Literal["auto"] = "auto"
    image: str = "container-kernels/python"
    argv: tuple[str, ...] = ()
    cpus: float = 2.0
    memory: int = 2 << 30
    pids: int = 512
    workdir: WorkdirPolicy = "auto"
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_passthrough: tuple[str, ...] = ()
    network: Literal["full", "none"] = "full"
    preload: tuple[str, ...] = ()
    user: str = "auto"
    startup_timeout: float = 60.0
    restart: Literal["keep", "fresh"] = "keep"
    engine_args: tuple[str, ...] = ()
    pool_size: int = 0
    pool_ttl: float = 1800.0
    pool_memory_budget: int | None = None


class _Refused(ValueError):
    """A value that a field does not take; the text names what it does take."""


@dataclass(frozen=True)
class Field:
    """One setting: `read` turns a value into its checked form, and `allowed` says in words what it takes."""

    name: str
    allowed: str
    help: str
    read: Callable[[Any], Any]
    from_text: Callable[[str], Any] = str

    @property
    def default(self) -> Any:
        return getattr(_DEFAULTS, self.name)


def parse(kernel_json: Mapping[str, Any], traits: Mapping[str, Any], environ: Mapping[str, str]) -> Spec:
    """The spec from kernel.json's `config`, overridden by traitlets config, overridden by `CONTAINER_KERNELS_*` variables.

    A trait that is None is not set. Raises SpecError for the first key or value that is not allowed.
    """
    values: dict[str, Any] = {}
    for name, value in kernel_json.items():
        values[name] = _checked(_field(name), value, f"kernel.json: {name}")
    for name, value in traits.items():
        if value is not None:
            values[name] = _checked(_field(name), value, f"c.ContainerProvisioner.{name}")
    for name, setting in FIELDS.items():
        variable = ENV_PREFIX + name.upper()
        if text := environ.get(variable, ""):
            values[name] = _checked(setting, _from_text(setting, text), f"environment: {variable}")
    if values.get("network") == "none":
        raise SpecError("network = 'none' is not available yet.", hint="Use network = 'full', or leave the key out.")
    return Spec(**values)


def mistyped(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that looks like a setting and is none. It may be a later release's: that is no error."""
    known = {ENV_PREFIX + name.upper() for name in FIELDS}
    strange = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known | NO_SETTINGS)
    return [f"{name} is not a setting of container-kernels. {_did_you_mean(name, known)}".strip() for name in strange]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name).removeprefix(ENV_PREFIX).lower(), FIELDS, n=1)
    return next((f"Did you mean {each}? " for each in known if each.removeprefix(ENV_PREFIX).lower() in near), "")


def _from_text(setting: Field, text: str) -> Any:
    try:
        return setting.from_text(text)
    except (KeyError, ValueError):
        return text  # which the reader then refuses by its name


def _field(name: str) -> Field:
    if name not in FIELDS:
        raise SpecError(
            f"kernel.json: {name!r} is not a setting of container-kernels.",
            hint=f"{_did_you_mean(name, FIELDS)}Allowed in metadata.kernel_provisioner.config: {', '.join(FIELDS)}.",
        )
    return FIELDS[name]


def _checked(setting: Field, value: Any, origin: str) -> Any:
    try:
        return setting.read(value)
    except (_Refused, OverflowError, TypeError, ValueError) as error:
        reason = f" ({error})" if isinstance(error, _Refused) and str(error) else ""
        raise SpecError(f"{origin} = {value!r} is not allowed{reason}.", hint=f"Allowed: {setting.allowed}.") from None


# -- Readers: JSON-like value in, checked value out.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _Refused
    return value


def _image(value: Any) -> str:
    text = _text(value)
    if re.search(r"\s", text) or text.startswith("-"):
        raise _Refused
    return text


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Refused
    return value


def _boolean_or_auto(value: Any) -> bool | str:
    return "auto" if value == "auto" else _boolean(value)


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise _Refused
        return cast("str", value)

    return read


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Refused
    return float(value)


def _cpus(value: Any) -> float:
    number = _number(value)
    if not 0.01 <= number <= 4096:
        raise _Refused
    return number


def _count(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = _number(value)
        if number != int(number) or not least <= number <= most:
            raise _Refused
        return int(number)

    return read


def _seconds(least: float, most: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = _number(value)
        if not least <= number <= most:
            raise _Refused
        return number

    return read


_LEAST_MEMORY = 64 << 20


def _memory(value: Any) -> int:
    number = size(value)
    if not _LEAST_MEMORY <= number <= 1 << 50:
        raise _Refused("a kernel needs 64 MiB at the least")
    return number


def _budget(value: Any) -> int | None:
    if value == "auto":
        return None
    number = size(value)
    if number < 0:
        raise _Refused
    return number


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise _Refused
    return tuple(value)


_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def _modules(value: Any) -> tuple[str, ...]:
    names = _texts(value)
    if not all(_MODULE.fullmatch(name) for name in names):
        raise _Refused
    return names


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _Refused
    for name, content in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise _Refused(f"{name!r} is no name of a variable")
        if not isinstance(content, str) or "\0" in content:
            raise _Refused(f"{name} is not text")
    return dict(value)


def _user(value: Any) -> str:
    text = _text(value)
    if text not in ("auto", "root") and not re.fullmatch(r"[0-9]+:[0-9]+", text):
        raise _Refused
    return text


_MOUNT_KEYS = {part.name for part in fields(Mount)}


def _mounts(value: Any) -> tuple[Mount, ...]:
    if isinstance(value, (str, Mapping)):
        raise _Refused
    return tuple(_mount(item) for item in value)


def _mount(item: Any) -> Mount:
    if not isinstance(item, Mapping) or "source" not in item:
        raise _Refused("each mount needs a source")
    if unknown := set(item) - _MOUNT_KEYS:
        raise _Refused(f"a mount has no {sorted(unknown)[0]!r}")
    source, read_only = item["source"], item.get("read_only", False)
    target = item.get("target", source)
    for path in (source, target):
        if not isinstance(path, str) or not path.startswith(("/", "~")) or "\0" in path:
            raise _Refused(f"{path!r} is no absolute path")
    return Mount(source, target, _boolean(read_only))


# -- How an environment variable's text becomes such a value.


def _number_text(text: str) -> Any:
    return float(text)


def _boolean_text(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]


def _boolean_or_auto_text(text: str) -> Any:
    return "auto" if text.lower() == "auto" else _boolean_text(text)


def _json_text(text: str) -> Any:
    return json.loads(text)


def _list_text(text: str) -> Any:
    return (
        json.loads(text)
        if text.lstrip().startswith("[")
        else [part.strip() for part in text.split(",") if part.strip()]
    )


_DEFAULTS = Spec()

FIELDS: dict[str, Field] = {
    setting.name: setting
    for setting in (
        Field("engine", "the name of an engine: 'apple', 'docker' or 'podman'", "Use this engine and no other; unset takes the first that works.", _text),
        Field("require_vm", "true or false", "Refuse an engine that does not run each container in a VM of its own.", _boolean, _boolean_text),
        Field("autostart", "true, false, or 'auto', which is true for a Jupyter Server only", "Start an engine's service where it is stopped, and may be started.", _boolean_or_auto, _boolean_or_auto_text),
        Field("image", "an image reference, such as 'container-kernels/python'", "The image, with Python and ipykernel in it.", _image),
        Field("argv", "a list of words; {connection_file} stands for the file's path", "Run this command as the kernel, in place of the image's ipykernel.", _texts, _list_text),
        Field("cpus", "a number from 0.01, such as 2 or 0.5", "Cores that the container may use.", _cpus, _number_text),
        Field("memory", "a size of at least 64 MiB, such as '512m', '2g' or '2GiB'", "Memory that the container may use.", _memory),
        Field("pids", "a whole number from 16", "Processes and threads that the container may have.", _count(16, 4_194_304), _number_text),
        Field("workdir", "'auto', 'root', 'notebook' or 'none'", "What is mounted: the server's root directory, the notebook's, or nothing.", _choice("auto", "root", "notebook", "none")),
        Field("mounts", "a list of {source, target, read_only}, paths absolute, target optional", "More directories of the host.", _mounts, _json_text),
        Field("env", "names and texts", "Variables of the kernel.", _variables, _json_text),
        Field("env_passthrough", "a list of names or globs, such as ['AWS_*']", "Variables of the host that the kernel may see.", _texts, _list_text),
        Field("network", "'full' or 'none'", "What the kernel can reach.", _choice("full", "none")),
        Field("preload", "a list of module names, such as ['numpy']", "Modules imported before the kernel starts.", _modules, _list_text),
        Field("user", "'auto', 'root' or 'uid:gid'", "Who the kernel is inside; auto makes the files it writes the caller's own.", _user),
        Field("startup_timeout", "seconds from 1 to 3600", "How long a start may take, without the pull of an image.", _seconds(1, 3600), _number_text),
        Field("restart", "'keep' or 'fresh'", "Whether a restart keeps the container, or makes a new one.", _choice("keep", "fresh")),
        Field("engine_args", "a list of words", "More arguments of the engine's run command.", _texts, _list_text),
        Field("pool_size", "a whole number from 0 to 64", "Warm containers that are kept ready for the next kernels; 0 keeps none.", _count(0, 64), _number_text),
        Field("pool_ttl", "seconds from 60 to 86400", "How long a warm container waits for a kernel, before another takes its place.", _seconds(60, 86400), _number_text),
        Field("pool_memory_budget", "a size, such as '4g', or 'auto' for half of the machine's memory", "No warm container is made when all containers together would use more; 0 makes none.", _budget),
    )
}  # fmt: skip
