"""What goes into an image, besides its base."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from ..errors import SpecError

_KERNEL = (
    "ipykernel>=7; python_version >= '3.10'",
    "ipykernel>=6.29; python_version < '3.10'",
    "pip",
)

_DATA = ("numpy", "pandas", "matplotlib", "scipy", "scikit-learn", "seaborn", "sympy", "ipywidgets", "openpyxl")

NAMESPACE = "container-kernels/"


@dataclass(frozen=True)
class Recipe:
    """An image's tag, and the packages in it."""

    tag: str
    requirements: tuple[str, ...]


RECIPES: Mapping[str, Recipe] = {
    "python": Recipe(f"{NAMESPACE}python", _KERNEL),
    "data": Recipe(f"{NAMESPACE}data", _KERNEL + _DATA),
}


def recipe(
    name: str = "python", *, packages: Iterable[str] = (), requirements: Path | None = None, tag: str | None = None
) -> Recipe:
    """The named recipe with more packages, from arguments and from a requirements file.

    Raises SpecError for what is not a package's name and version.
    """
    if name not in RECIPES:
        raise SpecError(f"There is no recipe {name!r}.", hint=f"Recipes: {', '.join(RECIPES)}.")
    more = [_requirement(text, "--package") for text in packages]
    if requirements is not None:
        more += _requirements_file(requirements)
    known = RECIPES[name]
    return Recipe(known.tag if tag is None else reference(tag, "--tag"), (*known.requirements, *more))


def reference(text: str, option: str) -> str:
    """`text`, which may be an image's reference."""
    if not re.fullmatch(r"[A-Za-z0-9][\w./:@-]*", text, re.ASCII):
        raise SpecError(f"{option} {text!r} is not an image reference.", hint="An example: my-course/python:2026.")
    return text


def python_version(text: str) -> str:
    """`text`, which is a version of Python such as 3.13."""
    if not re.fullmatch(r"3\.\d{1,2}", text, re.ASCII):
        raise SpecError(f"--python {text!r} is not a version of Python.", hint="An example: 3.13.")
    return text


def digest(recipe: Recipe, *, base: str, python: str | None, containerfile: str) -> str:
    """The same for the same inputs, and for no others. `base` is the id of the base image."""
    inputs = {"base": base, "containerfile": containerfile, "python": python, "requirements": recipe.requirements}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _requirements_file(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read.", detail=str(error)) from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if wanted := re.sub(r"(^|\s)#.*", "", line).strip():
            found.append(_requirement(wanted, f"{path}, line {number}:"))
    return found


def _requirement(text: str, origin: str) -> str:
    """`text` in its normal form, which is one line, is no option of pip, and names no file or URL."""
    hint = "Allowed: a package's name, with extras, versions and markers, such as 'polars[numpy]>=1.30'."
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise SpecError(f"{origin} {text!r} is not a requirement.", hint=hint, detail=str(error)) from None
    if requirement.url is not None:
        raise SpecError(f"{origin} {text!r} names a URL, which a build without network cannot use.", hint=hint)
    return str(requirement)
