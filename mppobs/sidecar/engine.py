"""
The engine: journals in, committed numbers out, round by round, and the same again after a kill at any instant.

One thread calls `tick`. Everything that is shown is read under `Engine.lock`, which is held from the moment that a
round begins to change the numbers until its commit: what is seen has been committed. A commit that fails is undone
by going back to the one before, the way a new process would.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mppobs.clock import Clock
from mppobs.model import JobKey
from mppobs.sidecar.archive import Archive, select_shards, shard_table
from mppobs.sidecar.decide import decisions
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.follow import Block, Cursor, Follower, FollowFigures, LiveJournal
from mppobs.sidecar.own import OwnJournal
from mppobs.sidecar.pace import EngineSettings, Pace
from mppobs.sidecar.quarantine import Quarantine
from mppobs.sidecar.reading import ShardQuery, ShardRow
from mppobs.sidecar.recovery import recover
from mppobs.sidecar.running import DecidedJob
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_keeper import SloKeeper
from mppobs.sidecar.store import Checkpoint, Commit, Range, Round, Store
from mppobs.sidecar.store_jobs import MAX_PAGE, JobPage, JobQuery, JobSummary
from mppobs.sidecar.store_schema import StoreError, StoreFull
from mppobs.sidecar.store_totals import Totals
from mppobs.sidecar.summaries import decided_summary, job_signs, running_summary

_log = logging.getLogger(__name__)

_DAY_NS: Final = 86_400 * 1_000_000_000
_LAST_TICKS: Final = 1000
"""Rounds that a stop waits for at the most, so that writers who never rest cannot hold it up."""


@dataclass(slots=True)
class EngineFigures:
    """What the engine counts of itself since the process began."""

    commits: int = 0
    records: int = 0
    fold_ns: int = 0
    """Time spent folding and committing."""
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    """Size of the newest."""
    archived_shards: int = 0
    refused: int = 0
    """Rounds that could not be committed and were undone."""
    unreadable: int = 0
    """Records that were folded before a restart and were gone after it."""
    failed_hooks: int = 0
    quarantined: int = 0
    """Times that a journal was left alone because rounds failed on it."""
    unarchived: int = 0
    """Jobs whose shards could not be archived, for another reason than want of room."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether numbers are moving, and if not, why not."""

    ok: bool = True
    message: str = ""
    since_ns: int = 0


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one tick did."""

    records: int = 0
    more: bool = False
    """Whether there is likely more to read at once."""
    decided: int = 0
    """Jobs that were judged."""
    committed: bool = True
    """`False` where the round was undone for want of room."""


Hook = Callable[[Sequence[DecidedJob]], None]


class Engine:
    """
    The aggregator without its network side.

    Making one recovers the state of the last commit; then `tick` or `run` from one thread. `fold`, `live`,
    `figures` and `health` are for readers that hold `lock`. `directories` are followed: the workers', the spool, and
    the one of `own`. `shipped_live` gives what agents last said of their workers. Hooks are called with the jobs of
    a round after its commit; one that raises is counted and logged, and a kill in between loses its call, so they
    are for what may be lost, such as spans. What `slos` count is committed with each round.
    Raises `StoreError` where the store cannot be trusted.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        clock: Clock,
        store: Store,
        archive: Archive,
        own: OwnJournal,
        directories: Sequence[Path],
        make_fold: Callable[[], Fold],
        shipped_live: Callable[[], Sequence[LiveJournal]] = tuple,
        hooks: Sequence[Hook] = (),
        slos: SloBook | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.archive = archive
        self.lock = threading.RLock()
        self.figures = EngineFigures()
        self.follow_figures = FollowFigures()
        self.live: Sequence[LiveJournal] = ()
        self._clock = clock
        self._own = own
        self._directories = directories
        self._make_fold = make_fold
        self._shipped_live = shipped_live
        self._hooks = hooks
        self.slos = slos or SloBook()
        self._slo_keeper = SloKeeper(store, self.slos)
        self._pace = Pace(settings, clock)
        self._quarantine = Quarantine(settings.poll_bytes, clock)
        self._up_since_ns = self._caught_up_ns = clock.time_ns()
        self.recover()

    def recover(self) -> None:
        """Go back to the last commit. Raises `StoreError` where the store cannot be trusted."""
        with self.lock:
            found = recover(self.store, self._make_fold, self._directories)
            self.fold = found.fold
            self._follower = self._follow(found.loaded.cursors)
            self._cursors = dict(found.loaded.cursors)
            self._round = found.loaded.round
            self._time_ns = found.loaded.time_ns
            self._slo_keeper.recover(self.fold, max(self._clock.time_ns(), self._time_ns))
            self.figures.unreadable += found.unreadable
            self._pace.restart(found.loaded.rounds)
            self._say(ok=True, message=f"{found.unreadable} records of running jobs are gone" * bool(found.unreadable))

    def tick(self) -> TickReport:
        """
        Read, fold and commit what is there, decide what is due, and tidy up.

        What runs is looked at before the journals are read: an attempt that no longer runs then has its record
        where the reading finds it, so no job is judged between the two.
        """
        began_ns = self._clock.time_ns()
        if not self._has_room():
            return TickReport(committed=False)
        live = [*self._shipped_live(), *self._follower.live()] if self._pace.look_due() else None
        limit = self._quarantine.limit_bytes
        blocks = self._follower.poll(limit)
        try:
            report = self._fold_and_commit(blocks, limit) if blocks else TickReport()
        except StoreError:
            raise
        except Exception:
            self._blame(blocks)
            raise
        if not report.committed:
            return report
        if live is not None:
            self._look(live, decide=not report.more)
        if not report.more:
            self._caught_up_ns = began_ns
        if self._pace.checkpoint_due():
            self.checkpoint()
        if self._pace.maintenance_due():
            self._maintain()
        return report

    def run(self, stop: threading.Event) -> None:
        """
        Tick until told to stop, then read what is left, checkpoint and return.

        An error that is not the store's own is logged, shown in `health` and undone; then it goes on. Raises
        `StoreError` where the store can no longer be trusted: nothing is counted after that.
        """
        while not stop.is_set():
            try:
                report = self.tick()
            except StoreError as error:
                self._say(ok=False, message=str(error))
                raise
            except Exception as error:  # whatever a hostile or damaged journal provokes must not end the service
                _log.exception("a round failed and is undone")
                self._undo(f"{type(error).__name__}: {error}")
                report = TickReport(committed=False)
            stop.wait(self._pace.pause(records=report.records, more=report.more))
        self.finish()

    def finish(self) -> None:
        """Decide nothing more, fold what is there, and leave a checkpoint, so that the next start is quick."""
        self._own.close()
        for _ in range(_LAST_TICKS):
            report = self.tick()
            if not report.committed or not report.records:
                break
        if self._pace.has_folded:
            self.checkpoint()

    def close(self) -> None:
        """Close the own journal and the store; the lock on the state directory is free then."""
        self._own.close()
        self.store.close()

    def checkpoint(self) -> None:
        """Save the state of what runs; then let go the segments and rounds that it makes unnecessary."""
        point = Checkpoint(self._round, dict(self._cursors), self.fold.dump_running())
        try:
            size = self.store.checkpoint(point, self._time_ns)
        except StoreFull as error:
            _log.warning("%s", error)
            self._pace.checkpointed(None)
            return
        self._pace.checkpointed(size)
        self.figures.checkpoints += 1
        self.figures.checkpoint_bytes = size
        self._follower.release(point.cursors)

    def jobs(self, query: JobQuery, *, running: bool = True, finished: bool = True) -> JobPage:
        """Return a page of jobs: of those that are not settled, of those that are, or of both. From any thread."""
        with self.lock:
            jobs = self.fold.running.values() if running else ()
            return self.store.jobs(query, map(running_summary, jobs), finished=finished)

    def runs(self, job_id: str) -> list[JobSummary]:
        """Return the runs that used a job ID, newest first. From any thread."""
        return self.jobs(JobQuery(job_id=job_id, limit=MAX_PAGE)).jobs

    def shards(self, key: JobKey, query: ShardQuery) -> list[ShardRow]:
        """Return shards of a job: as they stand while it is not settled, else from the archive. From any thread."""
        with self.lock:
            job = self.fold.running.get(key)
            table = shard_table(job.stages.values(), job.workers, job.errors) if job else None
        if table is not None:
            return select_shards(table, query)
        summary = self.store.job(key)
        return self.archive.shards(summary, query) if summary else []

    @property
    def failed_predictions(self) -> int:
        """Return how many predictions could not be made because the code itself failed."""
        return self._slo_keeper.failed_predictions

    def lag_seconds(self) -> float:
        """Return how old the oldest bytes may be that are written and not folded."""
        return max(0, self._clock.time_ns() - self._caught_up_ns) / 1e9

    def _fold_and_commit(self, blocks: Sequence[Block], limit: int) -> TickReport:
        """Fold one round and make it durable, or undo it where there is no room."""
        began = self._clock.monotonic_ns()
        with self.lock:
            number, now = self._round + 1, max(self._clock.time_ns(), self._time_ns)
            self.fold.round(blocks, now)
            decided = self.fold.take_decided()
            summaries = [decided_summary(job) for job in decided]
            try:
                archived = sum(map(self._archive, decided, summaries))
                self.store.commit(self._commit(number, now, blocks, summaries))
            except (StoreFull, OSError) as error:
                self._undo(f"no room, so nothing is counted until there is: {error}")
                return TickReport(committed=False)
            self._round, self._time_ns = number, now
            self._slo_keeper.committed()
            self.figures.archived_shards += archived
        records = sum(len(block.words) for block in blocks)
        self._committed(blocks, records, began)
        self._call_hooks(decided)
        more = sum(block.words.nbytes for block in blocks) >= limit
        return TickReport(records, more, len(decided))

    def _commit(self, number: int, now_ns: int, blocks: Sequence[Block], jobs: list[JobSummary]) -> Commit:
        """Return what a round changed."""
        dirty, fold = self.fold.take_dirty(), self.fold
        totals: list[Totals] = [fold.pipelines[key] for key in dirty.pipelines]
        totals += [fold.stages[key] for key in dirty.stages]
        totals += [fold.clusters[key] for key in dirty.clusters]
        totals.append(fold.own)
        return Commit(
            round=Round(number, now_ns, [Range(b.journal, b.segment, b.first, len(b.words)) for b in blocks]),
            cursors={block.journal: self._follower.cursors[block.journal] for block in blocks},
            totals=totals,
            jobs=jobs,
            slos=self._slo_keeper.round(fold, jobs, now_ns),
        )

    def _archive(self, job: DecidedJob, summary: JobSummary) -> int:
        """Archive a job's shards and return how many. Raises `OSError` where there is no room."""
        try:
            return self.archive.write(job, summary)
        except OSError:
            raise
        except Exception:  # the count of a job must not hang on whether every one of its shards can be written
            self.figures.unarchived += 1
            _log.exception("the shards of job %s cannot be archived", job.key)
            return 0

    def _follow(self, cursors: Mapping[str, Cursor]) -> Follower:
        """Return a follower that goes on from the cursors, and leaves alone what is in quarantine."""
        follower = Follower(self._directories, cursors, clock=self._clock, seal=True, figures=self.follow_figures)
        if paused := self._quarantine.paused():
            follower.poll(0)
            for journal, duration_ns in paused.items():
                follower.pause(journal, duration_ns)
        return follower

    def _blame(self, blocks: Sequence[Block]) -> None:
        """Find out which journal makes rounds fail."""
        journal = self._quarantine.failed(blocks)
        if journal is not None:
            self.figures.quarantined += 1
            _log.error("journal %s makes rounds fail and is left alone for a while", journal)

    def _has_room(self) -> bool:
        """Return whether the store takes anything again after a failure; nothing is read before it does."""
        if self.health.ok:
            return True
        try:
            self.store.probe()
        except StoreFull:
            self._pace.failed()
            return False
        return True

    def _committed(self, blocks: Sequence[Block], records: int, began_ns: int) -> None:
        """Count a round that is durable."""
        self._cursors.update({block.journal: self._follower.cursors[block.journal] for block in blocks})
        self._pace.folded(blocks)
        self.figures.commits += 1
        self.figures.records += records
        self.figures.fold_ns += self._clock.monotonic_ns() - began_ns
        self._quarantine.passed()
        if not self.health.ok:
            paused = ", ".join(self._quarantine.paused())
            self._say(ok=True, message=paused and f"rounds fail on {paused}: left alone for a while")

    def _undo(self, why: str) -> None:
        """Go back to the last commit and say why; the journals still hold what was read."""
        self.figures.refused += 1
        self._pace.failed()
        self.recover()
        self._say(ok=False, message=why)

    def _look(self, live: Sequence[LiveJournal], *, decide: bool) -> None:
        """Show what runs now, and decide what is due."""
        now = self._clock.time_ns()
        with self.lock:
            self.live = live
            try:
                self._slo_keeper.tend(self.fold, live, max(now, self._time_ns))
            except StoreFull as error:
                self._undo(f"no room, so nothing is counted until there is: {error}")
                return
        if decide:
            signs = job_signs(self.fold.running, live, self.fold.resolve)
            found = decisions(signs, now, self.settings.decide, up_since_ns=self._up_since_ns)
            self._own.say(found, self.fold.running)

    def _maintain(self) -> None:
        """Let go what retention does not keep."""
        before = self._clock.time_ns() - round(self.settings.retention_days * _DAY_NS)
        try:
            self.store.prune(jobs_before_ns=before, journals_before_ns=before)
            self.archive.prune(before)
            with self.lock:
                self._slo_keeper.prune(before)
        except (StoreFull, OSError) as error:
            # Nothing depends on it: the next look tries again.
            _log.warning("retention has to wait: %s", error)

    def _call_hooks(self, decided: Sequence[DecidedJob]) -> None:
        for hook in self._hooks if decided else ():
            try:
                hook(decided)
            except Exception:  # a hook's failure is its own: the jobs are committed
                self.figures.failed_hooks += 1
                _log.exception("a hook failed on %d decided jobs", len(decided))

    def _say(self, *, ok: bool, message: str = "") -> None:
        self.health = Health(ok, message, self._clock.time_ns())
