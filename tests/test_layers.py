"""The arrows between the modules go one way, and each doorway to the outside has one doorkeeper."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import container_kernels

ROOT = Path(container_kernels.__file__).parent

# From the ground up: a module may import from its own line and from those above it.
LAYERS = (
    {"__init__", "errors", "quantities", "finish", "guest", "locks"},
    {"engines.protocol", "command"},
    {"spec", "owner"},
    {"engines", "environment", "workdir", "control", "ports", "config", "user"},
    {"turns"},
    {"kernel_container", "image", "kernelspecs"},
    {"pool"},
    {"inventory"},
    {"provisioner", "launcher", "doctor"},
    {"cli", "server"},
)


@dataclass(frozen=True)
class Import:
    """`module` imports `name`: dotted, ours without the package's own name; `lazily` where not the module itself does, but a function."""

    module: str
    name: str
    lazily: bool

    def __str__(self) -> str:
        return f"{self.module} imports {self.name}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[Import]:
    module = module_name(path)
    package = module if path.name == "__init__.py" and module != "__init__" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    lazy = {inner for node in ast.walk(tree) if runs_later(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level and package else []
            start = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            ours = node.level > 0 or start.startswith("container_kernels")
            for alias in node.names:
                yield Import(module, resolved(start.removeprefix("container_kernels").lstrip("."), alias.name) if ours else start, node in lazy)  # fmt: skip


def runs_later(node: ast.AST) -> bool:
    """A function, or what only type checkers read."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def resolved(package: str, name: str) -> str:
    """`from package import name`: the module `package.name` where it is one, else what `package` itself has."""
    dotted = f"{package}.{name}".lstrip(".")
    is_module = any((ROOT / dotted.replace(".", "/")).with_suffix(suffix).exists() for suffix in ("", ".py"))
    return f"ours:{dotted if is_module else package or '__init__'}"


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
IMPORTS = [each for path in MODULES.values() for each in imports_of(path)]
OURS = [(each.module, each.name.removeprefix("ours:"), each) for each in IMPORTS if each.name.startswith("ours:")]


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def level(module: str) -> int:
    """The line of the module itself, or else of the package that holds it."""
    for number, layer in enumerate(LAYERS):
        if module in layer:
            return number
    package = module.rpartition(".")[0]
    assert package, f"{module} has no place in LAYERS: give it one"
    return level(package)


def uses(*names: str) -> set[str]:
    """Modules that import one of these from outside."""
    return {each.module for each in IMPORTS if within(each.name, *names)}


@pytest.mark.parametrize("module", MODULES)
def test_the_arrows_go_one_way(module: str) -> None:
    wrong = [str(each) for source, target, each in OURS if source == module and level(target) > level(source)]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    arrows = {
        module: {target for source, target, each in OURS if source == module and not each.lazily} for module in MODULES
    }
    left = dict(arrows)
    while free := [module for module, targets in left.items() if not targets & left.keys() - {module}]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize(
    "module", ["spec", "config", "provisioner", "launcher", "cli", "server.keeper", "pool.__main__", "doctor"]
)
def test_each_way_in_can_be_the_first(module: str) -> None:
    """An import of a package's module imports the package, too, which no arrow shows."""
    done = subprocess.run(
        [sys.executable, "-c", f"import container_kernels.{module}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_guest_imports_nothing_of_ours() -> None:
    assert not [str(each) for source, target, each in OURS if within(source, "guest") and not within(target, "guest")]


def test_of_the_guest_only_the_wire_and_the_boot_are_known_outside() -> None:
    known = {target for source, target, _ in OURS if within(target, "guest") and not within(source, "guest")}
    assert known <= {"guest.wire", "guest.boot"}


def test_engines_do_not_know_each_other() -> None:
    engines = {"engines.apple", "engines.docker", "engines.podman", "engines.memory"}
    pairs = {(source, target) for source, target, _ in OURS if {source, target} <= engines}
    assert pairs == {("engines.podman", "engines.docker")}


def test_no_configuration_leads_to_the_engine_of_tests() -> None:
    assert not [str(each) for _, target, each in OURS if target == "engines.memory"]


def outside_the_guest(modules: set[str]) -> set[str]:
    return {module for module in modules if not within(module, "guest")}


def test_jupyter_is_known_at_the_edge_only() -> None:
    eagerly = {
        each.module
        for each in IMPORTS
        if within(each.name, "jupyter_client", "jupyter_core", "zmq") and not each.lazily
    }
    assert outside_the_guest(eagerly) <= {"provisioner", "launcher", "server.keeper"}
    lazily = outside_the_guest(uses("jupyter_client", "jupyter_core", "zmq"))
    edge = ("provisioner", "launcher", "doctor", "kernelspecs", "cli", "pool", "server")
    assert all(within(module, *edge) for module in lazily)


def test_traitlets_are_known_at_the_edge_only() -> None:
    eagerly = {each.module for each in IMPORTS if within(each.name, "traitlets") and not each.lazily}
    assert eagerly <= {"config", "provisioner"}
    assert uses("traitlets") <= {"config", "provisioner", "doctor.trial"}


def test_processes_are_started_in_one_place() -> None:
    assert outside_the_guest(uses("subprocess", "multiprocessing", "pty")) == set()
    starters = {
        "create_subprocess_exec",
        "create_subprocess_shell",
        "system",
        "popen",
        "posix_spawn",
        "fork",
        "execvp",
        "execv",
    }
    assert outside_the_guest(mentions(starters)) <= {"command"}


def test_the_environment_is_read_in_one_place() -> None:
    assert outside_the_guest(mentions({"environ", "getenv", "putenv", "expandvars"})) <= {"config"}


def mentions(attributes: set[str]) -> set[str]:
    """Modules in which one of these is an attribute of something, such as `os.environ`, or is imported by its name."""
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if attributes.intersection([node.attr] if isinstance(node, ast.Attribute) else named):
                found.add(module)
    return found
