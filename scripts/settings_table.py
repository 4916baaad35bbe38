"""The README's table of settings, from `container_kernels.spec.FIELDS`: `python scripts/settings_table.py` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from container_kernels.guest.wire import size_text
from container_kernels.spec import FIELDS, Field

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- settings: made by scripts/settings_table.py -->\n", "<!-- end of settings -->\n"


def default_text(setting: Field) -> str:
    """As a person would write it in kernel.json."""
    value: Any = setting.default
    if setting.name == "memory":
        return f"`{size_text(value)}`"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"`{value:g}`"
    return f"`{value}`" if value else "none"


def table() -> str:
    rows = [f"| `{name}` | {default_text(field)} | {field.help} | {field.allowed} |" for name, field in FIELDS.items()]
    return "\n".join(["| setting | default | what it is | allowed |", "|---|---|---|---|", *rows]) + "\n"


def with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
