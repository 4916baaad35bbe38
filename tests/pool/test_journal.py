"""Hits and misses are counted, whatever became of the file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from container_kernels.pool import journal
from container_kernels.pool.ledger import Counts, Ledger

from .conftest import Clock
from .samples import NOW, recipe
from .test_files import NO_FILE

KEY, OTHER = recipe().key, recipe(template=False).key


def test_hits_and_misses_are_counted(ledger: Ledger, clock: Clock) -> None:
    ledger.note_hit(KEY, 0.04)
    ledger.note_miss(KEY, "expired")
    clock.now += 10
    ledger.note_hit(KEY, 0.05)
    ledger.note_miss(KEY, "expired")
    ledger.note_miss(KEY, "none")
    ledger.note_miss(OTHER, "none")
    assert ledger.counts() == {
        KEY: Counts(2, {"expired": 2, "none": 1}, NOW + 10, 0.05),
        OTHER: Counts(0, {"none": 1}),
    }


LINES = [b"", b"\xff\x00", b"[]", b'{"key": 1, "miss": "x"}', b'{"key": "k"}', b'{"key": "k", "miss": 1}', b"[" * 9999,
         b'{"key": "k", "at": NaN, "seconds": 1}', b'{"key": "k", "at": 1, "seconds": "1"}', b'{"key": "k", "at": 1e999, "seconds": 1}']  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_damaged_line_does_not_count(ledger: Ledger, directory: Path, line: bytes) -> None:
    ledger.note_miss(KEY, "x")
    with (directory / "journal.jsonl").open("ab") as file:
        file.write(line + b"\n")
    ledger.note_miss(KEY, "x")
    assert ledger.counts() == {KEY: Counts(0, {"x": 2})}


@pytest.mark.parametrize("damage", NO_FILE)
def test_a_damaged_journal_hinders_nobody_and_is_removed(ledger: Ledger, directory: Path, damage: str) -> None:
    directory.mkdir(parents=True)
    NO_FILE[damage](directory / "journal.jsonl")
    ledger.note_hit(KEY, 0.1)
    assert ledger.counts() == {}
    ledger.trim()
    ledger.note_miss(KEY, "x")
    assert ledger.counts() == {KEY: Counts(0, {"x": 1})}


def test_a_ledger_that_cannot_be_written_hinders_no_note(directory: Path, ledger: Ledger) -> None:
    directory.parent.mkdir(parents=True)
    directory.symlink_to("/nowhere")
    ledger.note_hit(KEY, 0.1)
    ledger.note_miss(KEY, "x")
    with ledger.start_under_way():
        pass


def test_a_full_journal_keeps_its_latest_half(ledger: Ledger, directory: Path) -> None:
    ledger.note_hit(OTHER, 0.1)
    path = directory / "journal.jsonl"
    line = json.dumps(journal.miss(KEY, "x", NOW)).encode() + b"\n"
    with path.open("ab") as file:
        file.write(line * ((journal.FULL - path.stat().st_size) // len(line)))
    ledger.trim()
    assert OTHER in ledger.counts()
    ledger.note_miss(KEY, "latest")
    ledger.note_miss(KEY, "latest")
    ledger.trim()
    assert journal.FULL // 2 - 200 < path.stat().st_size <= journal.FULL // 2
    assert ledger.counts().keys() == {KEY}
    assert ledger.counts()[KEY].misses["latest"] == 2
    assert all(json.loads(each) for each in path.read_bytes().splitlines())
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_nobody_trims_is_still_read(ledger: Ledger, directory: Path) -> None:
    ledger.note_miss(KEY, "first")
    path = directory / "journal.jsonl"
    os.truncate(path, 1 << 32)
    with path.open("ab") as file:
        file.write(b"\n")
    ledger.note_miss(KEY, "last")
    assert ledger.counts() == {KEY: Counts(0, {"last": 1})}
    ledger.trim()
    assert path.stat().st_size <= journal.FULL // 2


def test_lines_of_several_threads_stay_whole(ledger: Ledger) -> None:
    def note() -> None:
        for _ in range(100):
            ledger.note_miss(KEY, "x" * 500)

    threads = [threading.Thread(target=note) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.counts() == {KEY: Counts(0, {"x" * journal.LONGEST_REASON: 400})}
