"""
The fold once more, as plainly as it can be said: one record at a time, in the documented order, with dicts and lists.

It shares no code with `mppobs.sidecar`. Tests hold the two against each other on random histories, so whatever
either gets wrong shows. It keeps everything it ever saw and is as slow as it looks.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    ContextRecord,
    CostKind,
    DetailKind,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    SampleRecord,
    ShardOutcome,
    TextRecord,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)

S = 10**9
DAY = 86_400 * S
YEAR_2000 = 946_684_800 * S
TEN_YEARS = 3660 * DAY
LEASE = 60 * S

Undecodable = str
"""Stands for a record that cannot be decoded."""


@dataclass
class Definitions:
    """What one segment has defined."""

    contexts: dict[int, Context] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    worker: WorkerInfo = field(default_factory=lambda: WorkerInfo(""))
    cluster: str = "default"


@dataclass
class Piece:
    """Part of a journal's segment, as it is read in one round."""

    journal: str
    opens_segment: bool
    records: Sequence[Record | Undecodable]
    definitions: Definitions = field(default_factory=Definitions)


@dataclass
class Journal:
    """What is remembered of one journal."""

    definitions: Definitions = field(default_factory=Definitions)
    sample: SampleRecord | None = None
    sampled: Context | None = None
    ran: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    ended: bool = False


@dataclass
class Shard:
    """One shard of a job."""

    name: str | int
    starts: list[int] = field(default_factory=list)
    """Of the attempts folded before it was decided."""
    attempts: list[tuple[AttemptRecord, WorkerInfo]] = field(default_factory=list)
    dispatched: set[int] = field(default_factory=set)
    recorded: set[int] = field(default_factory=set)
    state: str = "pending"
    decided: int = 0
    first_start: int = 0
    winner: int = 0
    reason: Reason = Reason.NONE
    error: str = ""
    last: AttemptOutcome | None = None


@dataclass
class Stage:
    """One stage of a job."""

    planned: int = 0
    final: bool = False
    shards: dict[int, Shard] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    activities: Counter[str] = field(default_factory=Counter)
    skew: float | None = None

    def seen(self) -> int:
        """Count the shards that were not split."""
        return sum(shard.state != "split" for shard in self.shards.values())

    def marks(self) -> tuple[int, int, int]:
        """Count the attempts that were dispatched, those of them with a record, and those without."""
        both = sum(len(shard.dispatched & shard.recorded) for shard in self.shards.values())
        dispatched = sum(len(shard.dispatched) for shard in self.shards.values())
        return dispatched, both, dispatched - both


@dataclass(eq=False)
class Job:
    """One run."""

    context: Context
    incarnations: list[int]
    start: int
    unnamed: bool
    submit: int = 0
    implicit: bool = True
    coordinated: bool = False
    coordinator: str = ""
    deadline: int = 0
    lease: int = 0
    orphaned: int = 0
    heartbeat: int = 0
    checkpoint: int = 0
    end: int = 0
    outcome: JobOutcome | None = None
    reason: Reason = Reason.NONE
    error: str = ""
    ended_at: int = 0
    touched_at: int = 0
    settled_at: int = 0
    stages: dict[str, Stage] = field(default_factory=lambda: defaultdict(Stage))
    cost: Counter[CostKind] = field(default_factory=Counter)
    named_errors: dict[tuple[str, int, int, int], Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    vanished: int = 0

    @property
    def base(self) -> tuple[str, str, str]:
        """Return what its incarnations share."""
        return self.context.cluster, self.context.tenant, self.context.job_id

    @property
    def pipeline(self) -> tuple[str, str, str]:
        """Return the labels under which it counts."""
        return self.context.cluster, self.context.tenant, self.context.pipeline

    def order(self) -> int:
        """Return what tells the newest of several."""
        return self.incarnations[0]


class Oracle:
    """Folds rounds of pieces. Figures are by pipeline, or by pipeline and stage, as lists of all that was observed."""

    def __init__(self, usd_per_hour: Mapping[tuple[str, bool], float], usd_per_gb: float) -> None:
        self.prices = usd_per_hour
        self.usd_per_gb = usd_per_gb
        self.journals: dict[str, Journal] = defaultdict(Journal)
        self.running: list[Job] = []
        self.judged: list[Job] = []
        self.pipelines: dict[tuple[str, ...], dict[str, Any]] = {}
        self.stages: dict[tuple[str, ...], dict[str, Any]] = {}
        self.lost: dict[str, Counter[str]] = defaultdict(Counter)
        self.deaths: dict[tuple[str, str], bool] = {}
        self.throttled: dict[tuple[str, str, int], tuple[int, int]] = {}
        self.folded: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.invalid: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.now = 0

    # -- the order of a round

    def round(self, pieces: Sequence[Piece], now: int) -> None:
        """Fold one round."""
        self.now = now
        for piece in pieces:
            journal = self.journals[piece.journal]
            if piece.opens_segment:
                journal.definitions = Definitions()
            piece.definitions = journal.definitions
        by_journal: dict[str, list[Piece]] = {}
        for piece in pieces:
            by_journal.setdefault(piece.journal, []).append(piece)
        told = [each for each in by_journal.values() if any(self.tells_of_death(piece) for piece in each)]
        others = [each for each in by_journal.values() if not any(self.tells_of_death(piece) for piece in each)]
        for piece in pieces:
            for record in filter(is_name, piece.records):
                self.count(record, self.on_text(piece, record))
        for each in told + others:
            for piece in each:
                self.control(piece)
        for kind in (DispatchRecord, DetailRecord, AttemptRecord, CommitRecord):
            self.data(pieces, kind)
        for each in told + others:
            for piece in each:
                self.samples(piece)
        for name in [name for name, journal in self.journals.items() if journal.ended]:
            del self.journals[name]

    @staticmethod
    def tells_of_death(piece: Piece) -> bool:
        """Return whether a piece says that a coordinator died."""
        return any(isinstance(record, JobRecord) and record.event is JobEvent.ORPHANED for record in piece.records)

    def control(self, piece: Piece) -> None:
        """Fold the rare records of a piece."""
        for record in piece.records:
            if is_name(record):
                continue
            if isinstance(record, str):
                self.invalid[record] += 1
                continue
            handler = getattr(self, f"on_{kind_of(record)}", None)
            if handler is not None and not isinstance(record, SampleRecord):
                self.count(record, handler(piece, record))

    def samples(self, piece: Piece) -> None:
        """Fold the samples of a piece, and on the way how long attempts ran between them."""
        for record in piece.records:
            if isinstance(record, AttemptRecord):
                if not self.problem(record, piece.definitions.contexts.get(record.context_id)):
                    self.journals[piece.journal].ran += record.duration_ns
            elif isinstance(record, SampleRecord):
                self.count(record, self.on_sample(piece, record))

    def count(self, record: Record, problem: str) -> None:
        """Count a control record as folded, as late, or as nonsense."""
        if problem == "late":
            self.late[kind_of(record)] += 1
        elif problem:
            self.invalid[problem] += 1
        else:
            self.folded[kind_of(record)] += 1

    def data(self, pieces: Sequence[Piece], kind: type) -> None:
        """Fold all records of one kind: first find the job of each, then fold them, both in order."""
        todo: list[tuple[Piece, Any, Context]] = []
        for piece in pieces:
            for record in piece.records:
                if isinstance(record, kind):
                    context = piece.definitions.contexts.get(record.context_id)
                    problem = self.problem(record, context)
                    if problem or context is None:
                        self.invalid[problem] += 1
                    else:
                        todo.append((piece, record, context))
        known = {context: self.find(context) for _, _, context in todo}
        at_home: list[tuple[Piece, Any, Job, str]] = []
        for piece, record, context in todo:
            job = known[context] or self.resolve(context, time_of(record))
            if job is None:
                self.late[kind_of(record)] += 1
            else:
                known[context] = job
                at_home.append((piece, record, job, context.stage))
        for piece, record, job, stage in at_home:
            job.touched_at = self.now
            self.figures_of(job.pipeline, stage)
            job.stages[stage]
            if job.implicit and not isinstance(record, CommitRecord | DetailRecord):
                job.start = min(job.start, time_of(record))
            on_time = getattr(self, f"fold_{kind_of(record)}")(piece, record, job, stage)
            (self.late if on_time is False else self.folded)[kind_of(record)] += 1

    def problem(self, record: Any, context: Context | None) -> str:
        """Return why a data record makes no sense; empty where it does."""
        if context is None:
            return "unknown_context"
        times = [time_of(record)] + ([record.first_start_ns] if getattr(record, "first_start_ns", 0) else [])
        if not all(YEAR_2000 <= time <= self.now + DAY for time in times):
            return "absurd_time"
        if isinstance(record, AttemptRecord):
            spans = (record.duration_ns, record.cpu_ns or 0, record.delay_ns or 0)
            if max(spans) > TEN_YEARS:
                return "absurd_duration"
            if max(record.rows, record.shuffle_read, record.shuffle_written, record.peak_rss) > 2**53:
                return "absurd_amount"
        if isinstance(record, CommitRecord) and max(record.output_bytes, record.output_rows) > 2**53:
            return "absurd_amount"
        if isinstance(record, DispatchRecord) and record.input_bytes > 2**53:
            return "absurd_amount"
        if isinstance(record, DetailRecord) and any(amount > TEN_YEARS for _, amount in record.amounts):
            return "absurd_amount"
        return ""

    # -- which job

    def find(self, context: Context) -> Job | None:
        """Return the running job that a context names."""
        fits = [job for job in self.running if job.base == (context.cluster, context.tenant, context.job_id)]
        if context.incarnation:
            fits = [job for job in fits if context.incarnation in job.incarnations]
        return max(fits, key=Job.order, default=None)

    def closed_until(self, context: Context) -> int | None:
        """Return until when records of a context without a running job are late; `None` for never."""
        fits = [job for job in self.judged if job.base == (context.cluster, context.tenant, context.job_id)]
        if context.incarnation:
            return 2**63 if any(context.incarnation in job.incarnations for job in fits) else None
        return max((job.end for job in fits), default=None)

    def resolve(self, context: Context, time: int) -> Job | None:
        """Return the job of a record, begun where it is new; `None` where the record is late."""
        job = self.find(context)
        if job:
            return job
        until = self.closed_until(context)
        return None if until is not None and time <= until else self.open(context, time)

    def open(self, context: Context, time: int) -> Job:
        """Begin a job."""
        incarnation = context.incarnation or time
        own = replace(context, incarnation=incarnation, stage="", task="")
        job = Job(own, [incarnation], time, unnamed=not context.incarnation, deadline=context.deadline_ns)
        self.running.append(job)
        self.figures_of(job.pipeline)
        self.pipelines[job.pipeline].update(owner=context.owner, tier=context.tier)
        return job

    # -- control records; each returns why it does not count, or nothing

    def on_text(self, piece: Piece, record: TextRecord) -> str:
        """Take in a name."""
        if record.shard_key:
            piece.definitions.names.setdefault(record.shard_key, record.text)
        return ""

    def on_context(self, piece: Piece, record: ContextRecord) -> str:
        """Take in a context."""
        if record.context_id not in piece.definitions.contexts:
            piece.definitions.contexts[record.context_id] = record.context
            piece.definitions.cluster = record.context.cluster
        return ""

    def on_worker(self, piece: Piece, record: WorkerRecord) -> str:
        """Take in what is said of a worker."""
        if record.event is WorkerEvent.SELF:
            piece.definitions.worker = record.info
        if record.event is WorkerEvent.LOST:
            self.bury(piece.definitions.cluster, record.info.worker, record.reason)
        return ""

    def on_job(self, piece: Piece, record: JobRecord) -> str:
        """Fold a step in the life of a job."""
        context = piece.definitions.contexts.get(record.context_id)
        if context is None:
            return "unknown_context"
        if not self.sane(record.time_ns) or (record.submit_ns and not self.sane(record.submit_ns)):
            return "absurd_time"
        if record.event is JobEvent.START:
            return self.start(piece, record, context)
        if record.event is JobEvent.END:
            return self.end(record, context)
        job = self.find(context)
        if job is None:
            return "late" if self.closed_until(context) is not None else "unknown_job"
        if record.event is JobEvent.CHECKPOINT:
            job.checkpoint = max(job.checkpoint, record.time_ns)
        elif record.event is JobEvent.ORPHANED:
            if job.end or not (job.implicit or job.coordinator == piece.journal):
                return "late"
            job.orphaned = record.time_ns
        elif not job.end:
            return "unended_job"
        else:
            self.settle(job)
        job.touched_at = self.now
        return ""

    def start(self, piece: Piece, record: JobRecord, context: Context) -> str:
        """Begin a job, or go on with one."""
        named = context if context.incarnation else replace(context, incarnation=record.time_ns)
        job = self.find(named)
        if job is None:
            if self.closed_until(named) is not None:
                return "late"
            fits = [
                each
                for each in self.running
                if each.base == (context.cluster, context.tenant, context.job_id)
                and not each.end
                and (each.unnamed or (each.orphaned and record.time_ns - each.orphaned < (each.lease or LEASE)))
            ]
            job = max(fits, key=Job.order, default=None) or self.open(named, record.time_ns)
        if job.end:
            return "late"
        if named.incarnation not in job.incarnations:
            job.incarnations.append(named.incarnation)
        if job.implicit:
            job.start, job.submit = record.time_ns, record.submit_ns
        job.implicit, job.unnamed, job.orphaned = False, False, 0
        job.coordinator, job.coordinated = piece.journal, record.coordinated
        job.deadline = record.deadline_ns or context.deadline_ns or job.deadline
        job.lease = record.lease_ns or job.lease
        job.touched_at = self.now
        return ""

    def end(self, record: JobRecord, context: Context) -> str:
        """Fix how a job ended."""
        if record.outcome is None:
            return "unknown_code"
        job = self.resolve(context, record.time_ns)
        if job is None or job.end:
            return "late"
        job.end, job.outcome, job.reason, job.error = record.time_ns, record.outcome, record.reason, record.error_type
        job.ended_at = job.touched_at = self.now
        return ""

    def on_plan(self, piece: Piece, record: PlanRecord) -> str:
        """Fold planned shards."""
        context = piece.definitions.contexts.get(record.context_id)
        if context is None:
            return "unknown_context"
        if not self.sane(record.time_ns):
            return "absurd_time"
        if record.added > 2**40:
            return "absurd_amount"
        job = self.resolve(context, record.time_ns)
        if job is None:
            return "late"
        job.touched_at = self.now
        self.figures_of(job.pipeline, context.stage)
        stage = job.stages[context.stage]
        stage.planned += record.added
        stage.final |= record.final
        if record.parent_key is not None:
            parent = self.shard(piece, stage, record.parent_key)
            if parent.state == "pending":
                parent.state = "split"
                stage.planned = max(0, stage.planned - 1)
        return ""

    def on_heartbeat(self, piece: Piece, record: HeartbeatRecord) -> str:
        """Fold a sign of life."""
        context = piece.definitions.contexts.get(record.context_id)
        if context is None:
            return "unknown_context"
        if not self.sane(record.time_ns):
            return "absurd_time"
        figures = self.touch_pipeline(context)
        figures["heartbeat"] = max(figures["heartbeat"], record.time_ns)
        job = self.find(context)
        if job:
            job.touched_at = self.now
            job.heartbeat = max(job.heartbeat, record.time_ns)
        return ""

    def on_sample(self, piece: Piece, record: SampleRecord) -> str:
        """Fold a sample: idle time and throttling since the one before."""
        context = piece.definitions.contexts.get(record.context_id)
        journal, worker = self.journals[piece.journal], piece.definitions.worker
        ran, journal.ran = journal.ran, 0
        if record.context_id and context is None:
            return "unknown_context"
        if not self.sane(record.time_ns):
            return "absurd_time"
        context = context or journal.sampled
        before = journal.sample
        journal.sample, journal.sampled = record, context
        if context is None:
            return ""
        job = self.find(context)
        if before and worker.dedicated and 0 < record.time_ns - before.time_ns <= 3600 * S:
            busy = ran + record.in_flight_ns - before.in_flight_ns
            idle = max(0, worker.lanes * (record.time_ns - before.time_ns) - busy)
            cost = round(idle * self.rate(worker))
            if cost:
                self.touch_pipeline(context)["cost"][CostKind.IDLE] += cost
                if job:
                    job.cost[CostKind.IDLE] += cost
        group = (context.cluster, worker.node, record.memory_limit)
        time, most = self.throttled.get(group, (0, record.throttled_ns))
        if record.throttled_ns > most:
            self.touch_pipeline(context)["throttled"] += record.throttled_ns - most
        if group not in self.throttled or record.throttled_ns > most or record.time_ns > time:
            self.throttled[group] = (record.time_ns, record.throttled_ns)
        if job:
            job.touched_at = self.now
        return ""

    def on_drop(self, piece: Piece, record: DropRecord) -> str:
        """Count what could not be written."""
        if not self.sane(record.time_ns):
            return "absurd_time"
        known = self.journals[piece.journal].dropped
        for name, count in [*record.attempts.items(), ("other", record.other)]:
            if count > known[name]:
                self.dropped["other" if name == "other" else "attempt"] += count - known[name]
                known[name] = count
        return ""

    def on_end(self, piece: Piece, record: EndRecord) -> str:
        """End a journal."""
        if not self.sane(record.time_ns):
            return "absurd_time"
        self.journals[piece.journal].ended = True
        return ""

    # -- data records; each returns `False` where it came after its decision

    def fold_dispatch(self, piece: Piece, record: DispatchRecord, job: Job, stage: str) -> None:
        """Fold an attempt that was handed out."""
        self.shard(piece, job.stages[stage], record.shard_key).dispatched.add(min(record.attempt, 31))

    def fold_detail(self, piece: Piece, record: DetailRecord, job: Job, stage: str) -> None:
        """Fold named amounts."""
        family = {DetailKind.NETWORK_ERROR: "network", DetailKind.STORAGE_THROTTLED: "storage"}.get(record.what)
        for name, amount in record.amounts:
            if family is None:
                self.stages[(*job.pipeline, stage)]["activities"][name] += amount
                job.stages[stage].activities[name] += amount
            else:
                self.pipelines[job.pipeline][family][name] += amount
                identity = (stage, record.shard_key, record.attempt, record.start_ns)
                job.named_errors.setdefault(identity, Counter())[family] += amount

    def fold_attempt(self, piece: Piece, record: AttemptRecord, job: Job, stage: str) -> None:
        """Fold a finished attempt."""
        worker = piece.definitions.worker
        totals, mine = self.stages[(*job.pipeline, stage)], job.stages[stage]
        for counts in (totals["attempts"], mine.attempts):
            counts[str(record.outcome)] += 1
        for sums in (totals["sums"], mine.sums):
            sums["retries"] += record.attempt > 0 and not record.speculative
            sums["wall_ns"] += record.duration_ns
            sums["shuffle_read"] += record.shuffle_read
            sums["shuffle_written"] += record.shuffle_written
            sums["rows"] += record.rows
            if record.cpu_ns is not None:
                sums["cpu_ns"] += record.cpu_ns
                sums["cpu_wall_ns"] += record.duration_ns
        pipeline = self.pipelines[job.pipeline]
        if record.delay_ns is not None:
            pipeline["delays"].append(record.delay_ns)
        self.charge(pipeline, job, record, worker, self.shard(piece, mine, record.shard_key))
        self.unspecified(pipeline, job, record, stage)
        if record.outcome is AttemptOutcome.ERROR and record.reason in (
            Reason.WORKER_LOST, Reason.OOM_KILLED, Reason.NODE_LOST
        ):  # fmt: skip
            pipeline["oom"] += self.bury(job.context.cluster, worker.worker or piece.journal, record.reason)
        shard = self.shard(piece, mine, record.shard_key)
        shard.recorded.add(min(record.attempt, 31))
        shard.attempts.append((record, worker))
        if shard.state not in ("failed", "lost"):
            shard.last, shard.reason, shard.error = record.outcome, record.reason, record.error_type
        if shard.state != "pending":
            return
        shard.starts.append(record.start_ns)
        shard.first_start = min(shard.starts)
        if record.outcome is AttemptOutcome.SUCCESS and not job.coordinated:
            first = next(each for each, _ in shard.attempts if each.outcome is AttemptOutcome.SUCCESS)
            if first is record:
                self.decide(job, stage, shard, "committed", record.start_ns + record.duration_ns, record.attempt)

    def fold_commit(self, piece: Piece, record: CommitRecord, job: Job, stage: str) -> bool:
        """Fold a decision."""
        shard = self.shard(piece, job.stages[stage], record.shard_key)
        if shard.state != "pending":
            return False
        shard.first_start = record.first_start_ns or shard.first_start
        if record.outcome is not ShardOutcome.COMMITTED:
            shard.reason, shard.error = record.reason, record.error_type
        self.decide(job, stage, shard, str(record.outcome), record.time_ns, record.attempt)
        for name in ("output_bytes", "output_rows"):
            job.stages[stage].sums[name] += getattr(record, name)
        return True

    # -- what follows

    def decide(self, job: Job, stage: str, shard: Shard, state: str, time: int, winner: int) -> None:
        """Decide a shard."""
        shard.state, shard.decided, shard.winner = state, time, winner
        totals = self.stages[(*job.pipeline, stage)]
        job.stages[stage].outcomes[state] += 1
        totals["shards"][state] += 1
        if state == "committed" and shard.first_start:
            totals["durations"].append((self.now, max(0, time - shard.first_start)))

    def charge(
        self, pipeline: dict[str, Any], job: Job, record: AttemptRecord, worker: WorkerInfo, shard: Shard
    ) -> None:
        """Attribute what an attempt cost."""
        before = any(each.outcome is AttemptOutcome.SUCCESS for each, _ in shard.attempts)
        match record.outcome:
            case AttemptOutcome.SUCCESS:
                kind = CostKind.SPECULATION if before else CostKind.USEFUL
            case AttemptOutcome.SUPERSEDED:
                kind = CostKind.SPECULATION
            case AttemptOutcome.PREEMPTED:
                kind = CostKind.PREEMPTED
            case _:
                kind = CostKind.RETRY
        for cost in (pipeline["cost"], job.cost):
            cost[kind] += round(record.duration_ns * self.rate(worker))
            cost[CostKind.USEFUL] += round((record.shuffle_read + record.shuffle_written) * (self.usd_per_gb * 1e3))

    def rate(self, worker: WorkerInfo) -> float:
        """Return picodollars per nanosecond of a lane."""
        usd = self.prices.get((worker.node_type, worker.spot), self.prices[("", worker.spot)])
        return usd * 10**12 / (3600 * S * max(1, worker.lanes))

    def unspecified(self, pipeline: dict[str, Any], job: Job, record: AttemptRecord, stage: str) -> None:
        """Count the errors of an attempt that no detail named."""
        if not (record.network_errors or record.storage_throttled):
            return
        identity = (stage, record.shard_key, record.attempt, record.start_ns)
        named = job.named_errors.pop(identity, Counter())
        job.errors["network"] += record.network_errors
        job.errors["storage"] += record.storage_throttled
        for family, total in (("network", record.network_errors), ("storage", record.storage_throttled)):
            if total > named[family]:
                pipeline[family]["unspecified"] += total - named[family]

    def bury(self, cluster: str, worker: str, reason: Reason) -> bool:
        """Count a worker's death once; return whether it is the first that speaks of memory."""
        known = self.deaths.get((cluster, worker)) if worker else None
        starved = reason is Reason.OOM_KILLED
        self.deaths[cluster, worker] = bool(known) or starved
        if known is None:
            self.lost[cluster][str(Reason.WORKER_LOST if reason is Reason.NONE else reason)] += 1
        return starved and not known

    def settle(self, job: Job) -> None:
        """Judge a job."""
        for name, stage in job.stages.items():
            totals = self.stages[(*job.pipeline, name)]
            vanished = stage.marks()[2]
            job.vanished += vanished
            unseen = max(0, stage.planned - stage.seen())
            for counts in (stage.attempts, totals["attempts"]):
                counts["error"] += vanished
            for shard in stage.shards.values():
                if shard.state == "pending":
                    self.give_up(shard, job.end)
                    for counts in (stage.outcomes, totals["shards"]):
                        counts[shard.state] += 1
            for counts in (stage.outcomes, totals["shards"]):
                counts["lost"] += unseen
            durations = [
                max(0, shard.decided - shard.first_start)
                for shard in stage.shards.values()
                if shard.state == "committed" and shard.first_start
            ]
            if durations:
                longest = max(durations)
                stage.skew = 1.0 - sum(durations) / (len(durations) * longest) if longest else 0.0
                totals["skew"] = stage.skew
        self.observe(job)
        self.running.remove(job)
        self.judged.append(job)
        job.settled_at = self.now

    @staticmethod
    def give_up(shard: Shard, end: int) -> None:
        """Decide a shard that nobody decided."""
        missing = shard.dispatched - shard.recorded
        last_is_missing = bool(missing) and (not shard.recorded or max(missing) > max(shard.recorded))
        by_work = shard.last in (AttemptOutcome.FAILURE, AttemptOutcome.TIMEOUT)
        shard.state = "failed" if by_work and not last_is_missing else "lost"
        shard.decided = end
        if last_is_missing:
            shard.reason = Reason.NODE_LOST

    def observe(self, job: Job) -> None:
        """Add a judged job to its pipeline."""
        figures = self.pipelines[job.pipeline]
        submit = job.submit or job.start
        figures["jobs"][str(job.outcome)] += 1
        figures["job_durations"].append(max(0, job.end - submit))
        figures["queue"].append(max(0, job.start - submit))
        shuffled = sum(stage.sums["shuffle_read"] + stage.sums["shuffle_written"] for stage in job.stages.values())
        figures["shuffled"].append(shuffled)
        usual = statistics.median(figures["baseline"][-20:]) if figures["baseline"] else 0
        figures["baseline_ratio"] = shuffled / usual if usual else None
        if job.outcome is JobOutcome.SUCCESS:
            figures["baseline"].append(shuffled)
        figures["job_cost"].append(sum(job.cost.values()))
        if job.coordinated:
            marks = [stage.marks() for stage in job.stages.values()]
            figures["dispatched"] += sum(mark[0] for mark in marks)
            figures["recorded"] += sum(mark[1] for mark in marks)

    def shard(self, piece: Piece, stage: Stage, key: int) -> Shard:
        """Return a shard of a stage, with its name as the segment of its first record has it."""
        if key not in stage.shards:
            name = piece.definitions.names.get(key, f"{key:x}") if key >= 2**61 else key
            stage.shards[key] = Shard(name)
        return stage.shards[key]

    def sane(self, time: int) -> bool:
        """Return whether a time can be meant."""
        return YEAR_2000 <= time <= self.now + DAY

    def touch_pipeline(self, context: Context) -> dict[str, Any]:
        """Return the figures of a context's pipeline, with its newest owner."""
        key = (context.cluster, context.tenant, context.pipeline)
        self.figures_of(key)
        self.pipelines[key].update(owner=context.owner, tier=context.tier)
        return self.pipelines[key]

    def figures_of(self, pipeline: tuple[str, ...], stage: str | None = None) -> None:
        """Make the figures of a pipeline, and of a stage of it."""
        self.pipelines.setdefault(pipeline, {
            "owner": "", "tier": None, "jobs": Counter(), "job_durations": [], "queue": [], "delays": [],
            "shuffled": [], "baseline": [], "baseline_ratio": None, "network": Counter(), "storage": Counter(),
            "throttled": 0, "oom": 0, "cost": Counter(), "job_cost": [], "heartbeat": 0, "recorded": 0,
            "dispatched": 0,
        })  # fmt: skip
        if stage is not None:
            self.stages.setdefault((*pipeline, stage), {
                "shards": Counter(), "attempts": Counter(), "sums": Counter(), "durations": [],
                "activities": Counter(), "skew": None,
            })  # fmt: skip


def is_name(record: Record | Undecodable) -> bool:
    """Return whether a record is the name of a shard; those of a round come before the rest of it."""
    return isinstance(record, TextRecord) and record.shard_key > 0


def kind_of(record: Record) -> str:
    """Return the kind of a record as the tool's own counters name it."""
    return type(record).__name__.removesuffix("Record").lower()


def time_of(record: Any) -> int:
    """Return the time that says whether a data record can begin a job."""
    return int(record.start_ns if isinstance(record, AttemptRecord | DetailRecord) else record.time_ns)
