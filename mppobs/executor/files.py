"""
Where exchanged data lies, and how an attempt's output takes its place there: at once, and once.

    <directory>/<run>/             one executor's data; `<run>.lock` is held as long as the executor lives
      <job>/attempts/<name>/       what one attempt writes, until it is done
      <job>/<stage>/<shard>/       the committed output of a shard

An attempt commits by renaming its directory to its shard's. A rename onto a directory with files in it fails, so the
first attempt wins and any later one sees that it lost. Nothing is forced to disk: exchanged data is worth nothing
after the machine went down, and the page cache keeps it when processes are killed.

This module is the only one that knows paths; storage other than local directories would come in here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mppobs.errors import ConfigError

DATA_NAME: Final = "data.exchange"
_LOCK_SUFFIX: Final = ".lock"
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The directories of one job. A value: workers make their own from its path."""

    root: Path

    def prepare(self, stages: int) -> None:
        """Make the job's directories."""
        for index in range(stages):
            (self.root / str(index)).mkdir(parents=True)
        (self.root / "attempts").mkdir()

    def attempt(self, stage: int, shard: int, number: int) -> Path:
        """Return the directory in which an attempt writes."""
        return self.root / "attempts" / f"{stage}-{shard}-{number}"

    def shard(self, stage: int, shard: int) -> Path:
        """Return the directory of a shard's committed output."""
        return self.root / str(stage) / str(shard)

    def data(self, stage: int, shard: int) -> Path:
        """Return the file of a shard's committed output."""
        return self.shard(stage, shard) / DATA_NAME

    def begin(self, stage: int, shard: int, number: int) -> Path:
        """Return the file that an attempt is to write, in a new directory of its own."""
        directory = self.attempt(stage, shard, number)
        # Left by an earlier attempt of that number whose worker died before it could say that it had begun.
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory / DATA_NAME

    def commit(self, stage: int, shard: int, number: int) -> bool:
        """Put an attempt's output in its shard's place; return whether it was the first."""
        try:
            self.attempt(stage, shard, number).rename(self.shard(stage, shard))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def discard(self, stage: int, shard: int, number: int) -> None:
        """Remove what an attempt wrote that came to nothing; the job's end removes what this cannot."""
        shutil.rmtree(self.attempt(stage, shard, number), ignore_errors=True)

    def remove(self) -> None:
        """Remove everything of the job."""
        shutil.rmtree(self.root, ignore_errors=True)


class Workspace:
    """
    One executor's part of a directory that several may share.

    Removes what dead executors left there; `close` removes its own. Raises `ConfigError` where the directory is of no
    use.
    """

    def __init__(self, directory: str | os.PathLike[str] | None) -> None:
        """Take a place below `directory`, or in a temporary directory of its own."""
        self._temporary = tempfile.mkdtemp(prefix="mppobs-exchange-") if directory is None else ""
        base = Path(directory or self._temporary).absolute()
        self.root = base / f"run-{uuid.uuid4().hex}"
        try:
            base.mkdir(parents=True, exist_ok=True)
            _remove_dead(base)
            self._lock = _take_lock(_lock_of(self.root), create=True)
            self.root.mkdir()
        except OSError as error:
            raise ConfigError(f"no room for exchanged data in {base}: {error.strerror}") from error

    def job(self, key: str, stages: int) -> JobFiles:
        """Return the directories of a new job."""
        files = JobFiles(self.root / key)
        files.prepare(stages)
        return files

    def close(self) -> None:
        """Remove everything and let go of the place. May be called twice."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self._lock is not None:
            _lock_of(self.root).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _lock_of(run: Path) -> Path:
    return run.with_name(run.name + _LOCK_SUFFIX)


def _take_lock(path: Path, *, create: bool) -> int | None:
    """Return the descriptor of a file whose lock is now held, or `None` where another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _remove_dead(base: Path) -> None:
    """Remove the data of runs whose executor is gone: those whose lock is free."""
    for lock in base.glob(f"run-*{_LOCK_SUFFIX}"):
        try:
            handle = _take_lock(lock, create=False)
        except FileNotFoundError:  # its owner, or another executor, was faster
            continue
        if handle is not None:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(handle)
