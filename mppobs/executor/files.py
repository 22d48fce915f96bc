"""
Where a job's exchanged data lies, and how an attempt's output takes its place there: at once, and once.

    <root>/attempts/<name>/         what one attempt writes, until it is done
    <root>/<stage>/<shard>/         the committed output of a shard

On a file system, an attempt commits by renaming its directory to its shard's. A rename onto a directory with files in
it fails, so the first attempt wins and any later one sees that it lost. Nothing is forced to disk: exchanged data is
worth nothing after the machine went down, and the page cache keeps it when processes are killed. Stores of objects,
which rename nothing, are in `mppobs.executor.objects`. These two modules are the only ones that know the paths.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from mppobs.executor.exchange import ExchangeError, ExchangeReader, Output, opened

DATA_NAME: Final = "data.exchange"
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class Files(Protocol):
    """The exchanged data of one job, on some storage. A value: workers make their own from its root."""

    def prepare(self, stages: int) -> None:
        """Make room for a new job."""
        ...

    def create(self, stage: int, shard: int, number: int) -> AbstractContextManager[BinaryIO]:
        """Open a new file for an attempt to write; it is whole when the block ends."""
        ...

    def commit(self, stage: int, shard: int, number: int) -> Output | None:
        """
        Put what an attempt wrote in its shard's place, and return `None` if it was the first.

        Else return what is in that place. Damaged output of an earlier attempt does not hold the place.
        """
        ...

    def discard(self, stage: int, shard: int, number: int) -> None:
        """Remove what an attempt wrote that came to nothing; the job's end removes what this cannot."""
        ...

    def opened(self, stage: int, shard: int) -> AbstractContextManager[ExchangeReader]:
        """Open a shard's committed output. Raises `ExchangeError`."""
        ...

    def committed(self, stage: int) -> dict[int, Output]:
        """Return the shards of a stage whose output is in place, and what it is. Damaged output is removed."""
        ...

    def drop(self, stage: int, shard: int) -> None:
        """Remove a shard's committed output, so that another attempt can take its place."""
        ...

    def remove(self) -> None:
        """Remove everything of the job."""
        ...


def open_files(root: str | Path, fence: int = 0) -> Files:
    """Return the data at a root: a path of this machine, or a URL that `fsspec` knows."""
    if "://" in str(root):
        # Imported here: workers whose data is local have no use for it.
        from mppobs.executor.objects import ObjectFiles

        return ObjectFiles(str(root), fence)
    return JobFiles(Path(root), fence)


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The directories of one job on a file system."""

    root: Path
    fence: int = 0
    """Which coordinator the attempts belong to: those of two may have the same number."""

    def prepare(self, stages: int) -> None:
        """Make the job's directories."""
        for index in range(stages):
            (self.root / str(index)).mkdir(parents=True, exist_ok=True)
        (self.root / "attempts").mkdir(exist_ok=True)

    def attempt(self, stage: int, shard: int, number: int) -> Path:
        """Return the directory in which an attempt writes."""
        return self.root / "attempts" / f"{self.fence}-{stage}-{shard}-{number}"

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

    def create(self, stage: int, shard: int, number: int) -> AbstractContextManager[BinaryIO]:
        """Open a new file for an attempt to write."""
        return self.begin(stage, shard, number).open("xb")

    def commit(self, stage: int, shard: int, number: int) -> Output | None:
        """Put an attempt's output in its shard's place; return what is there if another was the first."""
        while not self._rename(stage, shard, number):
            try:
                with opened(self.data(stage, shard)) as reader:
                    return reader.output()
            except ExchangeError:
                self.drop(stage, shard)
        return None

    def _rename(self, stage: int, shard: int, number: int) -> bool:
        try:
            self.attempt(stage, shard, number).rename(self.shard(stage, shard))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def discard(self, stage: int, shard: int, number: int) -> None:
        """Remove what an attempt wrote that came to nothing."""
        shutil.rmtree(self.attempt(stage, shard, number), ignore_errors=True)

    @contextmanager
    def opened(self, stage: int, shard: int) -> Iterator[ExchangeReader]:
        """Open a shard's committed output. Raises `ExchangeError`."""
        with opened(self.data(stage, shard)) as reader:
            yield reader

    def committed(self, stage: int) -> dict[int, Output]:
        """Return the shards of a stage whose output is in place, and what it is."""
        found: dict[int, Output] = {}
        for place in (self.root / str(stage)).iterdir():
            try:
                with opened(place / DATA_NAME) as reader:
                    found[int(place.name)] = reader.output()
            except ExchangeError:
                self.drop(stage, int(place.name))
        return found

    def drop(self, stage: int, shard: int) -> None:
        """Remove a shard's committed output."""
        shutil.rmtree(self.shard(stage, shard), ignore_errors=True)

    def remove(self) -> None:
        """Remove everything of the job."""
        shutil.rmtree(self.root, ignore_errors=True)
