"""What the documents say of the settings and the errors is what the code has."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from container_kernels import errors
from container_kernels.spec import FIELDS, parse

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
HOW_IT_WORKS = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def settings_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings_table", ROOT / "scripts" / "settings_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(name: str) -> str:
    _, found, rest = SETTINGS.partition(f"\n### `{name}`\n")
    assert found, f"docs/settings.md has no section `{name}`"
    return re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]


def test_the_readme_lists_all_settings(settings_table: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert settings_table.with_table(readme) == readme, "run `python scripts/settings_table.py`"


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_is_explained(name: str, settings_table: ModuleType) -> None:
    text = section(name)
    assert f"Default: {settings_table.default_text(FIELDS[name])}." in text
    assert f'"{name}":' in text, "an example for kernel.json is missing"


def test_no_setting_is_made_up() -> None:
    assert set(re.findall(r"^### `(\w+)`$", SETTINGS, re.MULTILINE)) == set(FIELDS)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "network"])
def test_examples_are_allowed(name: str, tmp_path: Path) -> None:
    import json

    for line in re.findall(rf'^("{name}": .*)$', section(name), re.MULTILINE):
        parse(json.loads("{" + line + "}"), {}, {})


def test_each_error_is_explained() -> None:
    for name, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, errors.ContainerKernelError) and error is not errors.ContainerKernelError:
            assert f"| `{name}` | {error.exit_code} |" in HOW_IT_WORKS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        assert "://" in target or (document.parent / target).exists(), target
