"""
Directories of jobs that several executors may share, and who may work in each of them: one coordinator at a time.

    <directory>/job-<id>/lock             held by the coordinator as long as it lives, where the kernel keeps locks
    <directory>/job-<id>/lease-<n>        made by its n-th coordinator, and touched every second: its heartbeat
    <directory>/job-<id>/decisions-<n>    what that one decided (`mppobs.executor.decisions`)
    <directory>/job-<id>/ended            there when only the answer is left to be read
    <directory>/job-<id>/...              exchanged data (`mppobs.executor.files`), unless that is elsewhere

A coordinator is dead when its lock is free: the kernel frees it at any death, at once. Where locks are not to be
trusted (a network file system) or the coordinator hangs, it is taken for dead when its lease is as old as it said. The
next one makes the lease with the next number, which only one can; a coordinator that finds a higher number than its own
lets go of the job. Nothing it did meanwhile does harm: its decisions are in a file of its own, and output is committed
by a rename that only the first attempt can make, whoever gave it out.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from mppobs.errors import ConfigError, MppobsError
from mppobs.journal.mounts import require_local

_LEASE: Final = re.compile(r"lease-(\d+)")
_PREFIX: Final = "job-"
_NEW_NS: Final = 60_000_000_000
"""How long a directory may take to become a job's; one that is older was left by a crash."""
_GRACE_NS: Final = 1_000_000_000
"""How long the maker of a lease may take to say what is in it."""


class LeaseLostError(MppobsError):
    """Raised where a coordinator finds that another has taken its job over."""


class Lease(NamedTuple):
    """What the newest lease of a job says."""

    fence: int
    """Its number: 0 where there is none."""
    holder: str
    locked: bool
    """Whether its holder has the kernel's lock, too."""
    renewed_ns: int
    """Wall time."""
    lasts_ns: int

    def is_over(self, now_ns: int) -> bool:
        """Return whether its holder has not renewed it for as long as it lasts."""
        return now_ns - self.renewed_ns >= self.lasts_ns


@dataclass
class JobPlace:
    """One job's directory, held by this process."""

    directory: Path
    fence: int
    """How many coordinators the job has had, this one included."""
    before: Lease
    """The lease of the one before."""
    _lock: int
    _lease: int

    @property
    def held(self) -> bool:
        """Return whether it has not been released."""
        return self._lease >= 0

    @property
    def holder(self) -> str:
        """Return the host and the process that hold it."""
        return _self()

    @property
    def decisions(self) -> Path:
        """Return the file of this coordinator's decisions."""
        return self.directory / f"decisions-{self.fence:06}"

    def earlier_decisions(self) -> list[Path]:
        """Return the files of the coordinators before this one, oldest first."""
        return [path for path in _entries(self.directory, "decisions-") if path < self.decisions]

    def renew(self, now_ns: int) -> None:
        """Say that the coordinator is alive. Raises `LeaseLostError` where another has taken over."""
        os.utime(self._lease, ns=(now_ns, now_ns))
        self.check()

    def check(self) -> None:
        """Raise `LeaseLostError` where another has taken over."""
        if (self.directory / f"lease-{self.fence + 1:06}").exists() or not self.directory.exists():
            raise LeaseLostError(f"{self.directory} has another coordinator than number {self.fence}")

    def mark_ended(self) -> None:
        """Say that the job has ended: nobody else has to do with it while this process lives."""
        if self.held:
            (self.directory / "ended").touch()

    def release(self) -> None:
        """Let go of the place and leave it as it is. May be called twice."""
        for handle in (self._lock, self._lease):
            if handle >= 0:
                os.close(handle)
        self._lock = self._lease = -1

    def remove(self) -> None:
        """Remove everything, and let go. May be called twice."""
        if self.held:
            _remove_tree(self.directory)
        self.release()


class Workspace:
    """
    A directory of jobs. Raises `ConfigError` where it is of no use.

    Opening it removes what is left of jobs that nobody can go on with: those that had ended, or whose lease is over.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, lease: float) -> None:
        """Open `directory`, or one for temporary data; jobs made here have a lease of so many seconds."""
        self.temporary = directory is None
        """Whether nobody else is to come back to what is here."""
        self.base = _temporary_directory() if directory is None else Path(directory).absolute()
        self._lasts_ns = int(lease * 1e9)
        try:
            self.base.mkdir(parents=True, exist_ok=True)
            self._locks = _is_local(self.base)
            self._remove_dead()
        except OSError as error:
            raise ConfigError(f"no room for exchanged data in {self.base}: {error.strerror}") from error

    def create(self) -> JobPlace:
        """Return a new place for a job."""
        name = uuid.uuid4().hex
        hidden, directory = self.base / f".new-{name}", self.base / f"{_PREFIX}{name}"
        hidden.mkdir()
        place = self.take(hidden)
        assert place is not None, "nobody else knows of it"
        # Only now, when it is locked, does anybody else take it for a job.
        hidden.rename(directory)
        place.directory = directory
        return place

    def places(self) -> Iterator[Path]:
        """Yield the directories of all jobs, oldest first."""
        yield from sorted(self.base.glob(f"{_PREFIX}*"), key=lambda path: (_made(path), path))

    def take(self, directory: Path, *, hung: bool = True) -> JobPlace | None:
        """
        Return the place of a job whose coordinator is dead, now held here; `None` while somebody holds it.

        One that lives and has not renewed its lease is taken for dead, unless `hung` says to let it be.
        """
        try:
            lock = _locked(directory / "lock") if self._locks else -1
        except FileNotFoundError:  # it ended, and was removed
            return None
        lease = newest_lease(directory)
        patient = lease.locked and (not hung or (directory / "ended").exists())
        over = lease.is_over(time.time_ns()) and not patient
        dead = lease.fence == 0 or over or (lease.locked and lock is not None)
        handle = _next_lease(directory, lease.fence + 1, lock is not None, self._lasts_ns) if dead else None
        if handle is None:
            if lock is not None and lock >= 0:
                os.close(lock)
            return None
        return JobPlace(directory, lease.fence + 1, lease, -1 if lock is None else lock, handle)

    def close(self) -> None:
        """Remove the directory if it was for temporary data and is empty. May be called twice."""
        if self.temporary:
            with suppress(OSError):  # others use it, too
                self.base.rmdir()

    def _remove_dead(self) -> None:
        for left in self.base.glob(".gone-*"):
            shutil.rmtree(left, ignore_errors=True)
        long_ago = time.time_ns() - _NEW_NS
        unborn = [path for path in self.base.glob(".new-*") if _made(path) < long_ago]
        for directory in (*unborn, *self.places()):
            lease = newest_lease(directory)
            resumable = lease.fence and bool(_entries(directory, "decisions-")) and not lease.is_over(time.time_ns())
            if not resumable:
                place = self.take(directory, hung=False)
                if place is not None:
                    place.remove()


def newest_lease(directory: Path) -> Lease:
    """Return what the newest lease of a job says; one with number 0 where there is none."""
    numbers = [int(found[1]) for path in _entries(directory, "lease-") if (found := _LEASE.fullmatch(path.name))]
    if not numbers:
        return Lease(0, "", False, 0, 0)
    path = directory / f"lease-{max(numbers):06}"
    try:
        renewed_ns = path.stat().st_mtime_ns
        said = json.loads(path.read_text())
    except FileNotFoundError:  # it ended meanwhile
        return Lease(0, "", False, 0, 0)
    except ValueError:
        # Its maker has not yet written what it has to say, or died before it could; the next look will tell.
        return Lease(max(numbers), "", False, renewed_ns, _GRACE_NS)
    return Lease(max(numbers), said["holder"], said["locked"], renewed_ns, said["lasts_ns"])


def _next_lease(directory: Path, fence: int, locked: bool, lasts_ns: int) -> int | None:
    """Make a lease and return its descriptor, or `None` where another coordinator was faster or the job has ended."""
    path = directory / f"lease-{fence:06}"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except (FileExistsError, FileNotFoundError):
        return None
    os.write(handle, json.dumps({"holder": _self(), "locked": locked, "lasts_ns": lasts_ns}).encode())
    return handle


def _self() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _locked(path: Path) -> int | None:
    """Return the descriptor of a file whose lock is now held, or `None` where another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    if os.fstat(handle).st_nlink == 0:  # its owner removed it between the two calls
        os.close(handle)
        raise FileNotFoundError(path)
    return handle


def _is_local(directory: Path) -> bool:
    """Return whether the kernel alone knows who holds a lock there."""
    try:
        require_local(directory)
    except MppobsError:
        return False
    return True


def _temporary_directory() -> Path:
    """
    Return a directory that all executors of this user share, where a crash leaves what the next one finds and removes.

    Where somebody else has one of that name, it is a new one.
    """
    path = Path(tempfile.gettempdir()) / f"mppobs-exchange-{os.getuid()}"
    with suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    return Path(tempfile.mkdtemp(prefix="mppobs-exchange-"))


def _remove_tree(directory: Path) -> None:
    """Remove a job's directory, which nobody sees half removed."""
    gone = directory.with_name(f".gone-{directory.name.removeprefix('.')}")
    with suppress(FileNotFoundError):  # somebody else has removed it
        directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _entries(directory: Path, prefix: str) -> list[Path]:
    """Return what is in a job's directory under names that begin so, sorted; nothing where the job ended meanwhile."""
    try:
        return sorted(directory / name for name in os.listdir(directory) if name.startswith(prefix))
    except FileNotFoundError:
        return []


def _made(path: Path) -> int:
    try:
        return path.stat().st_ctime_ns
    except FileNotFoundError:
        return 0
