"""
The fold: blocks of records in, totals and jobs out, one round at a time, the same whatever the blocks are cut like.

Within a round control records go first, one by one; then the data records by column, in the order DISPATCH,
DETAIL, ATTEMPT, COMMIT. `docs/architecture.md` says how it decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mppobs.cost.prices import PriceList
from mppobs.errors import JournalError
from mppobs.journal.columns import Words
from mppobs.journal.format import JOB_EVENT_CODES, REASON_CODES, Kind
from mppobs.model import (
    Context,
    ContextRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobEvent,
    JobKey,
    JobRecord,
    PlanRecord,
    Record,
    SampleRecord,
    Shard,
    TextRecord,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.sidecar import fold_dump
from mppobs.sidecar.aggregates import (
    ClusterTotals,
    PipelineKey,
    PipelineTotals,
    SelfTotals,
    StageKey,
    StageTotals,
)
from mppobs.sidecar.fold_attempts import AttemptFold, died
from mppobs.sidecar.fold_columns import Batch, Mask, Phase, nonsense
from mppobs.sidecar.fold_commits import fold_commits, fold_details, fold_dispatches, fold_errors
from mppobs.sidecar.fold_control import Control, NonsenseError, check_time
from mppobs.sidecar.fold_groups import Group, Homes
from mppobs.sidecar.fold_jobs import Ended, JobBook, forgotten
from mppobs.sidecar.fold_jobs import EndedJob as EndedJob
from mppobs.sidecar.fold_journals import (
    DATA,
    JournalState,
    Source,
    UnknownTextError,
    decode_row,
    source_of,
    take_shard_names,
)
from mppobs.sidecar.fold_kept import keep
from mppobs.sidecar.fold_labels import Dirty as Dirty
from mppobs.sidecar.fold_labels import FoldSettings as FoldSettings
from mppobs.sidecar.fold_labels import Labels
from mppobs.sidecar.fold_ledger import Ledger
from mppobs.sidecar.fold_samples import RanBetween, SampleFold
from mppobs.sidecar.follow import Block
from mppobs.sidecar.running import DecidedJob, RunningJob
from mppobs.sidecar.tables import ShardTable

_REASONS: Final = {code: reason for reason, code in REASON_CODES.items()}
_CONTROL: Final = frozenset(Kind) - {*DATA, Kind.PAD}
_ORPHANED: Final = np.uint64(JOB_EVENT_CODES[JobEvent.ORPHANED])


class Fold:
    """
    Everything that is known of the workload, from its journals.

    Not for several threads at once. `ended` looks up judged jobs that memory has forgotten. `ledger` says what the
    rounds since it was last taken decided.
    """

    def __init__(self, settings: FoldSettings, prices: PriceList, *, ended: Ended = forgotten) -> None:
        self.ledger = Ledger()
        self._labels = Labels(settings)
        self._book = JobBook(self._labels, ended)
        self._control = Control(self._labels, self._book, self.ledger)
        self._samples = SampleFold(self._labels, self._book, prices)
        self._attempts = AttemptFold(self._labels, prices)
        self._journals: dict[str, JournalState] = {}

    @property
    def pipelines(self) -> dict[PipelineKey, PipelineTotals]:
        """Return the totals by pipeline."""
        return self._labels.pipelines

    @property
    def stages(self) -> dict[StageKey, StageTotals]:
        """Return the totals by stage."""
        return self._labels.stages

    @property
    def clusters(self) -> dict[str, ClusterTotals]:
        """Return the totals by cluster."""
        return self._labels.clusters

    @property
    def own(self) -> SelfTotals:
        """Return what the fold counts of itself."""
        return self._labels.own

    @property
    def running(self) -> dict[JobKey, RunningJob]:
        """Return the jobs that are not judged."""
        return self._book.running

    @property
    def unpriced(self) -> frozenset[str]:
        """Return the node types that have run attempts since the process began and have no price."""
        return frozenset(self._attempts.unpriced)

    def round(self, blocks: Sequence[Block], now_ns: int) -> None:
        """
        Fold one round, at the time `now_ns`, which never falls from round to round.

        Blocks of one journal are in file order. Nonsense is counted and has no other effect; nothing in a journal
        makes this raise.
        """
        sources = [self._source(block) for block in blocks]
        names = [self._take_names(source) for source in sources]
        samples: dict[int, list[tuple[int, SampleRecord]]] = {}
        for place in _by_journal(sources):
            samples[place] = list(self._fold_control(sources[place], ~names[place], now_ns))
        bad = {kind: self._fold_data(sources, kind, now_ns) for kind in DATA}
        for place, found in samples.items():
            self._fold_samples(sources[place], found, bad[Kind.ATTEMPT].get(place), now_ns)
        for journal in [name for name, state in self._journals.items() if state.ended]:
            self.forget(journal)

    def forget(self, journal: str) -> None:
        """Forget a journal of which no more records come; one that ended is forgotten by itself."""
        self._journals.pop(journal, None)

    def prime(self, journal: str, words: Words) -> None:
        """Learn what the records of a segment define, from its first up to those already folded. Counts nothing."""
        state = self._journals.setdefault(journal, JournalState(journal))
        state.turn()
        source = source_of(state, words)
        names, _, _ = take_shard_names(source)
        defining = np.isin(source.kinds, (Kind.TEXT, Kind.CONTEXT, Kind.WORKER)) & ~names
        for row in np.flatnonzero(defining).tolist():
            try:
                source.tables.define(decode_row(source, row)[0])
            except JournalError:
                continue  # it was counted as nonsense when it was folded

    def resolve(self, journal: str, context_id: int) -> Context | None:
        """Return the context that a journal gave a number, where it is still in use."""
        state = self._journals.get(journal)
        return state.context(context_id) if state else None

    def worker(self, journal: str) -> WorkerInfo | None:
        """Return the process that writes a journal."""
        state = self._journals.get(journal)
        return state.described.info if state else None

    def sample(self, journal: str) -> tuple[SampleRecord, Context | None] | None:
        """Return a journal's newest sample, and what ran last when it was taken."""
        state = self._journals.get(journal)
        return (state.sample, state.sampled) if state and state.sample else None

    def cluster(self, journal: str) -> str | None:
        """Return the cluster of what a journal's process ran last."""
        state = self._journals.get(journal)
        return state.described.cluster if state else None

    def job_of(self, context: Context) -> RunningJob | None:
        """Return the running job that a context names."""
        return self._book.find(context)

    def pipeline_of(self, context: Context) -> PipelineKey:
        """Return under which labels a context's pipeline counts; one that has no totals yet counts under its own."""
        return self._labels.known_pipeline(context)

    def shard_name(self, job: JobKey, stage: str, key: int) -> Shard:
        """Return the shard behind a key: its integer, its name, or the key in hexadecimal where no name came."""
        running = self._book.running.get(job)
        return running.shard(stage, key) if running else ShardTable().name_of(key)

    def take_decided(self) -> list[DecidedJob]:
        """Return the jobs judged since the last call."""
        decided, self._control.decided = self._control.decided, []
        return decided

    def take_dirty(self) -> Dirty:
        """Return which totals changed since the last call; `own` may always have."""
        return self._labels.take_dirty()

    def load_totals(
        self,
        pipelines: Mapping[PipelineKey, PipelineTotals],
        stages: Mapping[StageKey, StageTotals],
        clusters: Mapping[str, ClusterTotals],
        own: SelfTotals,
    ) -> None:
        """Take these totals in the place of all that are there."""
        self._labels.load(pipelines, stages, clusters, own)

    def dump_running(self) -> dict[str, bytes]:
        """Return all that is not totals: running jobs, judged ones that are remembered, counters of journals."""
        return fold_dump.dump(self._book, self._control, self._samples, self._journals)

    def load_running(self, parts: Mapping[str, bytes]) -> None:
        """Take up what `dump_running` returned, in a fold that has folded nothing. Raises `JournalError` for others."""
        fold_dump.load(parts, self._book, self._control, self._samples, self._journals)

    def _source(self, block: Block) -> Source:
        """Return a block with what its journal knows; the first record of a segment begins a new table."""
        state = self._journals.setdefault(block.journal, JournalState(block.journal))
        if block.first == 0:
            state.turn()
        return source_of(state, block.words)

    def _take_names(self, source: Source) -> Mask:
        """Take in the names of shards; return which rows these were."""
        rows, count, bad = take_shard_names(source)
        self._count("malformed", bad)
        self._labels.folded("text", count - bad)
        return rows

    def _fold_control(self, source: Source, rest: Mask, now_ns: int) -> Iterator[tuple[int, SampleRecord]]:
        """Fold control records of a block, in file order; yield the samples, with their rows, for later."""
        if source.has - set(Kind):
            self._count("unknown_kind", int(np.count_nonzero(~np.isin(source.kinds, tuple(Kind)))))
        mine = [source.kinds == kind for kind in source.has & _CONTROL]
        mine.append(np.zeros(len(rest), np.bool_))
        end = 0
        for row in np.flatnonzero(np.logical_or.reduce(mine) & rest).tolist():
            if row < end:
                continue
            with self._counting_nonsense():
                record, size = decode_row(source, row)
                end = row + size
                if isinstance(record, SampleRecord):
                    yield row, record
                else:
                    self._fold_one(source, record, now_ns)

    def _fold_one(self, source: Source, record: Record, now_ns: int) -> None:
        """Fold one control record."""
        match record:
            case TextRecord() | ContextRecord():
                source.tables.define(record)
                self._labels.folded("text" if isinstance(record, TextRecord) else "context")
            case WorkerRecord():
                source.tables.define(record)
                self._control.worker(source, record)
            case JobRecord():
                self._control.job(source, record, now_ns)
            case PlanRecord():
                self._control.plan(source, record, now_ns)
            case HeartbeatRecord():
                self._control.heartbeat(source, record, now_ns)
            case DropRecord():
                self._samples.drop(source.state, record, now_ns)
            case EndRecord():
                check_time(record.time_ns, now_ns)
                self._labels.folded("end")
                source.state.ended = True
            case _:
                return  # samples come last, and data records are folded by column

    def _fold_samples(
        self, source: Source, samples: Sequence[tuple[int, SampleRecord]], bad: Mask | None, now_ns: int
    ) -> None:
        """Fold the samples of a block: after its attempts, since idle time is what these left."""
        ran = RanBetween(source, bad)
        for row, record in samples:
            with self._counting_nonsense():
                self._samples.sample(source, record, ran.until(row), now_ns)
        ran.close()

    @contextmanager
    def _counting_nonsense(self) -> Iterator[None]:
        """Count a record that makes no sense instead of raising."""
        try:
            yield
        except UnknownTextError:
            self._count("unknown_text", 1)
        except JournalError:
            self._count("malformed", 1)
        except NonsenseError as error:
            self._count(str(error), 1)

    def _fold_data(self, sources: Sequence[Source], kind: Kind, now_ns: int) -> dict[int, Mask]:
        """Fold all records of a kind, by column; return by source which of them made no sense."""
        phase = Phase(sources, kind)
        homes = Homes(phase, self._book, now_ns)
        masks: dict[int, list[Mask]] = {}
        for batch in phase.batches():
            bad, counts = nonsense(batch, now_ns)
            if kind == Kind.ATTEMPT:
                for place, run in batch.runs():
                    part = np.zeros(run.stop - run.start, np.bool_) if bad is None else bad[run]
                    masks.setdefault(place, []).append(part)
            for reason, count in counts.items():
                self._count(reason, count)
            sane = batch if bad is None else batch.take(~bad)
            if len(sane):
                self._fold_batch(sane, homes, now_ns)
        return {place: np.concatenate(parts) for place, parts in masks.items()}

    def _fold_batch(self, batch: Batch, homes: Homes, now_ns: int) -> None:
        """Fold records that make sense."""
        name = batch.kind.name.lower()
        found, leads = homes.groups(batch)
        late = int(np.count_nonzero(leads < 0))
        for group in found:
            group.job.last_record_ns = now_ns
            late += self._fold_group(group, batch.kind, now_ns)
        if batch.kind == Kind.ATTEMPT:
            self._bury(batch, homes, leads)
        if late:
            self._labels.late(name, late)
        self._labels.folded(name, len(batch) - late)

    def _fold_group(self, group: Group, kind: Kind, now_ns: int) -> int:
        """Fold records of one kind and one stage of a job; return how many came after their decision."""
        match kind:
            case Kind.DISPATCH:
                fold_dispatches(group)
            case Kind.DETAIL:
                fold_details(group, self._labels)
            case Kind.ATTEMPT:
                self.ledger.attempts(group)
                with self.ledger.watching(group.job, (group.stage,)):
                    self._attempts.fold(group, now_ns)
                fold_errors(group, self._labels)
                keep(group, self._labels.settings.keep)
            case _:
                with self.ledger.watching(group.job, (group.stage,)):
                    return fold_commits(group, self._labels, now_ns)
        return 0

    def _bury(self, batch: Batch, homes: Homes, leads: NDArray[np.int32]) -> None:
        """Count the workers that died with an attempt in flight."""
        reasons = batch.detail
        for place in died(batch).tolist():
            if leads[place] >= 0:
                job, source = homes.job(int(leads[place])), batch.sources[int(batch.source[place])]
                worker = source.tables.info.worker or source.state.journal
                if self._control.lost(job.key.cluster, worker, _REASONS[int(reasons[place])]):
                    self._labels.pipeline(job.pipeline).oom_kills += 1

    def _count(self, reason: str, count: int) -> None:
        if count:
            self._labels.invalid(reason, count)


def _by_journal(sources: Sequence[Source]) -> list[int]:
    """
    Return the places of blocks journal by journal, in the order in which journals first occur.

    Those that tell of a coordinator's death go first: what resumes its job is in another journal.
    """
    journals: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        journals.setdefault(source.state.journal, []).append(place)
    ordered = sorted(journals.values(), key=lambda places: not any(_tells_of_death(sources[place]) for place in places))
    return [place for places in ordered for place in places]


def _tells_of_death(source: Source) -> bool:
    if Kind.JOB not in source.has:
        return False
    jobs = source.words[source.kinds == Kind.JOB, 0]
    return bool(((jobs >> np.uint64(8) & np.uint64(0xFF)) == _ORPHANED).any())
