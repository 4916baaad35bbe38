"""A kernel is told what is imported, and does not look at each module for that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from container_kernels.guest.imported import Imported, nothing_imported_for
from container_kernels.guest.kernel_classes import _container_app, _container_kernel, _Ties


def files() -> list[str]:
    """As ipykernel 7 finds them."""
    return [m.__file__ for m in sys.modules.copy().values() if hasattr(m, "__file__") and m.__file__]


def module(name: str, source: str = "", **fields: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(fields)
    exec(source, vars(made))
    return made


Import = Callable[[ModuleType], None]


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    """What this test imports comes last, as in a process that imports it now."""
    with monkeypatch.context() as patch:
        yield lambda made: patch.setitem(sys.modules, made.__name__, made)


def test_what_is_noted_is_what_ipykernel_finds(imports: Import) -> None:
    imports(module("x_built_in"))
    imports(module("x_nameless", __file__=""))
    imports(module("x_none", __file__=None))
    imported = Imported()
    imported.note()
    assert sorted(imported.files()) == sorted(files())
    assert imported.names() == set(sys.modules)


def test_what_is_imported_later_is_found_too(imports: Import) -> None:
    imported = Imported()
    imported.note()
    imports(module("x_noted_later", __file__="/noted later"))
    imported.note()
    imports(module("x_in_the_kernel", __file__="/in the kernel"))
    assert {"/noted later", "/in the kernel"} <= set(imported.files())
    assert sorted(imported.files()) == sorted(files())
    assert imported.names() == set(sys.modules)


class Lazy(ModuleType):
    """Loads itself when it is asked for anything."""

    asked = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "__file__":
            type(self).asked += 1
            return "/of the lazy one"
        return super().__getattribute__(name)


def test_a_lazy_module_is_asked_by_the_kernel_only(imports: Import) -> None:
    imports(Lazy("x_lazy"))
    imported = Imported()
    imported.note()
    assert Lazy.asked == 0
    assert "/of the lazy one" in imported.files()
    assert Lazy.asked > 0


def test_a_module_without_modules_has_the_rest_of_sys() -> None:
    asking = module(
        "asking", "import sys\ndef modules(): return sys.modules\ndef place(): sys.x_place = sys.executable"
    )
    with nothing_imported_for(asking):
        assert asking.modules() == {}
        asking.place()
    assert asking.modules() is sys.modules
    assert vars(sys).pop("x_place") == sys.executable


def test_sys_is_back_after_an_error() -> None:
    asking = module("asking", "import sys")
    with pytest.raises(ZeroDivisionError), nothing_imported_for(asking):
        1 / 0  # noqa: B018
    assert asking.sys is sys


def test_a_module_that_does_without_sys() -> None:
    asking = module("asking", "sys = 'its own'")
    with nothing_imported_for(asking):
        assert asking.sys == "its own"
    with nothing_imported_for(module("empty")):
        pass


KERNELS = {
    "looks": "self._kernel_modules = [m.__file__ for m in sys.modules.copy().values() if hasattr(m, '__file__') and m.__file__]",
    "looks elsewhere": "self._kernel_modules = [m.__file__ for m in __import__('sys').modules.values() if hasattr(m, '__file__')]",
    "has them in another form": "self._kernel_modules = ()",
    "does not look": "pass",
}


def kernel(how: str, imported: Imported, imports: Import) -> Any:
    source = f"import sys\nclass Kernel:\n    def __init__(self, **_):\n        {KERNELS[how]}\n        self.seen = getattr(self, '_kernel_modules', None)"
    ipkernel = module("x_ipkernel", source)
    imports(ipkernel)
    return _container_kernel(ipkernel.Kernel, _Ties(), imported)()


def test_a_kernel_does_not_look_at_its_modules(imports: Import) -> None:
    """Its list is the one that the debugger was given, and none of its texts is a module's own."""
    imported = Imported()
    imported.note()
    made = kernel("looks", imported, imports)
    assert made._kernel_modules is made.seen
    assert sorted(made._kernel_modules) == sorted(files())
    assert not any(file is pytest.__file__ for file in made._kernel_modules)


@pytest.mark.parametrize("how", [how for how in KERNELS if how != "looks"])
def test_a_kernel_of_another_release_is_let_be(how: str, imports: Import) -> None:
    made = kernel(how, Imported(), imports)
    assert vars(made).get("_kernel_modules") is made.seen
    assert how != "looks elsewhere" or pytest.__file__ in made.seen


class Shell:
    """IPython's, as far as it is asked."""


def shell(source: str, imported: Imported, imports: Import) -> Shell:
    shellapp = module("IPython.core.shellapp", f"import sys\nclass App:\n    def init_code(self):\n        {source}")
    imports(shellapp)
    app = _container_app(shellapp.App, _Ties(), imported)()
    app.shell = Shell()
    app.init_code()
    made: Shell = app.shell
    return made


def test_a_shell_does_not_look_at_the_names_of_modules(imports: Import) -> None:
    imported = Imported()
    imported.note()
    names = vars(shell("self.shell._sys_modules_keys = set(sys.modules.keys())", imported, imports))[
        "_sys_modules_keys"
    ]
    assert names == set(sys.modules)
    assert not any(name is pytest.__name__ for name in names)


def test_a_shell_of_another_release_is_let_be(imports: Import) -> None:
    assert vars(shell("pass", Imported(), imports)) == {}
