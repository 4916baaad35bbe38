"""What is wanted, what is remembered, and what processes tell each other."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from container_kernels.engines.protocol import EngineInfo
from container_kernels.pool import ledger as ledger_module
from container_kernels.pool import recipe as recipe_module
from container_kernels.pool.checked import plain
from container_kernels.pool.ledger import Failure, Ledger
from container_kernels.pool.records import FIRST_WAIT, LONGEST_WAIT

from .conftest import Clock
from .samples import NOW, recipe, slot, wanted
from .test_files import DAMAGES, content

KEY, OTHER = recipe().key, recipe(template=False).key
INFO = EngineInfo("docker", "20.10", "container", False, False, "x86_64", 2, "Docker", ("--a",))


def test_it_is_in_jupyters_runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    ledger = Ledger.of_this_user()
    ledger.put(slot())
    assert [path.name for path in (tmp_path / "runtime" / "container-kernels" / "pool").glob("*/slots/*")]
    assert str(tmp_path) in repr(ledger)


@pytest.mark.parametrize("other", ["machine", "release"])
def test_machines_and_releases_that_share_a_home_have_ledgers_of_their_own(
    other: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    Ledger.of_this_user().put(slot())
    assert Ledger.of_this_user().slots()
    if other == "machine":
        monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    else:
        monkeypatch.setattr(ledger_module, "guest_digest", lambda: "f" * 64)
    assert Ledger.of_this_user().slots() == []


def test_reading_an_empty_ledger(ledger: Ledger, directory: Path) -> None:
    assert ledger.wanted() == []
    assert ledger.wanted_by(KEY) is None
    assert ledger.remembered_engine("x") is None
    assert ledger.failure(KEY) is None
    assert ledger.counts() == {}
    assert not ledger.starts_under_way(NOW)
    assert ledger.last_start() == 0.0
    ledger.forget(KEY)
    ledger.succeeded(KEY)
    ledger.trim()
    assert not directory.exists()


# -- What is wanted


def test_what_is_wanted(ledger: Ledger) -> None:
    one, two = wanted(), wanted(recipe(template=False), size=3, image_id="")
    ledger.want(one)
    ledger.want(two)
    assert sorted(ledger.wanted(), key=lambda each: each.size) == [one, two]
    assert ledger.wanted_by(one.key) == one
    ledger.want(replace(one, last_used=NOW + 1))
    assert ledger.wanted_by(one.key) == replace(one, last_used=NOW + 1)
    ledger.forget(one.key)
    assert ledger.wanted() == [two]


def test_what_is_forgotten_has_no_failure(ledger: Ledger) -> None:
    ledger.want(wanted())
    ledger.failed(KEY, "x", NOW)
    ledger.forget(KEY)
    assert ledger.failure(KEY) is None


def test_recipes_of_another_version_are_gone(ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.want(wanted())
    monkeypatch.setattr(recipe_module, "__version__", "99")
    ledger.want(wanted(recipe(template=False)))
    assert [each.recipe for each in ledger.wanted()] == [recipe(template=False)]
    assert len(list((directory / "wanted").iterdir())) == 1


@pytest.mark.parametrize("name", ["x", "{key}.json~", ".{key}.json.1", "README"])
def test_foreign_files_are_left_alone(ledger: Ledger, directory: Path, name: str) -> None:
    ledger.want(wanted())
    path = directory / "wanted" / name.format(key=KEY)
    path.touch()
    assert ledger.wanted() == [wanted()]
    assert path.exists()


@pytest.mark.parametrize("key", ["", "x", "../" + "0" * 32, "A" * 32, "0" * 32 + "\n"])
def test_no_key_leads_out(ledger: Ledger, key: str) -> None:
    for use in (ledger.wanted_by, ledger.forget, ledger.failure, ledger.succeeded, lambda key: ledger.failed(key, "", NOW)):  # fmt: skip
        with pytest.raises(ValueError, match="no key"):
            use(key)


RECORDS: dict[str, tuple[Callable[[Ledger], Any], Callable[[Ledger], Any]]] = {
    "wanted": (lambda ledger: ledger.want(wanted()), lambda ledger: ledger.wanted_by(KEY)),
    "engines": (lambda ledger: ledger.remember_engine("x", INFO), lambda ledger: ledger.remembered_engine("x")),
    "failures": (lambda ledger: ledger.failed(KEY, "x", NOW), lambda ledger: ledger.failure(KEY)),
}


@pytest.mark.parametrize("part", RECORDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_told_and_gone(
    ledger: Ledger, directory: Path, caplog: pytest.LogCaptureFixture, part: str, damage: str
) -> None:
    write, read = RECORDS[part]
    write(ledger)
    (path,) = (directory / part).iterdir()
    path.unlink()
    DAMAGES[damage](path)
    assert read(ledger) is None
    assert "damaged" in caplog.text
    assert not os.path.lexists(path)
    write(ledger)
    assert read(ledger) is not None


@pytest.mark.parametrize("part", RECORDS)
@pytest.mark.parametrize("value", [None, 1, "x", [], {}, {"count": 1}])
def test_a_record_of_other_json_is_gone(ledger: Ledger, directory: Path, part: str, value: Any) -> None:
    write, read = RECORDS[part]
    write(ledger)
    (path,) = (directory / part).iterdir()
    given = json.loads(path.read_text())
    for damaged in (value, *({**given, name: None} for name in given)):
        content(json.dumps(damaged).encode())(path)
        assert read(ledger) is None
        assert not path.exists()


def test_damaged_records_do_not_hide_the_others(ledger: Ledger, directory: Path) -> None:
    ledger.want(wanted())
    for number, damage in enumerate(DAMAGES.values()):
        damage(directory / "wanted" / f"{number:032x}.json")
    assert ledger.wanted() == [wanted()]
    assert len(list((directory / "wanted").iterdir())) == 1


def test_a_damaged_record_in_a_directory_that_may_not_be_written(ordinary_directory: Path) -> None:
    ledger = Ledger(ordinary_directory / "pool")
    ledger.want(wanted())
    (path,) = (ordinary_directory / "pool" / "wanted").iterdir()
    path.write_text("{")
    path.parent.chmod(0o500)
    assert ledger.wanted() == []
    with pytest.raises(PermissionError):
        ledger.want(wanted())


# -- Engines


def test_an_engine_is_remembered_by_what_was_asked(ledger: Ledger) -> None:
    ledger.remember_engine("docker\0{}", INFO)
    ledger.remember_engine("\udcff/../x", replace(INFO, engine="podman", isolation="vm"))
    assert ledger.remembered_engine("docker\0{}") == INFO
    assert ledger.remembered_engine("\udcff/../x") == replace(INFO, engine="podman", isolation="vm")
    assert ledger.remembered_engine("docker") is None


def test_an_isolation_that_is_none(ledger: Ledger, directory: Path) -> None:
    ledger.remember_engine("x", INFO)
    (path,) = (directory / "engines").iterdir()
    path.write_text(json.dumps({**plain(INFO), "isolation": "perfect"}))
    assert ledger.remembered_engine("x") is None


# -- Failures


def test_failures_wait_twice_as_long_each_time(ledger: Ledger) -> None:
    now, waits = NOW, []
    for count in range(1, 12):
        failure = ledger.failed(KEY, "why", now)
        assert ledger.failure(KEY) == failure
        assert (failure.count, failure.last, failure.message) == (count, now, "why")
        waits.append(failure.not_before - now)
        now = failure.not_before
    assert waits[:3] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
    assert ledger.failure(OTHER) is None
    ledger.succeeded(KEY)
    assert ledger.failure(KEY) is None
    assert ledger.failed(KEY, "why", now).count == 1


def test_a_long_message_does_not_damage_the_file(ledger: Ledger) -> None:
    ledger.failed(KEY, "x" * (2 << 20), NOW)
    assert ledger.failure(KEY) is not None


@pytest.mark.parametrize(
    ("failure", "holds"),
    [
        (Failure(1, NOW, "", NOW + 30), True),
        (Failure(1, NOW - 30, "", NOW), False),
        (Failure(1, NOW + 59, "", NOW + 89), True),
        (Failure(1, NOW + 3600, "", NOW + 3630), False),  # the clock was set back
        (Failure(1, NOW - LONGEST_WAIT, "", NOW + 1e9), False),  # nothing waits for years
    ],
)
def test_how_long_a_failure_holds(failure: Failure, holds: bool) -> None:
    assert failure.holds(NOW) == holds


@pytest.mark.parametrize("count", [-5, 10**9])
def test_a_count_that_is_absurd(count: int) -> None:
    assert 0 < Failure(count, NOW, "", NOW).after("", NOW).not_before - NOW <= LONGEST_WAIT


# -- What is left behind


def test_what_killed_processes_left_half_written_is_gone(ledger: Ledger, directory: Path, clock: Clock) -> None:
    ledger.put(slot())
    ledger.want(wanted())
    left = [directory / "slots" / ".x.json.1", directory / "wanted" / ".y", directory / ".journal.jsonl.2"]
    for path in left:
        path.touch()
    (directory / "slots" / "foreign").touch()
    clock.now = left[0].stat().st_mtime + 60
    ledger.trim()
    assert all(path.exists() for path in left)
    clock.now += 3600
    ledger.trim()
    assert not any(path.exists() for path in left)
    assert len(ledger.slots()) == len(ledger.wanted()) == 1
    assert (directory / "slots" / "foreign").exists()


def test_what_is_known_of_an_image_is_forgotten(ledger: Ledger) -> None:
    """It was built anew: a start that came now would get a container of the old one."""
    ledger.want(wanted())
    reference = wanted().recipe.request.image
    ledger.forget_images({"another"})
    assert ledger.wanted() == [wanted()]
    ledger.forget_images({"another", reference})
    assert ledger.wanted() == [wanted(image_id="")]
