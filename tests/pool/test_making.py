"""Containers on their way into the pool, and how a process learns that others have changed it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from container_kernels.pool.checked import plain
from container_kernels.pool.ledger import Claim, Ledger

from .conftest import Clock
from .samples import NOW, PLACE, file_of, recipe, slot, wanted
from .test_files import DAMAGES, content

ONE, TWO = slot(1).name, slot(2).name


def test_who_makes_a_container_is_known_until_it_is_made(ledger: Ledger, clock: Clock) -> None:
    ledger.make(ONE, "docker", PLACE, "1:2:here")
    clock.now += 5
    ledger.make(TWO, "podman", "", "3:4:here")
    one = Claim(ONE, "", "1:2:here", NOW, "docker", PLACE)
    assert ledger.making() == [one, Claim(TWO, "", "3:4:here", NOW + 5, "podman", "")]
    assert (ledger.slots(), ledger.claims()) == ([], [])
    ledger.made(TWO)
    ledger.made(TWO)
    assert ledger.making() == [one]


def test_nothing_is_being_made_at_first(ledger: Ledger, directory: Path) -> None:
    assert ledger.making() == []
    ledger.made(ONE)
    assert not directory.exists()


def test_it_may_be_in_the_pool_already(ledger: Ledger) -> None:
    """A filler may be killed between the two."""
    ledger.make(ONE, "docker", PLACE, "1:2:here")
    ledger.put(slot(1))
    assert ledger.take(ledger.slots()[0]) == slot(1)
    assert [each.name for each in ledger.making()] == [each.name for each in ledger.claims()] == [ONE]


@pytest.mark.parametrize("name", ["", "postgres", "container-kernels-", "../container-kernels-1"])
def test_no_name_leads_out(ledger: Ledger, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        ledger.make(name, "docker", PLACE, "1:2:here")
    with pytest.raises(ValueError, match="no name"):
        ledger.made(name)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_gone(ledger: Ledger, directory: Path, damage: str) -> None:
    ledger.make(TWO, "docker", PLACE, "1:2:here")
    path = directory / "making" / f"{ONE}.json"
    DAMAGES[damage](path)
    assert [each.name for each in ledger.making()] == [TWO]
    assert not os.path.lexists(path)


@pytest.mark.parametrize("name", [TWO, "postgres", "../x", ""])
def test_one_of_another_name_is_damaged(ledger: Ledger, directory: Path, name: str) -> None:
    """Whoever looks after a killed filler would remove a container that is none of the filler's."""
    claim = Claim(name, "", "1:2:here", NOW, "docker", PLACE)
    ledger.make(ONE, "docker", PLACE, "1:2:here")
    path = directory / "making" / f"{ONE}.json"
    content(json.dumps(plain(claim)).encode())(path)
    assert ledger.making() == []
    assert not path.exists()


def test_foreign_files_are_left_alone(ledger: Ledger, directory: Path) -> None:
    ledger.make(ONE, "docker", PLACE, "1:2:here")
    for name in ("x", f"{ONE}.json~", f".{ONE}.json.1", "postgres.json"):
        (directory / "making" / name).touch()
    assert [each.name for each in ledger.making()] == [ONE]
    assert len(list((directory / "making").iterdir())) == 5


# -- The signature


CHANGES: dict[str, Callable[[Ledger], Any]] = {
    "put": lambda ledger: ledger.put(slot(3)),
    "claimed": lambda ledger: ledger.take(file_of(slot(1))),
    "wanted": lambda ledger: ledger.want(wanted(recipe(template=False))),
    "wanted anew": lambda ledger: ledger.want(wanted(last_used=NOW + 1)),
    "forgotten": lambda ledger: ledger.forget(wanted().key),
    "started": lambda ledger: started(ledger),
}
NO_CHANGES: dict[str, Callable[[Ledger], Any]] = {
    "read": lambda ledger: (ledger.slots(), ledger.wanted(), ledger.claims(), ledger.making(), ledger.counts()),
    "noted": lambda ledger: ledger.note_hit(wanted().key, 0.1),
    "made": lambda ledger: ledger.make(TWO, "docker", PLACE, "1:2:here"),
}


def started(ledger: Ledger) -> None:
    with ledger.start_under_way():
        pass


@pytest.fixture
def old_ledger(ledger: Ledger, directory: Path) -> Ledger:
    """Its files are older than a file system's clock is coarse."""
    ledger.want(wanted())
    ledger.put(slot(1))
    started(ledger)
    for path in (directory / "slots", directory / "wanted", directory / "last-start"):
        os.utime(path, (NOW - 60, NOW - 60))
    return ledger


@pytest.mark.parametrize("change", CHANGES)
def test_what_others_do_is_seen(old_ledger: Ledger, change: str) -> None:
    before = old_ledger.signature()
    assert old_ledger.signature() == before
    CHANGES[change](old_ledger)
    assert old_ledger.signature() != before


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_concerns_no_filler_is_not(old_ledger: Ledger, change: str) -> None:
    before = old_ledger.signature()
    NO_CHANGES[change](old_ledger)
    assert old_ledger.signature() == before


def test_an_empty_ledger_has_one(ledger: Ledger, directory: Path) -> None:
    before = ledger.signature()
    assert not directory.exists()
    ledger.want(wanted())
    assert ledger.signature() != before


def test_a_ledger_that_cannot_be_read_has_one(ledger: Ledger, directory: Path) -> None:
    directory.parent.mkdir(parents=True)
    directory.write_text("x")
    assert ledger.signature() == ledger.signature()
