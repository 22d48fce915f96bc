"""
Following many journals: what is new in each, what runs in each, and who has died.

A follower reads plain files and holds none open, so a journal costs nothing between two looks. It is for one
thread. Nothing in a directory can make it raise: what is no journal, or cannot be read now, is counted and passed
over, and tried again later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mppobs.clock import Clock
from mppobs.errors import JournalError
from mppobs.journal.format import RECORD_BYTES
from mppobs.journal.reader import JournalFiles, owner_is_alive, read_head, read_segment_header, read_slots, scan
from mppobs.journal.seal import SealStatus, seal
from mppobs.model import Slot
from mppobs.sidecar.blocks import Block as Block
from mppobs.sidecar.blocks import Cursor as Cursor
from mppobs.sidecar.blocks import read_new
from mppobs.sidecar.blocks import read_range as read_range
from mppobs.sidecar.oom import OomWatch
from mppobs.sidecar.removal import remove_journal, remove_segment

_log = logging.getLogger(__name__)

ABANDONED_SECONDS: Final = 7 * 86400
"""After which a shipped journal that neither grew nor ended makes room: the node of its agent is gone."""
_MISHAPS: Final = 10
"""How many different mishaps of one journal are logged."""
_RETRY_NS: Final = 1_000_000_000
"""How long a file that cannot be read, or a journal that cannot be sealed, is left alone."""


@dataclass(frozen=True, slots=True)
class LiveJournal:
    """What runs in the process that writes one journal."""

    journal: str
    alive: bool
    """Whether its owner was alive at the last look."""
    pid: int
    slots: list[Slot]


@dataclass(slots=True)
class FollowFigures:
    """What a follower counts of itself."""

    unreadable: int = 0
    """Looks at files that are no journal's, or could not be read at the time."""
    sealed_attempts: int = 0
    sealed_jobs: int = 0
    waiting: int = 0
    """Looks at dead journals that could not be sealed for want of room."""


@dataclass(slots=True)
class _Followed:
    """One journal that is being followed."""

    files: JournalFiles
    alive: bool = True
    alive_ns: int = 0
    """When its owner was last seen alive."""
    is_sealed: bool = False
    retry_ns: int = 0
    """Monotonic time before which it is left alone."""
    said: set[str] = field(default_factory=set)
    """What the log has about it."""


class Follower:
    """
    Reads what is new in all the journals of some directories, and seals those whose owner died.

    `cursors` says how far each was read before; a journal that is not there is read from its first segment. Of a
    journal that is in several directories only the copy in the first of them is read.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        cursors: Mapping[str, Cursor],
        *,
        clock: Clock,
        seal: bool,
        figures: FollowFigures | None = None,
    ) -> None:
        self.cursors = dict(cursors)
        """How far each journal is read: after `poll`, past the blocks that it returned."""
        self.figures = figures or FollowFigures()
        self._directories = tuple(directories)
        self._clock = clock
        self._seals = seal
        self._journals: dict[str, _Followed] = {}
        self._turn = 0
        self._oom = OomWatch(clock)

    def poll(self, limit_bytes: int) -> list[Block]:
        """
        Look after every journal, then return what is new, about `limit_bytes` of it, and advance past it.

        Journals take turns to be read first, so that a busy one cannot keep the others waiting. With a limit of 0
        nothing is read, but the dead are sealed.
        """
        self._scan()
        order = [followed for followed in self._journals.values() if self._look(followed)]
        start = self._turn % len(order) if order else 0
        blocks: list[Block] = []
        room = limit_bytes
        for followed in order[start:] + order[:start]:
            if room <= 0:
                break
            self._turn += 1
            for block in self._advance(followed, room):
                blocks.append(block)
                room -= block.words.nbytes
        return blocks

    def live(self) -> list[LiveJournal]:
        """Return what runs now in every journal of this machine that has not ended, by its slots."""
        if not self._journals:
            self._scan()
        found = []
        for followed in self._journals.values():
            head = followed.files.head
            if head is None or self._cursor(followed).ended:
                continue
            try:
                found.append(LiveJournal(followed.files.journal, followed.alive, read_head(head).pid, read_slots(head)))
            except (JournalError, OSError) as error:
                self._pass_over(followed, error)
        return found

    def release(self, cursors: Mapping[str, Cursor]) -> None:
        """
        Delete what lies before the given cursors: what they stand for is safe elsewhere.

        Shipped journals that were abandoned go too. Should their agent come back, it ships the segment again, and
        it is read on from where it was.
        """
        for journal, followed in list(self._journals.items()):
            if (cursor := cursors.get(journal)) is None:
                continue
            for segment in list(followed.files.segments):
                if cursor.ended or segment < cursor.segment:
                    self.delete(journal, segment)
            if followed.files.is_shipped and not cursor.ended and list(followed.files.segments) == [cursor.segment]:
                self._remove_abandoned(followed, followed.files.segments[cursor.segment])

    def delete(self, journal: str, segment: int) -> bool:
        """
        Delete a segment whose records are safe elsewhere; the last one of a journal that ended takes the rest along.

        Returns whether it is gone. Refuses what has not been read to its end, so nothing that an owner may still
        write to is lost, and marks in the slots of a live owner what had its record in there.
        """
        followed = self._journals.get(journal)
        if followed is None or segment not in followed.files.segments:
            return True
        cursor = self._cursor(followed)
        if not cursor.ended and segment >= cursor.segment:
            return False
        try:
            if cursor.ended and len(followed.files.segments) == 1:
                remove_journal(followed.files)
                self.forget(journal)
            else:
                remove_segment(followed.files, segment, ended=cursor.ended)
                del followed.files.segments[segment]
        except (JournalError, OSError) as error:
            # Its records are safe elsewhere: it only takes room until the next call.
            self._pass_over(followed, error)
            return False
        return True

    def _remove_abandoned(self, followed: _Followed, last: Path) -> None:
        try:
            if self._clock.time_ns() / 1e9 - last.stat().st_mtime > ABANDONED_SECONDS:
                last.unlink()
                self.forget(followed.files.journal)
        except OSError as error:
            # It only takes room until the next call.
            self._pass_over(followed, error)

    def forget(self, journal: str) -> None:
        """
        Follow a journal no longer, until its files are seen again.

        How far it was read stays known, unless it ended: nobody writes to it again.
        """
        self._journals.pop(journal, None)
        self._oom.forget(journal)
        if journal in self.cursors and self.cursors[journal].ended:
            del self.cursors[journal]

    def rewind(self, journal: str, cursor: Cursor) -> None:
        """Read a journal again from a place, or go on from a later one."""
        self.cursors[journal] = cursor

    def pause(self, journal: str, duration_ns: int) -> None:
        """Leave a journal alone for a while."""
        if (followed := self._journals.get(journal)) is not None:
            followed.retry_ns = self._clock.monotonic_ns() + duration_ns

    def _scan(self) -> None:
        """Take note of the journals that there are, and of their files."""
        seen: dict[str, JournalFiles] = {}
        for directory in self._directories:
            try:
                found = scan(directory)
            except OSError as error:
                # Counted, and tried again at the next poll: what is followed there stays as it was.
                self.figures.unreadable += 1
                _log.warning("%s cannot be read: %s", directory, error)
                found = [each.files for each in self._journals.values() if each.files.directory == directory]
            for files in found:
                seen.setdefault(files.journal, files)
        for journal in self._journals.keys() - seen.keys():
            self.forget(journal)
        for journal, files in seen.items():
            if (followed := self._journals.get(journal)) is None:
                self._journals[journal] = _Followed(files)
            else:
                followed.files = files

    def _cursor(self, followed: _Followed) -> Cursor:
        """Return how far a journal is read; one that is new begins at its first segment."""
        known = self.cursors.get(followed.files.journal)
        return known or Cursor(min(followed.files.segments, default=0), 0)

    def _look(self, followed: _Followed) -> bool:
        """See whether the owner lives, and seal the journal if it does not. Returns whether to read it now."""
        if self._cursor(followed).ended or self._clock.monotonic_ns() < followed.retry_ns:
            return False
        try:
            followed.alive = owner_is_alive(followed.files)
            if followed.alive:
                followed.alive_ns = self._clock.time_ns()
                self._oom.watch(followed.files)
            elif self._seals and not followed.is_sealed and not followed.files.is_shipped:
                self._seal(followed)
        except (JournalError, OSError) as error:
            self._pass_over(followed, error)
            return False
        return True

    def _seal(self, followed: _Followed) -> None:
        report = seal(followed.files, clock=self._clock, oom_kills=self._oom.kills, alive_ns=followed.alive_ns)
        followed.is_sealed = report.status is SealStatus.SEALED
        self.figures.sealed_attempts += report.attempts
        self.figures.sealed_jobs += report.jobs
        self.figures.waiting += report.status is SealStatus.WAITING

    def _advance(self, followed: _Followed, room: int) -> list[Block]:
        """Return what is new in one journal, and move its cursor."""
        blocks: list[Block] = []
        try:
            while room > 0:
                block = self._next_block(followed, room // RECORD_BYTES)
                if block is not None:
                    blocks.append(block)
                    room -= block.words.nbytes
                elif not self._next_segment(followed):
                    break
        except (JournalError, OSError) as error:
            self._pass_over(followed, error)
        return blocks

    def _next_block(self, followed: _Followed, limit: int) -> Block | None:
        """Return the next block of the segment that is being read, or `None` where it has no more for now."""
        journal, cursor = followed.files.journal, self._cursor(followed)
        path = followed.files.segments.get(cursor.segment)
        if path is None or cursor.ended:
            return None
        try:
            found = read_new(path, cursor.record, limit, live=followed.alive)
        except JournalError as error:
            self._pass_over(followed, error)
            return None
        if not len(found.words):
            return None
        self.cursors[journal] = Cursor(cursor.segment, found.first + len(found.words), found.has_end)
        return Block(journal, cursor.segment, found.first, found.words)

    def _next_segment(self, followed: _Followed) -> bool:
        """
        Go on to the next segment if there is one and this one is done with. Returns whether it did.

        A live owner fills up a segment before it leaves it. A dead one, or an agent that ships, is done with a
        segment when there is a next one, which the caller saw before it read the last of this one.
        """
        cursor = self._cursor(followed)
        later = [segment for segment in followed.files.segments if segment > cursor.segment]
        path = followed.files.segments.get(cursor.segment)
        if cursor.ended or not later:
            return False
        if followed.alive and path is not None and not self._is_full(followed, path, cursor):
            return False
        self.cursors[followed.files.journal] = Cursor(min(later), 0)
        return True

    def _is_full(self, followed: _Followed, path: Path, cursor: Cursor) -> bool:
        """Return whether every record that the owner may write to a segment has been read."""
        return cursor.record >= read_segment_header(path).owner_places

    def _pass_over(self, followed: _Followed, error: Exception) -> None:
        """Leave a journal alone for a while. The log has each of its mishaps once."""
        self.pause(followed.files.journal, _RETRY_NS)
        self.figures.unreadable += 1
        if str(error) not in followed.said and len(followed.said) < _MISHAPS:
            followed.said.add(str(error))
            _log.warning("journal %s: %s", followed.files.journal, error)
