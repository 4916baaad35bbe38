"""A slot is taken once, by one, whatever happens to its file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from container_kernels.pool.checked import plain
from container_kernels.pool.ledger import DamagedSlot, Ledger, LedgerError, SlotFile

from .conftest import Clock
from .samples import IMAGE, NOW, file_of, recipe, slot
from .test_files import DAMAGES, content

FINGERPRINT = recipe().fingerprint(IMAGE)
OTHER = recipe(template=False)


def names(ledger: Ledger) -> list[str]:
    return [file.name for file in ledger.slots()]


def only_slot(ledger: Ledger) -> SlotFile:
    (file,) = ledger.slots()
    return file


def test_a_slot_is_taken_once(ledger: Ledger) -> None:
    ledger.put(slot())
    file = only_slot(ledger)
    assert ledger.peek(file) == slot()
    assert ledger.take(file) == slot()
    assert ledger.take(file) is None
    assert ledger.peek(file) is None
    assert ledger.slots() == []


def test_nothing_is_there_before_the_first(ledger: Ledger, directory: Path) -> None:
    assert ledger.slots() == []
    assert ledger.claims() == []
    assert ledger.peek(file_of(slot())) is None
    assert not directory.exists()
    assert ledger.take(file_of(slot())) is None
    assert ledger.claims() == []


def test_slots_of_a_fingerprint(ledger: Ledger) -> None:
    ledger.put(slot(1))
    ledger.put(slot(2, OTHER))
    assert [file.name for file in ledger.slots(FINGERPRINT)] == [slot(1).name]
    assert len(ledger.slots()) == 2
    assert ledger.slots("0" * 32) == []


def test_the_oldest_comes_first(ledger: Ledger, directory: Path) -> None:
    for number in (3, 1, 2):
        ledger.put(slot(number))
    for age, number in enumerate((2, 3, 1)):
        os.utime(directory / "slots" / file_of(slot(number)).filename, (0, 1000 - age))
    assert names(ledger) == [slot(1).name, slot(3).name, slot(2).name]


def test_the_files_are_secrets(ledger: Ledger, directory: Path) -> None:
    ledger.put(slot())
    ledger.put(slot(2))
    ledger.take(file_of(slot(2)))
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


@pytest.mark.parametrize(
    "filename",
    [
        "x",
        ".hidden.json",
        ".{fingerprint}.container-kernels-1.json.0",
        "{fingerprint}.json",
        "{fingerprint}.postgres.json",
        "{fingerprint}.container-kernels-.json",
        "{fingerprint}.container-kernels-a b.json",
        "{fingerprint}.container-kernels-1.json~",
        "0{fingerprint}.container-kernels-1.json",
        "ABCDEF0123456789ABCDEF0123456789.container-kernels-1.json",
    ],
)
def test_foreign_names_are_nobodys(ledger: Ledger, directory: Path, filename: str) -> None:
    """A container that is none of ours is never named as one to be removed."""
    ledger.put(slot())
    (directory / "slots" / filename.format(fingerprint=FINGERPRINT)).touch()
    assert names(ledger) == [slot().name]


@pytest.mark.parametrize("name", ["", "postgres", "container-kernels-", "container-kernels-../x", "../container-kernels-1", "container-kernels-1\n"])  # fmt: skip
def test_no_name_leads_out(ledger: Ledger, name: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: ledger.put(slot(name=name)),
        lambda: ledger.take(SlotFile(FINGERPRINT, name, NOW)),
        lambda: ledger.release(name),
        lambda: ledger.claimed(name, "k", "o"),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="no name"):
            use()
    with pytest.raises(ValueError, match="no name"):
        ledger.put(slot(fingerprint="../../" + FINGERPRINT))


# -- A name is claimed once


def test_a_container_is_not_put_twice(ledger: Ledger) -> None:
    ledger.put(slot())
    for again in (slot(), replace(slot(), fingerprint=OTHER.fingerprint(IMAGE))):
        with pytest.raises(LedgerError, match="before"):
            ledger.put(again)
    ledger.take(only_slot(ledger))
    with pytest.raises(LedgerError, match="before"):
        ledger.put(slot())
    ledger.claimed(slot().name, "k", "o")
    with pytest.raises(LedgerError, match="before"):
        ledger.put(slot())
    assert ledger.slots() == []


def test_a_claimed_container_that_stands_in_the_pool_again(ledger: Ledger, directory: Path) -> None:
    """Somebody has restored a backup: the container is another kernel's, and stays so."""
    ledger.put(slot())
    path = directory / "slots" / only_slot(ledger).filename
    backup = path.read_bytes()
    ledger.take(only_slot(ledger))
    for restore in (content(backup), Path.mkdir):
        restore(path)
        assert ledger.take(file_of(slot())) is None
        assert ledger.slots() == []
        assert [claim.name for claim in ledger.claims()] == [slot().name]


def test_one_container_in_two_files_is_taken_once(ledger: Ledger, directory: Path) -> None:
    ledger.put(slot())
    first = only_slot(ledger)
    second = replace(first, fingerprint="0" * 32)
    content((directory / "slots" / first.filename).read_bytes())(directory / "slots" / second.filename)
    assert ledger.take(first) is not None
    assert ledger.take(second) is None
    assert ledger.slots() == []


@pytest.mark.parametrize("released", [False, True])
def test_another_is_first_in_the_midst_of_it(
    ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch, released: bool
) -> None:
    ledger.put(slot())
    file, rename, taken = only_slot(ledger), os.rename, []

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        taken.append(ledger.take(file))  # sees that somebody is about to
        if released:
            rename(source, target)
            ledger.release(file.name)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    taken.append(ledger.take(file))
    assert taken == [None, None if released else slot()]


def test_a_taker_that_died_halfway(ledger: Ledger, directory: Path, clock: Clock) -> None:
    ledger.put(slot())
    file, claim = only_slot(ledger), directory / "claims" / f"{slot().name}.json"
    claim.parent.mkdir(0o700)
    content(b"")(claim)
    clock.now = claim.stat().st_mtime + 5
    assert ledger.take(file) is None
    assert ledger.peek(file) == slot()
    clock.now += 10
    with pytest.raises(DamagedSlot, match="died") as caught:
        ledger.take(file)
    assert caught.value.name == slot().name
    assert ledger.slots() == []
    clock.now += 3600
    ledger.trim()
    assert ledger.claims() == []


@pytest.mark.parametrize("number", [13, 28, 30])  # denied, full, read-only
def test_a_slot_that_cannot_be_moved_stays(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    ledger.put(slot())

    def refused(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refused)
        with pytest.raises(OSError, match=os.strerror(number)):
            ledger.take(only_slot(ledger))
    assert ledger.take(only_slot(ledger)) == slot()


def test_an_unwritable_ledger_raises(ordinary_directory: Path) -> None:
    ledger = Ledger(ordinary_directory / "pool")
    ledger.put(slot())
    (ordinary_directory / "pool" / "slots").chmod(0o500)
    with pytest.raises(PermissionError):
        ledger.take(only_slot(ledger))
    with pytest.raises(PermissionError):
        ledger.put(slot(2))
    assert ledger.claims() == []
    (ordinary_directory / "pool" / "slots").chmod(0o700)
    assert ledger.take(only_slot(ledger)) == slot()


# -- Damage


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_slot_is_told_once_and_gone(ledger: Ledger, directory: Path, damage: str) -> None:
    ledger.put(slot(2))
    DAMAGES[damage](directory / "slots" / file_of(slot(1)).filename)
    file = next(each for each in ledger.slots() if each.name == slot(1).name)
    with pytest.raises(DamagedSlot):
        ledger.peek(file)
    with pytest.raises(DamagedSlot) as caught:
        ledger.take(file)
    assert caught.value.name == slot(1).name
    assert ledger.take(file) is None
    assert names(ledger) == [slot(2).name]
    assert ledger.claims() == []


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [plain(slot())], {"name": slot().name}])
def test_other_json_is_damage(ledger: Ledger, directory: Path, value: Any) -> None:
    refuse(ledger, directory, value)


@pytest.mark.parametrize("name", plain(slot()))
@pytest.mark.parametrize("value", [None, [1], {"x": 1}, {"x": [2]}, -1e999])
def test_a_field_of_another_type_is_damage(ledger: Ledger, directory: Path, name: str, value: Any) -> None:
    if name == "container" and isinstance(value, dict):
        return  # that is for `unusable`
    refuse(ledger, directory, {**plain(slot()), name: value})


def test_a_field_too_few_or_too_many_is_damage(ledger: Ledger, directory: Path) -> None:
    refuse(ledger, directory, {**plain(slot()), "more": 1})
    refuse(ledger, directory, {name: value for name, value in plain(slot()).items() if name != "parked"})


def test_the_file_of_another_container_is_damage(ledger: Ledger, directory: Path) -> None:
    refuse(ledger, directory, plain(slot(2)))


def refuse(ledger: Ledger, directory: Path, value: Any) -> None:
    ledger.put(slot())
    content(json.dumps(value).encode())(directory / "slots" / file_of(slot()).filename)
    with pytest.raises(DamagedSlot) as caught:
        ledger.take(only_slot(ledger))
    assert caught.value.name == slot().name
    assert not ledger.slots()
    assert not ledger.claims()


def test_a_slot_that_cannot_be_read_after_the_claim_is_the_takers_to_remove(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.put(slot())
    real = os.open

    def many(path: Path, flags: int, mode: int = 0o777) -> int:
        if not flags & os.O_CREAT:
            raise OSError(24, "Too many open files")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", many)
    with pytest.raises(DamagedSlot, match="Too many"):
        ledger.take(only_slot(ledger))


# -- Whether it can be used


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "good": ({}, ""),
    "made a moment ahead": ({"created": NOW + 59}, ""),
    "from the future": ({"created": NOW + 61}, "from the future"),
    "at its end": ({"expires": NOW}, "expired"),
    "past its end": ({"created": NOW - 10, "expires": NOW - 5}, "expired"),
    "of another guest": ({"guest": "0" * 64}, "another guest"),
    "of another fingerprint": ({"fingerprint": "0" * 32}, "another fingerprint"),
    "an empty address": ({"container": {}}, "no address"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_why_a_slot_is_no_use(case: str) -> None:
    changes, reason = CHANGES[case]
    assert slot(**changes).unusable(NOW, FINGERPRINT) == reason


@pytest.mark.parametrize("name", slot().container)
@pytest.mark.parametrize("value", [None, "", 1, [], {}, "container-kernels-other"])
def test_an_address_of_odd_values(name: str, value: Any) -> None:
    if name in ("engine", "image", "host", "token") and isinstance(value, str) and value:
        return
    container = {**slot().container, name: value}
    assert slot(container=container).unusable(NOW, FINGERPRINT) == "no address"


@pytest.mark.parametrize("port", [None, 0, -1, 65536, True, 1.5, "1", []])
def test_ports_that_are_none(port: Any) -> None:
    ports = slot().container["ports"]
    for name in ports:
        for odd in ({**ports, name: port}, {each: number for each, number in ports.items() if each != name}):
            assert slot(container={**slot().container, "ports": odd}).unusable(NOW, FINGERPRINT) == "no address"


def test_a_port_that_is_none_of_a_kernels() -> None:
    """It would find its way into the kernel's connection."""
    ports = {**slot().container["ports"], "transport": 5}
    assert slot(container={**slot().container, "ports": ports}).unusable(NOW, FINGERPRINT) == "no address"


def test_a_port_that_is_there_twice() -> None:
    ports = {**slot().container["ports"], "supervisor": slot().container["ports"]["shell_port"]}
    assert slot(container={**slot().container, "ports": ports}).unusable(NOW, FINGERPRINT) == "no address"


PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())
PAIR = {"curve_publickey": PUBLIC, "curve_secretkey": SECRET}


@pytest.mark.parametrize(
    "curve",
    [
        {"curve_publickey": PUBLIC},
        {"curve_secretkey": SECRET},
        {"curve_publickey": SECRET, "curve_secretkey": PUBLIC},
        {"curve_publickey": "x", "curve_secretkey": "x"},
        {**PAIR, "curve_secretkey": "\ud800"},
        {**PAIR, "curve_secretkey": "~" * 40},
        {**PAIR, "more": "x"},
    ],
)
def test_keys_that_are_none(curve: dict[str, str]) -> None:
    """A kernel that has others than its clients is mute."""
    assert slot(curve=PAIR).unusable(NOW, FINGERPRINT) == ""
    assert slot(curve=curve).unusable(NOW, FINGERPRINT) == "no keys"


def test_more_than_an_address_is_no_harm() -> None:
    assert slot(container={**slot().container, "more": 1}).unusable(NOW, FINGERPRINT) == ""
