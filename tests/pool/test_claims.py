"""Who has a container that was in the pool; and that processes which race for slots, or are killed, take each at most once."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from container_kernels.pool.ledger import Claim, Ledger

from .conftest import Clock
from .samples import IMAGE, NOW, PLACE, recipe, slot
from .test_files import DAMAGES

FINGERPRINT = recipe().fingerprint(IMAGE)


def test_who_uses_a_container(ledger: Ledger, directory: Path, clock: Clock) -> None:
    ledger.put(slot())
    ledger.take(ledger.slots()[0])
    (claim,) = ledger.claims()
    assert claim == Claim(slot().name, "", "", claim.since, "docker", PLACE)
    assert abs(claim.since - time.time()) < 60
    clock.now += 5
    ledger.claimed(slot().name, "kernel", "7:8:here")
    assert ledger.claims() == [Claim(slot().name, "kernel", "7:8:here", NOW + 5, "docker", PLACE)]
    assert "secret-1" not in (directory / "claims" / f"{slot().name}.json").read_text()
    ledger.release(slot().name)
    ledger.release(slot().name)
    assert ledger.claims() == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_claim_the_name_is_known(ledger: Ledger, directory: Path, damage: str) -> None:
    ledger.claimed(slot(2).name, "kernel", "owner")
    DAMAGES[damage](directory / "claims" / f"{slot(1).name}.json")
    claims = {claim.name: claim for claim in ledger.claims()}
    assert claims.keys() == {slot(1).name, slot(2).name}
    assert claims[slot(1).name] == Claim(slot(1).name, "", "", claims[slot(1).name].since, "", "")
    ledger.release(slot(1).name)
    assert [claim.name for claim in ledger.claims()] == [slot(2).name]


def test_a_claim_of_another_name_says_nothing(ledger: Ledger, directory: Path) -> None:
    ledger.claimed(slot(2).name, "kernel", "owner")
    (directory / "claims" / f"{slot(2).name}.json").rename(directory / "claims" / f"{slot(1).name}.json")
    (claim,) = ledger.claims()
    assert (claim.name, claim.kernel_id, claim.owner) == (slot(1).name, "", "")


def test_a_claim_that_is_lost_can_be_told_again(ledger: Ledger) -> None:
    ledger.claimed(slot().name, "kernel", "owner")
    assert ledger.claims() == [Claim(slot().name, "kernel", "owner", NOW, "", "")]


# -- Several processes


TAKER = """
import sys, pathlib
from container_kernels.pool.ledger import Ledger
ledger = Ledger(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
input()
while True:
    for file in ledger.slots(sys.argv[2]):
        if (slot := ledger.take(file)) is not None:
            print(slot.name, flush=True)
    if (ledger._files.directory / "done").exists() and not ledger.slots():
        break
"""


def taker(directory: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", textwrap.dedent(TAKER), str(directory), FINGERPRINT]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_processes_that_race_take_each_slot_once(ledger: Ledger, directory: Path) -> None:
    """Half of the slots are there when they begin, half are put while they take."""
    for number in range(100):
        ledger.put(slot(number))
    processes = [taker(directory) for _ in range(4)]
    for process in processes:
        begin(process)
    for number in range(100, 200):
        ledger.put(slot(number))
    (directory / "done").touch()
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    taken = [name for output in outputs for name in output]
    assert all(process.returncode == 0 for process in processes)
    assert sorted(taken) == sorted(slot(number).name for number in range(200))
    assert sum(1 for output in outputs if output) > 1, "there was no race"
    assert ledger.slots() == []
    assert len(ledger.claims()) == 200


def test_a_taker_that_is_killed_loses_no_slot(ledger: Ledger, directory: Path) -> None:
    for number in range(300):
        ledger.put(slot(number))
    told: list[str] = []
    while len(ledger.slots()) > 100:
        process = taker(directory)
        begin(process)
        assert process.stdout
        told += [process.stdout.readline().strip() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        told += process.communicate(timeout=60)[0].split()
    left, claimed = [file.name for file in ledger.slots()], [claim.name for claim in ledger.claims()]
    assert set(left) | set(claimed) == {slot(number).name for number in range(300)}
    assert len(told) == len(set(told))
    assert set(told) <= set(claimed)
    assert not set(told) & set(left)
