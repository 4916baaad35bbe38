"""Kernelspecs whose kernels run in containers of ours: those that are installed, and new ones."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ContainerKernelError, SpecError
from .spec import parse

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpecManager

DISTRIBUTION = "container-kernels"
PROVISIONER = "container-kernels"
LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")


@dataclass(frozen=True)
class Kernelspec:
    """One that is installed; `config` is what its kernel.json sets, unchecked."""

    name: str
    directory: Path
    display_name: str
    language: str
    config: Mapping[str, Any]


def installed() -> list[Kernelspec]:
    """Those of ours, by name. A kernel.json that cannot be read is nobody's."""
    found = sorted(_manager().find_kernel_specs().items())
    return [kernelspec for name, directory in found if (kernelspec := _read(name, Path(directory))) is not None]


def _manager() -> KernelSpecManager:
    from jupyter_client.kernelspec import KernelSpecManager

    return KernelSpecManager(ensure_native_kernel=False)


def _read(name: str, directory: Path) -> Kernelspec | None:
    try:
        content = json.loads((directory / "kernel.json").read_text(encoding="utf-8"))
        stanza = content["metadata"]["kernel_provisioner"]
        if stanza["provisioner_name"] != PROVISIONER:
            return None
        title, language = str(content.get("display_name", name)), str(content.get("language", ""))
        return Kernelspec(name, directory, title, language, dict(stanza.get("config") or {}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def content(display_name: str, language: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What kernel.json holds for these settings. Raises SpecError for the first that is not allowed."""
    own_argv = parse(config, {}, {}).argv
    # The debugger and encryption are ipykernel's; another kernel may know neither.
    of_ipykernel = {} if own_argv else {"debugger": True, "supported_encryption": ["curve"]}
    return {
        "argv": ["python", "-m", "container_kernels.launcher", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": language,
        # The supervisor answers when the signal was sent. A message waits for its connection, and after a restart, which is faster,
        # interrupts the next kernel's first cell.
        "interrupt_mode": "signal",
        "metadata": {
            **of_ipykernel,
            "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": dict(config)},
        },
        "kernel_protocol_version": "5.5",
    }


def title(image: str) -> str:
    """What a kernel of the image is called, where nobody says."""
    name = image.partition("@")[0].rpartition("/")[2].replace(":", " ")
    return f"{name} (container)"


def install(name: str, kernel_json: Mapping[str, Any], *, prefix: Path | None, replace: bool) -> Path:
    """The kernelspec is in `prefix`, or in the user's own directory; where, is returned.

    Raises SpecError for a name that Jupyter does not take, or that is taken already and not to be replaced; nothing was written then.
    """
    manager, name = _manager(), name.lower()
    _check_name(name)
    if not replace and (taken := _taken(manager, name, prefix)) is not None:
        raise SpecError(
            f"There is a kernelspec {name!r} already, in {taken}.", hint="Choose another --name, or add --replace."
        )
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / name  # the copy has its mode, and the scratch directory's is private
        source.mkdir()
        (source / "kernel.json").write_text(json.dumps(kernel_json, indent=1) + "\n", encoding="utf-8")
        for logo in _logos("container-python"):
            shutil.copyfile(logo, source / logo.name)
        try:
            target = None if prefix is None else str(prefix)
            return Path(manager.install_kernel_spec(str(source), name, user=prefix is None, prefix=target))
        except OSError as error:
            raise ContainerKernelError(
                f"The kernelspec {name!r} could not be written: {error}.",
                hint="Use --user, or a --prefix that you may write to.",
            ) from None


def _check_name(name: str) -> None:
    from jupyter_client.kernelspec import _is_valid_kernel_name, _kernel_name_description

    # Jupyter takes "..", and replaces, that is removes, what it finds there.
    if not _is_valid_kernel_name(name) or not name.strip("."):
        raise SpecError(f"A kernelspec cannot be named {name!r}.", hint=_kernel_name_description)


def _taken(manager: KernelSpecManager, name: str, prefix: Path | None) -> Path | None:
    """The directory that has the name: where it would be written, or elsewhere, since one hides the other."""
    directory = Path(manager.user_kernel_dir) if prefix is None else prefix / "share" / "jupyter" / "kernels"
    if (directory / name).exists():
        return directory / name
    found = manager.find_kernel_specs().get(name)
    return None if found is None else Path(found)


def is_looked_into(directory: Path) -> bool:
    """Whether Jupyter searches for kernelspecs there."""
    return str(directory) in _manager().kernel_dirs


def _logos(shipped: str) -> Iterator[Path]:
    """The logos of a kernelspec that came with this distribution, where the installer has put them."""
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.parent.name == shipped and file.name in LOGOS and Path(str(file.locate())).is_file():
            yield Path(str(file.locate()))
