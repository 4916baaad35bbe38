"""The pool on disk: what is warm, what is wanted, who has taken what. Any process of the same person may read and write at any time.

A slot is a file in `slots/`, and is claimed by one rename into `claims/`: whoever's rename succeeds has the container, and nobody else ever
will, since a name in `claims/` is taken for as long as it stands there. Also who wants to be rid of a slot claims it first.
No step needs a lock, or somebody to come back: a process that is killed leaves files that others can tell for what they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import re
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ..engines.protocol import NAME_PREFIX, EngineInfo
from ..errors import ContainerKernelError
from ..locks import is_had
from . import journal
from .checked import checked, plain
from .files import HALF_WRITTEN, SAFELY, Damaged, LedgerError, PrivateFiles, erase
from .recipe import guest_digest
from .records import NO_FAILURE, SKEW, Claim, Counts, Failure, Slot, SlotFile, Wanted

SLOTS, CLAIMS, MAKING, WANTED, ENGINES = "slots", "claims", "making", "wanted", "engines"
FAILURES, STARTING, LOCKS = "failures", "starting", "locks"
LAST_START = ("", "last-start")

LONGEST_START = 120.0  # seconds; then its mark is nobody's
CLAIMING = 10.0  # seconds: a claim takes some microseconds
LEFT_BEHIND = 3600.0  # seconds; then what is half made is nobody's

_CONTAINER = re.escape(NAME_PREFIX) + r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_KEY = r"[0-9a-f]{32}"
_SLOT_FILE = re.compile(rf"({_KEY})\.({_CONTAINER})\.json")
_CLAIM_FILE = re.compile(rf"({_CONTAINER})\.json")
_MARK = re.compile(r"([1-9][0-9]{0,9})-[0-9a-f]{32}")

_log = logging.getLogger(__name__)

__all__ = ["Claim", "Counts", "DamagedSlot", "Failure", "Ledger", "LedgerError", "Slot", "SlotFile", "Wanted"]

Record = TypeVar("Record")


class DamagedSlot(LedgerError):
    """A slot is no use to anybody; its container, `name`, is this caller's to remove."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The pool's file of {name} is damaged: {reason}.")
        self.name = name


class Ledger:
    """Every method may raise OSError, or LedgerError for a directory that is not to be trusted: there is no pool then.

    ValueError is for a name that could lead out of the directory.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._files = PrivateFiles(directory)
        self._clock = clock

    @classmethod
    def of_this_user(cls) -> Ledger:
        from jupyter_core.paths import jupyter_runtime_dir

        # A home directory may be shared by machines, and by environments of different releases, whose containers are not for each other.
        ours = f"{platform.node() or 'host'}-{guest_digest()[:12]}"
        return cls(Path(jupyter_runtime_dir()) / "container-kernels" / "pool" / ours)

    def __repr__(self) -> str:
        return f"<Ledger {self._files.directory}>"

    # -- Slots

    def slots(self, fingerprint: str | None = None) -> list[SlotFile]:
        """The oldest first."""
        found = []
        for filename, status in self._files.listing(SLOTS):
            match = _SLOT_FILE.fullmatch(filename)
            if match and fingerprint in (None, match[1]):
                found.append(SlotFile(match[1], match[2], status.st_mtime))
        return found

    def put(self, slot: Slot) -> None:
        """The slot may be claimed. LedgerError for a container that is in the pool, or was taken and not released."""
        file = SlotFile(slot.fingerprint, slot.name, slot.created)
        if not _SLOT_FILE.fullmatch(file.filename):
            raise ValueError(f"{file.filename!r} is no name of a slot")
        if slot.name in (each.name for each in self.slots()) or os.path.lexists(self._claim(slot.name)):
            raise LedgerError(f"The container {slot.name} has been in the pool before.")
        self._files.write(SLOTS, file.filename, plain(slot))

    def peek(self, file: SlotFile) -> Slot | None:
        """The slot, which may be claimed by anybody; None when it is gone. DamagedSlot for one that is to be taken, to be rid of it."""
        try:
            return self._slot(SLOTS, file.filename, file.name)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedSlot(file.name, str(error)) from None

    def take(self, file: SlotFile) -> Slot | None:
        """The slot is this caller's alone; None when somebody else was first. A DamagedSlot is gone from the pool."""
        slot, claim = self._files.path(SLOTS, file.filename), self._files.made(CLAIMS, self._claim(file.name).name)
        try:
            self._files.create(claim)  # a rename alone would not tell that the name is claimed
        except FileExistsError:
            self._clear(file)
            return None
        try:
            os.rename(slot, claim)
        except FileNotFoundError:
            claim.unlink(missing_ok=True)
            return None
        except NotADirectoryError:
            claim.unlink(missing_ok=True)
            erase(slot)
            raise DamagedSlot(file.name, "it is no plain file") from None
        except BaseException:
            claim.unlink(missing_ok=True)
            raise
        try:
            return self._slot(CLAIMS, claim.name, file.name)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                self.release(file.name)
            raise DamagedSlot(file.name, str(error)) from None

    def _clear(self, file: SlotFile) -> None:
        """A slot that nobody can take is gone: its taker died halfway, or a container that is claimed stands in the pool again."""
        slot = self._files.path(SLOTS, file.filename)
        with contextlib.suppress(FileNotFoundError):
            claim = self._claim(file.name).lstat()
            halfway = claim.st_size == 0
            if halfway and self._clock() - claim.st_mtime < CLAIMING:
                return
            erase(slot, missing_ok=False)  # not where the taker comes to life at this moment: its rename was first
            if halfway:
                raise DamagedSlot(file.name, "its taker died")

    def _slot(self, part: str, filename: str, name: str) -> Slot:
        slot = checked(Slot, self._files.read(part, filename))
        if slot.name != name:
            raise Damaged(f"it is the file of {slot.name!r}")
        return slot

    def _claim(self, name: str) -> Path:
        filename = f"{name}.json"
        if not _CLAIM_FILE.fullmatch(filename):
            raise ValueError(f"{name!r} is no name of a container of ours")
        return self._files.path(CLAIMS, filename)

    # -- Claims

    def claimed(self, name: str, kernel_id: str, owner: str) -> None:
        """It is known who uses the container; its secrets are not in the ledger any more."""
        filename, engine, place = self._claim(name).name, "", ""
        with contextlib.suppress(OSError, ValueError):
            slot = self._slot(CLAIMS, filename, name)
            engine, place = str(slot.container.get("engine", "")), slot.place
        self._files.write(CLAIMS, filename, plain(Claim(name, kernel_id, owner, self._clock(), engine, place)))

    def disclaim(self, name: str) -> None:
        """Nothing came of the claim: the container is nobody's, and who fills the pool removes it."""
        claim = self._read_claim(name, self._clock())
        self._files.write(CLAIMS, self._claim(name).name, plain(replace(claim, kernel_id="", owner="")))

    def release(self, name: str) -> None:
        """The container is gone, and the ledger does not know it any more."""
        self._files.remove(CLAIMS, self._claim(name).name)

    def claims(self) -> list[Claim]:
        """The oldest first; of damaged ones, what is known."""
        found = []
        for filename, status in self._files.listing(CLAIMS):
            if match := _CLAIM_FILE.fullmatch(filename):
                found.append(self._read_claim(match[1], status.st_ctime))
        return found

    def _read_claim(self, name: str, since: float) -> Claim:
        try:
            content = self._files.read(CLAIMS, f"{name}.json")
            with contextlib.suppress(ValueError):
                claim = checked(Claim, content)
                return claim if claim.name == name else Claim(name, "", "", since, "", "")
            slot = checked(Slot, content)
            return Claim(name, "", "", since, str(slot.container.get("engine", "")), slot.place)
        except (OSError, ValueError):
            return Claim(name, "", "", since, "", "")

    # -- What is wanted

    def want(self, wanted: Wanted) -> None:
        self._files.write(WANTED, f"{wanted.key}.json", plain(wanted))

    def wanted(self) -> list[Wanted]:
        """Recipes of this version; those of others, and damaged ones, are gone."""
        return [wanted for key in self._keys(WANTED) if (wanted := self.wanted_by(key))]

    def _keys(self, part: str) -> list[str]:
        names = [name for name, _ in self._files.listing(part) if not name.startswith(HALF_WRITTEN)]
        return [key for name in names if re.fullmatch(_KEY, key := name.removesuffix(".json"))]

    def wanted_by(self, key: str) -> Wanted | None:
        wanted = self._record(WANTED, key, Wanted)
        if wanted is not None and wanted.key != key:
            _log.debug("The pool forgets a recipe of another version: %s", key)
            self._drop(WANTED, key)
            return None
        return wanted

    def forget_images(self, references: Collection[str]) -> None:
        """They may be other images now: no start takes what was made of the old ones, until a filler has looked."""
        for wanted in self.wanted():
            if wanted.recipe.request.image in references:
                self.want(replace(wanted, image_id=""))

    def forget(self, key: str) -> None:
        for part in (WANTED, FAILURES):
            self._files.remove(part, _file(key))

    # -- Engines that were found to work

    def remember_engine(self, asked: str, info: EngineInfo) -> None:
        self._files.write(ENGINES, _file(_hashed(asked)), plain(info))

    def remembered_engine(self, asked: str) -> EngineInfo | None:
        return self._record(ENGINES, _hashed(asked), EngineInfo)

    def weaker_engines(self) -> dict[str, EngineInfo]:
        """Those that were taken in place of one with a stronger isolation."""
        known = {key: self._record(ENGINES, key, EngineInfo) for key in self._keys(ENGINES)}
        return {key: info for key, info in known.items() if info is not None and info.instead_of}

    def forget_engine(self, key: str) -> None:
        self._files.remove(ENGINES, _file(key))

    # -- Failures

    def failed(self, key: str, message: str, now: float) -> Failure:
        failure = (self.failure(key) or NO_FAILURE).after(message, now)
        self._files.write(FAILURES, _file(key), plain(failure))
        return failure

    def failure(self, key: str) -> Failure | None:
        return self._record(FAILURES, key, Failure)

    def succeeded(self, key: str) -> None:
        self._files.remove(FAILURES, _file(key))

    def _record(self, part: str, key: str, kind: type[Record]) -> Record | None:
        """None where there is none; a damaged one is gone, too."""
        try:
            return checked(kind, self._files.read(part, _file(key)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            _log.warning("The pool's file %s is damaged, and removed: %s", self._files.path(part, _file(key)), error)
            self._drop(part, key)
            return None

    def _drop(self, part: str, key: str) -> None:
        self._drop_file(part, _file(key))

    def _drop_file(self, part: str, filename: str) -> None:
        with contextlib.suppress(OSError):
            self._files.remove(part, filename)

    # -- Hits and misses; what cannot be noted is no reason to fail

    def note_hit(self, key: str, seconds: float) -> None:
        with _not_needed():
            journal.note(self._files, journal.hit(key, seconds, self._clock()))

    def note_miss(self, key: str, reason: str) -> None:
        with _not_needed():
            journal.note(self._files, journal.miss(key, reason, self._clock()))

    def counts(self) -> dict[str, Counts]:
        return journal.counts(self._files)

    def trim(self) -> None:
        """The journal is short, and what killed processes left half done is gone. For who holds a lock."""
        journal.trim(self._files)
        now = self._clock()
        for part in ("", SLOTS, CLAIMS, MAKING, WANTED, ENGINES, FAILURES):
            for name, status in self._files.listing(part):
                halfway = name.startswith(HALF_WRITTEN) or (part == CLAIMS and status.st_size == 0)
                if halfway and now - status.st_mtime > LEFT_BEHIND:
                    self._files.remove(part, name)
        for name, status in self._files.listing(STARTING):
            if not _is_under_way(name, status, now):
                self._files.remove(STARTING, name)

    # -- Containers that are being made

    def make(self, name: str, engine: str, place: str, owner: str) -> None:
        """Who looks after `owner`'s end knows the container, which is not in the pool yet."""
        claim = Claim(name, "", owner, self._clock(), engine, place)
        self._files.write(MAKING, self._claim(name).name, plain(claim))

    def made(self, name: str) -> None:
        """It is in the pool, or gone."""
        self._files.remove(MAKING, self._claim(name).name)

    def making(self) -> list[Claim]:
        """The oldest first; damaged ones are gone: whoever has them removed by name would remove what is another's."""
        found = []
        for filename, _ in self._files.listing(MAKING):
            if match := _CLAIM_FILE.fullmatch(filename):
                try:
                    claim = checked(Claim, self._files.read(MAKING, filename))
                    if claim.name != match[1]:
                        raise Damaged(f"it is the file of {claim.name!r}")
                    found.append(claim)
                except FileNotFoundError:
                    continue
                except ValueError:
                    self._drop_file(MAKING, filename)
        return found

    # -- Starts under way

    @contextlib.contextmanager
    def start_under_way(self) -> Iterator[None]:
        """Others know that a kernel is being started, and when it was."""
        mark = f"{os.getpid()}-{uuid.uuid4().hex}"
        with _not_needed():
            self._files.create(self._files.made(STARTING, mark))
        try:
            yield
        finally:
            with _not_needed():
                self._files.remove(STARTING, mark)
                self._files.write_bytes(*LAST_START, b"")

    def starts_under_way(self, now: float) -> bool:
        return any(_is_under_way(name, status, now) for name, status in self._files.listing(STARTING))

    def last_start(self) -> float:
        """When a start ended; 0 when there was none."""
        try:
            return self._files.path(*LAST_START).lstat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return 0.0

    def signature(self) -> object:
        """Another one when a kernel was started, or something was put, claimed or wanted since."""
        parts = [self._files.path("", part) for part in (SLOTS, WANTED)]
        return tuple(_modified(path) for path in (*parts, self._files.path(*LAST_START)))

    # -- Locks

    def is_locked(self, name: str) -> bool:
        """Whether somebody has the lock. Who asks is not taken for who has it, by others who ask."""
        with self._lock(name, fcntl.LOCK_SH) as free:
            return not free

    def lock(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """True while nobody else has the lock of that name, in this process or another; False, at once, where somebody has."""
        return self._lock(name, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _lock(self, name: str, how: int) -> Iterator[bool]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
            raise ValueError(f"{name!r} is no name of a lock")
        descriptor = os.open(self._files.made(LOCKS, f"{name}.lock"), os.O_RDWR | os.O_CREAT | SAFELY, 0o600)
        try:
            yield is_had(descriptor, how)
        finally:
            os.close(descriptor)  # the file stays: one that is deleted and made anew would be another lock


def _file(key: str) -> str:
    if not re.fullmatch(_KEY, key):
        raise ValueError(f"{key!r} is no key of a recipe")
    return f"{key}.json"


def _modified(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


@contextlib.contextmanager
def _not_needed() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ContainerKernelError) as error:
        _log.debug("The pool does without: %s", error)


def _is_under_way(name: str, status: os.stat_result, now: float) -> bool:
    """Whether the mark is of a process that runs, and of a start that may still succeed."""
    match = _MARK.fullmatch(name)
    if not match or not stat.S_ISREG(status.st_mode) or not -SKEW <= now - status.st_mtime <= LONGEST_START:
        return False
    try:
        os.kill(int(match[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
