"""`install`: a kernelspec of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import kernelspecs
from ..engines import ENGINES
from ..errors import SpecError
from ..spec import FIELDS

NAME = "install"
HELP = "Install a kernelspec of your own: an image, and what its kernels may use."

ONE = ("image", "cpus", "memory", "pids", "network", "workdir", "startup_timeout", "restart", "pool_size")
SEVERAL = ("env_passthrough", "preload")
IN_VENV = sys.prefix != sys.base_prefix


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="What Jupyter calls it: letters, digits, '-', '.' and '_'.")
    parser.add_argument("--display-name", metavar="TEXT", help="What people see (default: after the image).")
    parser.add_argument("--replace", action="store_true", help="Replace a kernelspec that has the name.")
    _configure_place(parser.add_argument_group("where").add_mutually_exclusive_group())
    _configure_settings(parser.add_argument_group("settings of the kernel", "Those not given have their defaults."))


def _configure_place(place: argparse._MutuallyExclusiveGroup) -> None:
    default = " (the default here)"
    place.add_argument("--user", action="store_true", help=f"For you alone{'' if IN_VENV else default}.")
    place.add_argument(
        "--sys-prefix", action="store_true", help=f"Into this Python's environment{default if IN_VENV else ''}."
    )
    place.add_argument("--prefix", type=Path, metavar="DIR", help="Into DIR/share/jupyter/kernels.")


def _configure_settings(settings: argparse._ArgumentGroup) -> None:
    for name in ONE:
        settings.add_argument(_option(name), metavar="VALUE", help=_help(name))
    settings.add_argument("--engine", choices=tuple(ENGINES), help=FIELDS["engine"].help)
    settings.add_argument("--require-vm", action="store_true", default=None, help=FIELDS["require_vm"].help)
    settings.add_argument("--container-user", dest="as_user", metavar="VALUE", help=_help("user"))
    for name in SEVERAL:
        settings.add_argument(_option(name), action="append", metavar="NAME,…", help=f"{_help(name)} May be repeated.")
    settings.add_argument("--env", action="append", metavar="NAME=VALUE", help=f"{FIELDS['env'].help} May be repeated.")
    settings.add_argument("--language", metavar="NAME", help="The kernel's language (default: python).")
    settings.add_argument(
        "--kernel-argv",
        nargs=argparse.REMAINDER,
        metavar="WORD",
        help=f"{FIELDS['argv'].help} {{connection_file}} stands for the file's path. All that follows belongs to it.",
    )


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _help(setting: str) -> str:
    field = FIELDS[setting]
    return f"{field.help} Allowed: {field.allowed}."


async def run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    title = arguments.display_name or kernelspecs.title(config.get("image", FIELDS["image"].default))
    content = kernelspecs.content(title, arguments.language or "python", config)
    directory = kernelspecs.install(arguments.name, content, prefix=_prefix(arguments), replace=arguments.replace)
    print(f"Installed the kernelspec {directory.name!r} ({title}) in {directory}.")
    if kernelspecs.is_looked_into(directory.parent):
        print(f"Try it: jupyter container-kernels doctor --kernel {directory.name}")
    else:
        print(f"Jupyter does not look there: add {directory.parent.parent} to JUPYTER_PATH.")
    return 0


def _prefix(arguments: argparse.Namespace) -> Path | None:
    """None for the person's own directory."""
    if arguments.prefix is not None:
        return Path(arguments.prefix)
    return Path(sys.prefix) if arguments.sys_prefix or (IN_VENV and not arguments.user) else None


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as kernel.json has them; not checked."""
    config: dict[str, Any] = {name: _value(name, getattr(arguments, name)) for name in ONE}
    for name in SEVERAL:
        given = getattr(arguments, name)
        config[name] = None if given is None else [part for text in given for part in _value(name, text)]
    config["engine"] = arguments.engine
    config["require_vm"] = arguments.require_vm
    config["user"] = arguments.as_user
    config["env"] = None if arguments.env is None else dict(_variable(text) for text in arguments.env)
    config["argv"] = arguments.kernel_argv
    return {name: value for name, value in config.items() if value is not None}


def _value(name: str, text: str | None) -> Any:
    """The text as the setting reads it; one that it cannot read is left for the setting to refuse."""
    if text is None:
        return None
    try:
        value = FIELDS[name].from_text(text)
    except ValueError:
        return text
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"--env {text!r} has no value.", hint="Write --env NAME=VALUE.")
    return name, value
