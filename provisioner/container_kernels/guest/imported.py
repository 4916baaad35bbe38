"""What is imported, as the template notes it for its kernels.

ipykernel tells its debugger the files of all modules, to step over what is not the person's own code; IPython keeps their names, for `%reset`.
A kernel that looks at each module for that counts a reference to it, and so takes a copy of its page: megabytes, in each warm container.
What is noted is two texts, in few pages.
"""

from __future__ import annotations

import contextlib
import sys
from itertools import islice
from types import ModuleType
from typing import Any, Dict, Iterator, List, Set, Tuple


class Imported:
    def __init__(self) -> None:
        self._names = self._files = ""  # each is followed by a null character
        self._odd: List[Any] = []  # what may import something when it is asked for its file
        self._number = 0  # of modules that are noted

    def note(self) -> None:
        """What is imported by now is known; what was known before is not touched."""
        for name, module in self._new():
            self._names += name + "\0"
            file = vars(module).get("__file__") if type(module) is ModuleType else module
            if isinstance(file, str):
                self._files += file + "\0"
            elif file is not None:
                self._odd.append(module)
        self._number = len(sys.modules)

    def files(self) -> List[str]:
        """As ipykernel would find them now."""
        asked = [getattr(module, "__file__", None) for module in (*self._odd, *(module for _, module in self._new()))]
        return [file for file in (*self._files.split("\0"), *asked) if file]

    def names(self) -> Set[str]:
        return {*self._names.split("\0")[:-1], *(name for name, _ in self._new())}

    def _new(self) -> List[Tuple[str, Any]]:
        """What came since is the last in its dictionary."""
        return list(islice(reversed(sys.modules.items()), max(0, len(sys.modules) - self._number)))


@contextlib.contextmanager
def nothing_imported_for(module: Any) -> Iterator[None]:
    """As far as the module's own code can see."""
    if getattr(module, "sys", None) is not sys:
        yield
        return
    module.sys = _SysWithoutModules()
    try:
        yield
    finally:
        module.sys = sys


class _SysWithoutModules:
    @property
    def modules(self) -> Dict[str, ModuleType]:
        return {}

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(sys, name, value)
