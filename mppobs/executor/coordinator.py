"""
One job from the coordinator's side: what its attempts are told, what they left, and what is said of it.

It does no scheduling and talks to no worker: the loop calls it where the scheduler has decided something. Numbers of
attempts are the scheduler's, but in what workers, files and records see those of earlier coordinators come first.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from mppobs.clock import Clock
from mppobs.executor.attempt import AttemptOrder, Report, StageOrder
from mppobs.executor.decisions import (
    Cancelled,
    Charged,
    Committed,
    Decision,
    DecisionLog,
    Dispatched,
    GaveUp,
    Lost,
    Opened,
    Recovered,
    RecoveredStage,
    Replaced,
    Started,
)
from mppobs.executor.events import AttemptId, Earlier, JobEnded, JobSubmitted, Setbacks, ShardSplit, Split, StageSpec
from mppobs.executor.exchange import ExchangeError, Output
from mppobs.executor.faults import ArmedFault
from mppobs.executor.files import open_files
from mppobs.executor.orders import Orders
from mppobs.executor.plan import Plan, resolve
from mppobs.executor.policies import retry_budget
from mppobs.executor.records import JobRecords
from mppobs.executor.result import Progress, ShardFailure, StageProgress
from mppobs.executor.stages import Part, StageRun, cut
from mppobs.model import AttemptOutcome, JobOutcome, Reason, ShardOutcome

_MOST_FAILURES: Final = 100


class JobRun:
    """A job that runs. Made when it is submitted or taken over, read for its result when it has ended."""

    def __init__(
        self,
        key: str,
        plan: Plan,
        records: JobRecords,
        clock: Clock,
        *,
        root: str = "",
        fence: int = 1,
        log: DecisionLog | None = None,
        faults: Sequence[ArmedFault] = (),
    ) -> None:
        """
        Take in a job; `key` is its name in the scheduler, `root` where its exchanged data is.

        Decisions go to `log`, where somebody may want to go on with the job after this coordinator.
        """
        self.key = key
        self.plan = plan
        self.records = records
        self.began_ns = clock.monotonic_ns()
        self.end: JobEnded | None = None
        """Set once, when the scheduler says so."""
        self.wall = 0.0
        """Seconds from its submission to its end."""
        self.stages = [StageRun(plan, index) for index in range(len(plan.stages))]
        self.outcomes: Counter[AttemptOutcome] = Counter()
        self.failures: list[ShardFailure] = []
        self.values: dict[int, bytes] = {}
        """What the shards of the last stage returned, pickled, by position; tables are not in it."""
        self.root = root
        self._clock = clock
        self._log = log
        context = records.context
        self._orders = Orders(
            plan, self.stages, job_id=context.job_id, context=records.carrier, root=root, fence=fence, faults=faults
        )
        self._reports: dict[tuple[int, int], Report] = {}
        self._speculative: set[AttemptId] = set()
        self._decided: set[tuple[int, int]] = set()
        """Shards that were decided and are to run again: no second record says so."""
        self._done: dict[int, list[int]] = {}
        self._first_numbers: dict[tuple[int, int], int] = {}
        self._earlier = Earlier()
        self._retries_left: int | None = None

    # The job

    def submission(self) -> JobSubmitted:
        """Return the event that submits the job to the scheduler."""
        plan = self.plan
        specs = tuple(
            StageSpec(
                run.shards,
                tuple(plan.index(need) for need in run.stage.needs),
                run.stage.limits,
                run.stage.splittable,
                run.stage.memory_bytes,
                run.stage.priority,
                run.stage.cap,
            )
            for run in self.stages
        )
        left = self._retries_left
        return JobSubmitted(
            self.key,
            specs,
            plan.on_failure,
            plan.retry_share if left is None else 0.0,
            plan.retry_floor if left is None else left,
            tenant=self.records.context.tenant,
            tier=self.records.context.tier,
            deadline_ns=self.began_ns + int(plan.deadline * 1e9) if plan.deadline else 0,
            committed=self._done,
            cap=plan.cap,
            earlier=self._earlier,
        )

    def announce(self) -> None:
        """Record the plan of every stage. What an exchange will hold is added when it is known."""
        for run in self.stages:
            self.records.plan(run.stage.name, run.shards, sum(run.input_sizes))
        self.records.checkpoint()  # the plan is safe; from here on the lag says how much work is at stake

    def open(self, index: int) -> tuple[array[int], Sequence[str | None]]:
        """Return input sizes and preferred nodes of a stage's shards, now that everything it reads is there."""
        run = self.stages[index]
        reads = run.stage.reads
        if not run.opened:
            run.opened = True
            self._decide(Opened(index))
            for name in reads:
                self._add_input(run, self.stages[self.plan.index(name)].partition_sizes)
            if reads:
                self.records.plan(run.stage.name, 0, sum(run.input_sizes))
        shards = run.stage.shards or ()
        nodes = [part.node or None for part in shards] if any(part.node for part in shards) else ()
        return run.input_sizes, nodes

    def _add_input(self, run: StageRun, sizes: Sequence[int]) -> None:
        whole = sum(sizes)
        for shard in range(run.shards):
            part = run.parts.get(shard)
            if run.stage.shards is not None:
                run.input_sizes[shard] += whole
            elif part is None:
                run.input_sizes[shard] += sizes[shard]
            else:
                run.input_sizes[shard] += sizes[part.partition] // part.portion.of

    def split(self, action: Split) -> ShardSplit:
        """Replace a shard by smaller ones, if that can be done, and return what the scheduler is to know of it."""
        run = self.stages[action.stage]
        # Who reads it has been told which shards there are.
        is_read = any(run.stage.name in other.stage.reads and other.opened for other in self.stages)
        parts = [] if is_read else self._cut(run, action.shard, action.parts)
        if not parts:
            return ShardSplit(self.key, action.stage, action.shard)
        self._decide(Replaced(action.stage, action.shard, tuple(parts)))
        self.records.split(run.stage.name, run.name(action.shard), len(parts))
        run.split(action.shard, parts)
        return ShardSplit(self.key, action.stage, action.shard, [part.size for part in parts])

    def _cut(self, run: StageRun, shard: int, parts: int) -> list[Part]:
        """Return what may replace a shard; nothing where it cannot be cut."""
        if not run.stage.split:
            # The first stage that it reads is what its parts share out among them.
            sources = len(self.stages[self.plan.index(run.stage.reads[0])].positions())
            return cut(run, shard, min(parts, sources // run.portion(shard).of), None)
        given = {**run.stage.arguments, **(run.arguments(shard) or {})}
        try:
            pieces = [dict(piece) for piece in resolve(run.stage.split)(given, parts)]
        except Exception as error:  # the plan's own code: the shard runs whole, and the result says why
            self._note(run, shard, f"{run.stage.split} failed: {error!r}")
            return []
        return cut(run, shard, len(pieces), pieces)

    def _note(self, run: StageRun, shard: int, message: str) -> None:
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(ShardFailure(run.stage.name, run.name(shard), 0, Reason.EXCEPTION, "", message))

    # Attempts

    def order(self, attempt: AttemptId, speculative: bool) -> tuple[StageOrder, AttemptOrder]:
        """Return what a worker needs for an attempt that it is given now."""
        index, shard, number = attempt.stage, attempt.shard, self.number(attempt)
        if speculative:
            self._speculative.add(attempt)
        if self._log is not None:
            self._log.add(Dispatched(index, shard, number))
        return self._orders.attempt(index, shard, number, self._clock.time_ns(), speculative=speculative)

    def started(self, attempt: AttemptId, worker: str, start_ns: int) -> None:
        """Take in that a worker has begun an attempt."""
        run, shard = self.stages[attempt.stage], attempt.shard
        number, speculative = self.number(attempt), attempt in self._speculative
        run.running += 1
        run.attempts += 1
        run.speculative += speculative
        run.retries += number > 0 and not speculative
        if run.first_starts[shard] == 0:
            run.first_starts[shard] = start_ns
            if self._log is not None:
                self._log.add(Started(attempt.stage, shard, start_ns))
        name, size = run.name(shard), run.input_sizes[shard]
        self.records.dispatch(run.stage.name, name, number, worker, speculative=speculative, input_bytes=size)

    def ended(self, attempt: AttemptId, report: Report) -> None:
        """Take in how an attempt ended."""
        self.stages[attempt.stage].running -= 1
        self.outcomes[report.outcome] += 1
        self._speculative.discard(attempt)
        self._reports[attempt[1:3]] = report

    def charged(self, stage: int, shard: int, setbacks: Setbacks, retries: int) -> None:
        """Take in what is held against a shard by now, and what is left of the budget of retries."""
        self._decide(Charged(stage, shard, *setbacks, retries))

    def winner(self, attempt: AttemptId, output: Output) -> int:
        """Return the scheduler's number for the attempt whose output is in place; below 0 for an earlier life's."""
        return output.attempt - self._first_numbers.get(attempt[1:3], 0)

    def number(self, attempt: AttemptId) -> int:
        """Return the number of an attempt as all the world but the scheduler sees it."""
        return attempt.number + self._first_numbers.get(attempt[1:3], 0) if self._first_numbers else attempt.number

    def committed(self, attempt: AttemptId) -> None:
        """Take in that a shard is decided for an attempt, and count what it left."""
        index, shard, number = attempt.stage, attempt.shard, self.number(attempt)
        run = self.stages[index]
        report = self._reports.pop((index, shard))
        output = report.output
        is_value = output is None and index == len(self.stages) - 1
        if is_value:
            self.values[shard] = report.value
        run.committed(shard, output, report.bytes_read)
        if (index, shard) in self._decided:
            self._decided.remove((index, shard))
        else:
            size, rows = (0, 0) if output is None else (output.size, output.rows)
            self.records.commit(
                run.stage.name, run.name(shard), number, ShardOutcome.COMMITTED,
                first_start_ns=run.first_starts[shard], output_bytes=size, output_rows=rows,
            )  # fmt: skip
        if self._log is not None:
            value = report.value if output is None else None
            self._log.add(Committed(index, shard, number, value, report.bytes_read))

    def gave_up(self, attempt: AttemptId, reason: Reason, outcome: JobOutcome) -> None:
        """Take in that a shard is given up, and as what the job ends if that was the first thing to go wrong."""
        run = self.stages[attempt.stage]
        # None where its workers died without a word.
        report = self._reports.pop(attempt[1:3], Report(AttemptOutcome.ERROR, reason))
        run.failed += 1
        name, number = run.name(attempt.shard), self.number(attempt)
        failure = ShardFailure(run.stage.name, name, number + 1, reason, report.error_type, report.message)
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(failure)
        self._decide(GaveUp(attempt.stage, attempt.shard, failure, outcome))
        first_start_ns = run.first_starts[attempt.shard]
        self.records.commit(
            run.stage.name, name, number, ShardOutcome.FAILED,
            first_start_ns=first_start_ns, reason=reason, error_type=report.error_type,
        )  # fmt: skip

    def lost(self, stage: int, shard: int) -> bool:
        """Take in that a committed shard's output cannot be read; return whether that is news."""
        run = self.stages[stage]
        if (stage, shard) in self._decided or shard in run.replaced or self._is_intact(stage, shard):
            return False
        if self.root:
            open_files(self.root).drop(stage, shard)
        self._decided.add((stage, shard))
        run.lost(shard)
        self._decide(Lost(stage, shard))
        return True

    def _is_intact(self, stage: int, shard: int) -> bool:
        """Return whether output can be read after all: it was computed again while somebody still read the old one."""
        if not self.root:
            return False
        try:
            with open_files(self.root).opened(stage, shard) as reader:
                reader.everything()
        except ExchangeError:
            return False
        return True

    # The end

    def progress(self, workers: int) -> Progress:
        """Return how far it has come."""
        return Progress(self.records.context.job_id, self.plan.pipeline, self.elapsed(), self.stage_progress(), workers)

    def stage_progress(self) -> tuple[StageProgress, ...]:
        """Return how far each stage has come."""
        return tuple(run.progress() for run in self.stages)

    def elapsed(self) -> float:
        """Return the seconds since it was submitted, to this coordinator or to the first one."""
        return (self._clock.monotonic_ns() - self.began_ns) / 1e9

    def cancelled(self) -> None:
        """Take in that it is wanted no longer: no other coordinator goes on with it either."""
        self._decide(Cancelled())

    def finish(self, end: JobEnded) -> None:
        """Take in that it has ended, and record it."""
        self.records.end(end.outcome, end.reason)
        self.wall = self.elapsed()
        self.flush()
        self.end = end

    def abandon(self) -> None:
        """Record and decide nothing more: another coordinator has the job."""
        self.records.mute()
        self.close()

    def flush(self) -> None:
        """Write down what was decided. Raises `OSError`."""
        self.records.flush()
        if self._log is not None:
            self._log.flush()

    def close(self) -> None:
        """Let go of the file of decisions."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _decide(self, decision: Decision) -> None:
        if self._log is not None:
            self._log.add(decision)

    # A job taken over

    def restore(self, old: Recovered, in_place: Mapping[int, Mapping[int, Output]]) -> None:
        """
        Go on where an earlier coordinator died: take in what it decided, and the output that is `in_place` by stage.

        What was put in place without its hearing of it is committed now.
        """
        self.failures = old.failures[:_MOST_FAILURES]
        self._earlier = old.earlier()
        self.began_ns -= max(self._clock.time_ns() - old.begun.submitted_ns, 0)
        planned = sum(run.shards for run in self.stages)
        budget = retry_budget(planned, self.plan.retry_share, self.plan.retry_floor)
        self._retries_left = budget if old.retries is None else old.retries
        for run in self.stages:
            self._restore_stage(run, old.stage(run.index), in_place.get(run.index, {}))
        for run in self.stages:
            for name in run.stage.reads if run.opened else ():
                self._add_input(run, self.stages[self.plan.index(name)].partition_sizes)

    def _restore_stage(self, run: StageRun, known: RecoveredStage, outputs: Mapping[int, Output]) -> None:
        for _, shard, parts in known.replaced:
            run.split(shard, parts)
        run.opened = known.opened
        for shard, start_ns in known.first_starts.items():
            run.first_starts[shard] = start_ns
        for shard, number in known.next_numbers.items():
            self._first_numbers[run.index, shard] = number
        run.failed = len(known.given_up)
        # A shard may have been given up while it was being split: nobody wants its parts.
        over = {part for shard in known.given_up for part in run.leaves(shard)}
        self._done[run.index] = [*run.replaced, *over]
        for shard in run.positions():
            if shard not in over:
                self._recommit(run, shard, known.committed.get(shard), outputs.get(shard))

    def _recommit(self, run: StageRun, shard: int, known: Committed | None, output: Output | None) -> None:
        """Take a shard as committed whose output is there: in its place, or in what the earlier coordinator wrote."""
        if output is None and (known is None or known.value is None):
            if known is not None:
                self._decided.add((run.index, shard))  # it was said; its output is gone
            return
        if output is None and known is not None and run.index == len(self.stages) - 1:
            self.values[shard] = known.value or b""
        run.committed(shard, output, 0 if known is None else known.bytes_read)
        self._done[run.index].append(shard)
        if known is None and output is not None:
            self._decide(Committed(run.index, shard, output.attempt, None, 0))
            self.records.commit(
                run.stage.name, run.name(shard), output.attempt, ShardOutcome.COMMITTED,
                first_start_ns=run.first_starts[shard], output_bytes=output.size, output_rows=output.rows,
            )  # fmt: skip
