"""What comes from a file has the types that the annotations say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional

import pytest

from container_kernels.pool.checked import checked, plain


@dataclass(frozen=True)
class Inner:
    number: float


@dataclass(frozen=True)
class Outer:
    inners: tuple[Inner, ...]
    word: Literal["a", "b"]
    maybe: str | None
    older: Optional[int]  # noqa: UP045 # how it was written once
    table: Mapping[str, Any]


GOOD = Outer((Inner(1.0), Inner(2.5)), "a", None, 3, {"x": [1, {"y": None}]})


def test_there_and_back() -> None:
    assert checked(Outer, plain(GOOD)) == GOOD
    assert checked(Inner, {"number": 1}) == Inner(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"inners": [{"number": True}]},
        {"inners": [{"number": float("nan")}]},
        {"inners": [{"number": float("inf")}]},
        {"inners": [{"number": 10**400}]},
        {"inners": [{"number": "1"}]},
        {"inners": {"number": 1}},
        {"word": "c"},
        {"word": ["a"]},
        {"maybe": 1},
        {"older": True},
        {"table": []},
        {"table": {1: 2}},
    ],
)
def test_everything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Outer"):
        checked(Outer, {**plain(GOOD), **change})


def test_an_annotation_that_is_not_known_is_a_mistake_of_ours() -> None:
    @dataclass
    class Odd:
        names: frozenset[str]

    with pytest.raises(TypeError, match="cannot be read"):
        checked(Odd, {"names": []})
