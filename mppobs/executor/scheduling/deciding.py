"""What becomes of shards: committed, tried again, given up, replaced by smaller ones, computed once more."""

from __future__ import annotations

from collections.abc import Mapping

from mppobs.executor import policies
from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    Commit,
    Earlier,
    JobEnded,
    OutputLost,
    Setbacks,
    ShardFailed,
    ShardSplit,
    StageDone,
    StageReady,
)
from mppobs.executor.policies import Blame
from mppobs.executor.scheduling.book import Book
from mppobs.executor.scheduling.jobs import (
    COMMITTED,
    FAILED,
    REPLACED,
    UNDECIDED,
    Job,
    Running,
    Special,
    Stage,
)  # fmt: skip
from mppobs.model import AttemptOutcome, JobOutcome, Reason

_FAILURES = frozenset({AttemptOutcome.FAILURE, AttemptOutcome.TIMEOUT})
_OUT_OF_MEMORY = frozenset({Reason.OOM_KILLED, Reason.MEMORY})


class Decider:
    """Decides shards, and with them stages and jobs."""

    def __init__(self, book: Book) -> None:
        self._book = book

    # Shards

    def succeeded(self, stage: Stage, winner: AttemptId) -> None:
        """Decide a shard for an attempt, unless it may be replaced any moment."""
        if winner.shard in stage.splits.asking:
            stage.splits.asking[winner.shard] = winner
        else:
            self._commit(stage, winner)

    def _commit(self, stage: Stage, winner: AttemptId) -> None:
        """Decide a shard for an attempt, and stop the others that are at it."""
        self._book.out.append(Commit(winner))
        stage.status[winner.shard] = COMMITTED
        self._stop_others(stage, winner.shard)
        self._decided(stage)

    def _stop_others(self, stage: Stage, shard: int) -> None:
        """Stop what is at a shard that is decided, and let go of what was kept for it."""
        rivals = stage.copies(shard)
        for rival in rivals:
            self._book.stop(rival, AttemptOutcome.SUPERSEDED)
        special = stage.special.get(shard)
        if special is None:
            return
        if not special.is_bound:
            del stage.special[shard]
        elif not rivals:
            self._book.give_node_back(special)

    def try_again(self, running: Running, event: AttemptEnded, now_ns: int) -> None:
        """Count an attempt that came to nothing against its limit; retry the shard, now or later, or give it up."""
        stage, shard = running.stage, event.attempt.shard
        outcome = running.stop if running.stop is not None else event.outcome
        others = stage.copies(shard)
        if stage.needs and not stage.closed and event.reason is Reason.STORAGE and not event.throttled:
            # It had no chance: what it reads is being computed again.
            if not others:
                stage.again.append(shard)
            return
        blame = policies.blame_for(outcome, event.reason)
        counts = stage.counts[blame]
        counts[shard] = min(counts[shard] + 1, 255)
        if stage.closed:
            return
        if outcome is AttemptOutcome.TIMEOUT:
            # A worker that had to be killed for it looks lost; the attempt was late first.
            event = event._replace(reason=Reason.DEADLINE)
        self._note_needs(running, event, blame, counts[shard])
        if others and not event.permanent:
            return  # the last of them decides
        reason = self._why_not(stage, event, blame, counts[shard])
        if reason is not None:
            self._give_up(stage, event.attempt, outcome, reason)
            return
        delay = self._backoff(stage, event, blame, counts[shard]) if self._book.policy.backoff else 0
        if delay > 0:
            self._book.timers.at(now_ns + delay, lambda _: self.line_up(stage, shard))
        else:
            self.line_up(stage, shard)

    def line_up(self, stage: Stage, shard: int) -> None:
        """Have a shard tried again as soon as a worker has room."""
        if not stage.closed and stage.status[shard] == UNDECIDED:
            stage.again.append(shard)
            self._book.enlist(stage)

    def _why_not(self, stage: Stage, event: AttemptEnded, blame: Blame, count: int) -> Reason | None:
        """Return why a shard may not be tried again, or `None` where it may; a retry is then taken from the budget."""
        limits = stage.limits
        if blame is Blame.WORKER:
            return event.reason if count > limits.losses else None
        if blame is Blame.EVICTION:
            return Reason.PREEMPTED if count > limits.preemptions else None
        if event.permanent:
            return event.reason
        if count >= limits.attempts:
            # What the platform did is worth more than the fact that it did it four times.
            return Reason.RETRIES_EXHAUSTED if event.reason in (Reason.NONE, Reason.EXCEPTION) else event.reason
        if self._book.policy.retry_budget:
            if stage.job.retries <= 0:
                return Reason.RETRIES_EXHAUSTED
            stage.job.retries -= 1
        return None

    def _backoff(self, stage: Stage, event: AttemptEnded, blame: Blame, count: int) -> int:
        """Return how long a shard waits before its next attempt."""
        chance = self._book.chance
        if blame is Blame.EVICTION:
            return 0
        if blame is Blame.WORKER:
            return policies.backoff_after_loss(stage.limits, count, chance)
        if event.throttled:
            return policies.backoff_half_jitter(stage.limits, count, event.retry_after_ns, chance)
        return policies.backoff_full_jitter(stage.limits, count, chance)

    def _note_needs(self, running: Running, event: AttemptEnded, blame: Blame, count: int) -> None:
        """Note what the next attempt needs of its worker, by what went wrong with this one."""
        policy, stage, shard = self._book.policy, running.stage, event.attempt.shard
        if policy.memory_retry and event.reason in _OUT_OF_MEMORY:
            special = stage.special.setdefault(shard, Special())
            special.out_of_memory = True
            used = policies.memory_after_oom(running.worker.memory, event.peak_memory_bytes)
            special.memory = max(special.memory, used)
        if policy.spot is not None and blame is Blame.EVICTION and count >= policy.spot.evictions:
            stage.special.setdefault(shard, Special()).on_demand = True
        if policy.zones and len(self._book.pool.zones) > 1 and policies.avoids_zone(blame, event.reason):
            special = stage.special.setdefault(shard, Special())
            special.zones |= running.worker.zone
            special.wait_ns = policies.wait_for_zone(event.duration_ns, stage.timing.mean_ns)

    def _give_up(self, stage: Stage, attempt: AttemptId, outcome: AttemptOutcome, reason: Reason) -> None:
        """Decide a shard as failed, and do with the job what it asked for in that case."""
        ending = JobOutcome.FAILURE if outcome in _FAILURES else JobOutcome.ERROR
        self._book.out.append(ShardFailed(attempt, reason, ending))
        stage.status[attempt.shard] = FAILED
        stage.failed += 1
        self._stop_others(stage, attempt.shard)
        stage.job.blame(ending, reason)
        if stage.job.stops:
            self.stop_job(stage.job)
        self._decided(stage)

    # Shards that are split, and output that is lost

    def split(self, event: ShardSplit) -> None:
        """Put smaller shards in the place of one, or leave it as it is."""
        job = self._book.jobs.get(event.job)
        if job is None:
            return
        stage, shard = job.stages[event.stage], event.shard
        winner = stage.splits.asking.pop(shard, None)
        stage.splits.asked[shard] = None
        if not event.sizes:
            self._leave_whole(stage, shard, winner)
        elif stage.closed or stage.status[shard] != UNDECIDED:
            stage.add(event.sizes, FAILED)  # nobody wants them any more, but they have their positions
        else:
            children = stage.add(event.sizes, UNDECIDED)
            stage.splits.asked.update(dict.fromkeys(children))
            stage.status[shard] = REPLACED
            stage.again.extend(children)
            self._stop_others(stage, shard)
            self._decided(stage)
            self._book.enlist(stage)
        self.end_if_over(job)

    def _leave_whole(self, stage: Stage, shard: int, winner: AttemptId | None) -> None:
        """Go on with a shard that cannot be split."""
        if stage.closed or stage.status[shard] != UNDECIDED:
            return
        if winner is not None:
            self._commit(stage, winner)
        elif shard in stage.splits.apart:
            self.line_up(stage, shard)

    def output_lost(self, event: OutputLost) -> None:
        """Compute a committed shard again, and hold back what reads it."""
        job = self._book.jobs.get(event.job)
        stage = job.stages[event.stage] if job is not None else None
        if job is None or stage is None or job.stopping or stage.failed or stage.status[event.shard] != COMMITTED:
            return
        if stage.dependents and all(dependent.closed for dependent in stage.dependents):
            return  # whoever read it is done
        if stage.done:
            stage.closed = False
            job.left += 1
            for dependent in stage.dependents:
                dependent.needs += 1
        stage.status[event.shard] = UNDECIDED
        stage.decided -= 1
        losses = stage.counts[Blame.WORKER]
        losses[event.shard] = min(losses[event.shard] + 1, 255)
        if losses[event.shard] > stage.limits.losses:
            last = AttemptId(job.key, stage.index, event.shard, max(stage.numbers[event.shard] - 1, 0))
            self._give_up(stage, last, AttemptOutcome.ERROR, Reason.STORAGE)
            self.end_if_over(job)
        elif stage.opened:
            self.line_up(stage, event.shard)
        elif not stage.ready and not stage.needs:
            self.ready(stage)  # a resumed job had found it complete

    # Stages and jobs

    def begin(self, job: Job, earlier: Earlier) -> None:
        """Ask for the stages of a job that can be opened, after all that it went through under other coordinators."""
        for stage in job.stages:
            given_up, setbacks = earlier.given_up.get(stage.index, ()), earlier.setbacks.get(stage.index, {})
            if given_up or setbacks:
                stage.recall(given_up, setbacks)
                self._keep_from_spot(stage, setbacks)
        for stage in [stage for stage in job.stages if stage.done]:
            job.left -= 1
            for dependent in stage.dependents:
                if stage.failed:
                    self._close(dependent)
                else:
                    dependent.needs -= 1
        if earlier.cancelled or (job.stops and job.outcome is not JobOutcome.SUCCESS):
            self.stop_job(job)
        for stage in job.stages:
            if stage.needs == 0 and not stage.closed:
                self.ready(stage)
        self.end_if_over(job)

    def _keep_from_spot(self, stage: Stage, setbacks: Mapping[int, Setbacks]) -> None:
        """Have shards that were evicted often run where that does not happen."""
        rules = self._book.policy.spot
        for shard, had in setbacks.items():
            if rules is not None and had.preemptions >= rules.evictions:
                stage.special.setdefault(shard, Special()).on_demand = True

    def ready(self, stage: Stage) -> None:
        """Ask for a stage to be opened."""
        stage.ready = True
        self._book.out.append(StageReady(stage.job.key, stage.index))

    def _decided(self, stage: Stage) -> None:
        """Count a decided shard; at the last one, go on to the stages that waited for this one."""
        stage.decided += 1
        if not stage.done or stage.closed:
            return
        stage.job.left -= 1
        stage.closed = True
        if stage.failed:
            for dependent in stage.dependents:
                self._close(dependent)
            return
        self._book.out.append(StageDone(stage.job.key, stage.index))
        for dependent in stage.dependents:
            dependent.needs -= 1
            if dependent.needs or dependent.closed:
                continue
            if not dependent.ready:
                self.ready(dependent)
            elif dependent.opened:
                self._book.enlist(dependent)

    def stop_job(self, job: Job) -> None:
        """Start nothing more of a job and stop what runs."""
        job.stopping = True
        for stage in job.stages:
            self._close(stage)
            for running in stage.held.values():
                self._book.stop(running, AttemptOutcome.CANCELLED)
        self._book.forget_all(job)

    def _close(self, stage: Stage) -> None:
        """Start nothing more of a stage, nor of those that need it."""
        if stage.closed:
            return
        stage.closed = True
        stage.again.clear()
        stage.job.left -= 1
        for dependent in stage.dependents:
            self._close(dependent)

    def end_if_over(self, job: Job) -> None:
        """End a job when nothing is left to start and nothing runs."""
        if job.left == 0 and job.running == 0 and self._book.jobs.pop(job.key, None) is not None:
            for stage in job.stages:
                stage.backups.clear()
                for shard in list(stage.pending_backups):
                    self._book.drop_copy(stage, shard)
            self._book.forget_all(job)
            self._book.tenants.end(job)
            self._book.out.append(JobEnded(job.key, job.outcome, job.reason))
