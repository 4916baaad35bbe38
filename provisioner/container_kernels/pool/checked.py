"""Dataclasses as JSON-like values, and back: what comes from a file is checked against the annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def plain(value: Any) -> Any:
    """The value with dataclasses and mappings as dicts, and tuples as lists."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def checked(kind: type[Record], value: object) -> Record:
    """The dataclass's instance of which `value` is the plain form. Raises ValueError for anything that is not one."""
    return cast("Record", _read(kind, value, kind.__name__))


def _read(hint: Any, value: Any, where: str) -> Any:
    """What an annotation says of the value. TypeError is for annotations that are not known here."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _dataclass(hint, value, where)
    if hint in (str, int, bool, NoneType):
        if type(value) is hint:  # a bool is no number
            return value
    elif hint is float:
        if type(value) in (int, float) and _is_finite(value):
            return float(value)
    elif origin is Literal:
        if value in inner:
            return value
    elif origin is tuple and inner[1:] == (...,):
        if isinstance(value, list):
            return tuple(_read(inner[0], item, where) for item in value)
    elif origin is Mapping:
        if isinstance(value, dict):
            return {_read(inner[0], key, where): _read(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    elif origin in (Union, UnionType) and NoneType in inner and len(inner) == 2:
        (other,) = (each for each in inner if each is not NoneType)
        return None if value is None else _read(other, value, where)
    else:
        raise TypeError(f"{where}: {hint} cannot be read")
    raise ValueError(f"{where} is no {getattr(hint, '__name__', hint)}")


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise ValueError(f"{where} has other fields")
    return kind(**{name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
