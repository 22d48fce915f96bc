"""
The scheduler and the simulated world, brought together: events go in, actions are done, whoever watches is told.

The coordinator is simulated too: it may be killed, and a standby takes its place with what the journal of decisions and
the outputs in place tell; or it may live and get nothing through for a while.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    BudgetSpent,
    Commit,
    Event,
    JobEnded,
    Scale,
    SetAside,
    ShardFailed,
    ShardSplit,
    Split,
    StageDone,
    StageOpened,
    StageReady,
    Stop,
    Submit,
    Tick,
    WaitUntil,
    WorkerLost,
    WorkerUp,
)
from mppobs.executor.faults import ArmedFault, Fault, FaultKind, Layer, arm
from mppobs.executor.policies import Policy
from mppobs.executor.scheduler import Scheduler
from mppobs.executor.sim.fate import skewed_sizes
from mppobs.executor.sim.jobs import COMMITTED, OPEN, JobState, StageState
from mppobs.executor.sim.model import Cluster, JobModel
from mppobs.executor.sim.observe import Observer, Tried
from mppobs.executor.sim.places import Running, SimWorker
from mppobs.executor.sim.timetable import NEVER, Step, Timetable
from mppobs.executor.sim.world import World
from mppobs.model import AttemptOutcome, Reason, ShardOutcome

LEASE: Final = 30.0
"""Seconds after which the standby takes over where the fault does not say."""
_NO_BUDGETS: Final[Mapping[str, float]] = MappingProxyType({})
_NS: Final = 1e9


class Simulation:
    """
    Jobs on a simulated cluster. The same arguments give the same history, event by event.

    >>> from mppobs.executor.sim.model import StageModel
    >>> job = JobModel("nightly", "nightly-1", (StageModel("map", 20, seconds=10.0),))
    >>> simulation = Simulation(Cluster(nodes=2), seed=7)
    >>> simulation.submit(job)
    >>> simulation.run()
    >>> simulation.jobs[0].end.outcome
    <JobOutcome.SUCCESS: 'success'>
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        seed: int = 0,
        policy: Policy | None = None,
        faults: Sequence[Fault] = (),
        observer: Observer | None = None,
        start_ns: int = 0,
        beat: float = 0.0,
        budgets: Mapping[str, float] = _NO_BUDGETS,
    ) -> None:
        """
        Set up a cluster at `start_ns`, from which the faults are counted; `beat` is the seconds between heartbeats.

        `budgets` are US dollars that tenants may spend on attempts; the scheduler is told when one is gone. Faults of
        the layer `LOAD` are for whoever submits, and change nothing here.
        """
        of_world = [fault for fault in faults if fault.about.layer not in (Layer.CONTROL, Layer.LOAD)]
        self.world = World(cluster, seed, of_world, start_ns)
        self.jobs: list[JobState] = []
        self.events = 0
        """Events that the scheduler was told."""
        self.found = 0
        """Outputs that a standby found in place and nobody had committed."""
        self._seed = seed
        self._policy = policy or Policy()
        self._observer = observer or Observer()
        self._watched = type(self._observer).tried is not Observer.tried or bool(budgets)
        self._left = dict(budgets)
        self._scheduler: Scheduler | None = Scheduler(random.Random(seed), self._policy)
        self._times = Timetable(start_ns, int(beat * _NS), self._steps(arm(faults, start_ns)))
        self._stalled = False
        self._backlog: list[Event] = []
        self._open: dict[str, JobState] = {}
        self._orphaned: dict[str, JobState] = {}
        self._workers: dict[str, SimWorker] = {}
        self._todo: deque[Event] = deque()
        self._news = self._all_news()
        self._deeds = self._all_deeds()

    def _all_news(self) -> dict[type, Callable[[Any], Event]]:
        """Return what is noted of each kind of event before the scheduler is told."""
        return {
            AttemptStarted: self._on_started,
            AttemptEnded: self._on_ended,
            WorkerUp: self._on_up,
            WorkerLost: self._on_lost,
        }

    def _all_deeds(self) -> dict[type, Callable[[Any], None]]:
        """Return what is done about each kind of action."""
        world, observer = self.world, self._observer
        return {
            StageReady: self._open_stage,
            Submit: self._submit,
            Stop: lambda action: world.stop(action.attempt, action.outcome),
            Commit: self._commit,
            ShardFailed: self._give_up,
            Split: self._split,
            StageDone: lambda action: observer.checkpointed(self._open[action.job], world.now_ns),
            JobEnded: self._end_job,
            WaitUntil: self._wait_until,
            Scale: lambda action: world.resize(action.workers),
            SetAside: lambda action: observer.control(f"set aside {action.node}", world.now_ns),
        }

    def submit(self, job: JobModel, at: float = 0.0) -> None:
        """Have a job submitted so many seconds from now."""
        self._times.submit(job, self.world.now_ns + int(at * _NS))

    def grant(self, tenant: str, usd: float) -> None:
        """Give a tenant more to spend, or less; the scheduler is told where that makes a difference."""
        before = self._left.get(tenant, 0.0)
        self._left[tenant] = before + usd
        if (before > 0) != (before + usd > 0):
            self._observer.control(f"budget of {tenant} {'gone' if before > 0 else 'there again'}", self.world.now_ns)
            if self._scheduler is not None:
                self._tell(BudgetSpent(tenant, before > 0))

    def run(self, until: float | None = None) -> None:
        """Let time pass until every job has ended, or for so many seconds."""
        end = NEVER if until is None else self.world.now_ns + int(until * _NS)
        world, times = self.world, self._times
        while times.arrivals or self._open:
            limit = min(times.due(), end)
            if limit == NEVER and world.next_ns < 0:
                raise RuntimeError(f"nothing happens any more, but {len(self._open)} jobs are open")
            event = world.next(limit)
            if event is not None:
                self._hear(event)
            elif world.now_ns >= end:
                return
            else:
                self._on_time(world.now_ns)

    # Time

    def _on_time(self, now_ns: int) -> None:
        """Do what is due."""
        for step in self._times.steps(now_ns):
            step()
        for job in self._times.arrived(now_ns):
            self._arrive(job)
        if self._times.rings(now_ns):
            self._hear(Tick())
        if self._times.beats(now_ns) and self._scheduler is not None:
            self._observer.beat(self._scheduler.load(), now_ns)

    def _arrive(self, model: JobModel) -> None:
        job = JobState(model, len(self.jobs), self.world.now_ns)
        self.jobs.append(job)
        self._open[job.key] = job
        self._observer.submitted(job, self.world.now_ns)
        self._hear(job.submission(self.world.now_ns))

    # The coordinator

    def _steps(self, faults: Iterable[ArmedFault]) -> list[tuple[int, Step]]:
        """Return what is done to the coordinator, and when."""
        steps: list[tuple[int, Step]] = []
        for fault, begin, end in faults:
            if fault.kind is FaultKind.COORDINATOR:
                takeover = end if fault.lasts else begin + int(LEASE * _NS)
                steps += [(begin, self.kill), (takeover, self.take_over)]
            elif fault.kind is FaultKind.STALLED_CONTROL:
                steps.append((begin, self.stall))
                if fault.lasts:
                    steps.append((end, self.go_on))
        return steps

    def kill(self) -> None:
        """Have the coordinator die. Workers finish what they run, and put it in place."""
        if self._scheduler is not None:
            for job in self._open.values():
                job.write_down(self._scheduler)
        self._scheduler, self._times.alarm_ns = None, NEVER
        self._observer.control("killed", self.world.now_ns)

    def take_over(self) -> None:
        """Have a standby go on from the decisions that were recorded and the outputs that are in place."""
        now = self.world.now_ns
        if self._scheduler is not None:
            self.kill()  # two died at about the same time, and another standby was here first
        self._scheduler = Scheduler(random.Random(self._seed), self._policy)
        self._observer.control("takeover", now)
        for name, worker in self.world.workers.items():
            node = worker.node
            if not node.leaving:
                self._tell(WorkerUp(name, node.name, node.zone, node.spot, self.world.cluster.lane_memory))
        for tenant in [tenant for tenant, left in self._left.items() if left <= 0]:
            self._tell(BudgetSpent(tenant, True))
        for job in list(self._open.values()):
            self._orphaned[job.key] = self._open.pop(job.key)
            for attempt in job.resume(f"{job.key}~"):
                self._committed(job, attempt)
                self.found += 1
            self._open[job.key] = job
            self._tell(job.submission(now))

    def stall(self) -> None:
        """Have the coordinator hang: nothing reaches it, and it decides nothing."""
        self._stalled = True
        self._observer.control("stalled", self.world.now_ns)

    def go_on(self) -> None:
        """Have a coordinator that hung go on with all that it missed."""
        self._stalled = False
        self._observer.control("goes on", self.world.now_ns)
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            self._tell(event)

    def _hear(self, event: Event) -> None:
        """Take in what happened, and tell the scheduler, if there is one that listens."""
        take_in = self._news.get(type(event))
        if take_in is not None:
            event = take_in(event)
        if self._scheduler is None:
            return
        if self._stalled:
            self._backlog.append(event)
        else:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        """Tell the scheduler of an event and do what it decides, and what follows from that."""
        assert self._scheduler is not None
        todo, deeds, on, now_ns = self._todo, self._deeds, self._scheduler.on, self.world.now_ns
        self.events += 1
        for action in on(event, now_ns):
            deeds[type(action)](action)
        while todo:
            self.events += 1
            for action in on(todo.popleft(), now_ns):
                deeds[type(action)](action)

    # What happened

    def _on_up(self, event: WorkerUp) -> WorkerUp:
        worker = self._workers[event.worker] = self.world.workers[event.worker]
        self._observer.worker_up(event.worker, worker.node, self.world.now_ns)
        return event

    def _on_started(self, event: AttemptStarted) -> AttemptStarted:
        running = self.world.last
        assert running is not None
        job, stage = self._place(running.attempt)
        shard, number = running.attempt.shard, running.attempt.number + running.demand.offset
        if stage.first_starts[shard] < 0:
            stage.first_starts[shard] = running.started_ns
        if stage.tries[shard] <= number:
            stage.tries[shard] = number + 1
        self._observer.started(job, running.attempt.stage, shard, number, running.worker.name, running.speculative)
        return event

    def _on_ended(self, event: AttemptEnded) -> AttemptEnded:
        """Take in the end of an attempt; the first whose output is in place wins, whoever ran it."""
        running = self.world.last
        assert running is not None
        job, stage = self._place(event.attempt)
        if event.outcome is AttemptOutcome.SUCCESS:
            winner = stage.outputs.setdefault(event.attempt.shard, event.attempt)
            if winner is not event.attempt:
                event = event._replace(
                    outcome=AttemptOutcome.SUPERSEDED, reason=Reason.SUPERSEDED, winner=winner.number
                )
        if running.started_ns >= 0 and self._watched:
            self._tried(job, running, event.outcome, event.reason)
        return event

    def _on_lost(self, event: WorkerLost) -> WorkerLost:
        worker = self._workers.pop(event.worker)
        outcome = AttemptOutcome.PREEMPTED if event.reason is Reason.PREEMPTED else AttemptOutcome.ERROR
        for running in worker.queue:
            if running.started_ns >= 0:
                self._tried(self._place(running.attempt)[0], running, outcome, event.reason)
        self._observer.worker_lost(event.worker, worker.node, event.reason, self.world.now_ns)
        return event

    def _tried(self, job: JobState, running: Running, outcome: AttemptOutcome, reason: Reason) -> None:
        attempt, node = running.attempt, running.worker.node
        end_ns = min(self.world.now_ns, node.down_ns) if node.down_ns >= 0 else self.world.now_ns
        self._observer.tried(
            Tried(
                job, attempt.stage, attempt.shard, attempt.number + running.demand.offset, running.speculative,
                running.worker.name, node, running.started_ns, end_ns, running.assigned_ns, outcome, reason,
                running.fate,
            )
        )  # fmt: skip
        if job.model.tenant in self._left:
            hours = (end_ns - running.started_ns) / 3600e9
            self.grant(job.model.tenant, -hours * self.world.price(node.spot) / self.world.cluster.lanes)

    # What is decided

    def _open_stage(self, action: StageReady) -> None:
        job, index = self._open[action.job], action.stage
        stage = job.stages[index]
        sizes = stage.model.sizes(self._seed, job.number, index)
        stage.open(skewed_sizes(sizes, (stage.model.name, job.model.pipeline), self.world.faults))
        self._observer.opened(job, index, self.world.now_ns)
        self._todo.append(StageOpened(action.job, index, stage.sizes))

    def _submit(self, action: Submit) -> None:
        attempt = action.attempt
        self.world.submit(action.worker, attempt, self._open[attempt.job].demand(attempt), action.speculative)

    def _commit(self, action: Commit) -> None:
        self._committed(self._open[action.attempt.job], action.attempt)

    def _committed(self, job: JobState, attempt: AttemptId) -> None:
        stage = job.stages[attempt.stage]
        assert stage.status[attempt.shard] == OPEN, f"{attempt} is decided already"
        stage.status[attempt.shard] = COMMITTED
        # The winner may be an attempt of an earlier coordinator, whose numbers are not this one's.
        winner = stage.outputs[attempt.shard]
        number = winner.number + (stage.offsets.get(attempt.shard, 0) if winner.job == job.key else 0)
        self._observer.decided(
            job, attempt.stage, attempt.shard, number, ShardOutcome.COMMITTED, Reason.NONE, self.world.now_ns
        )

    def _give_up(self, action: ShardFailed) -> None:
        job, stage = self._place(action.attempt)
        attempt = action.attempt
        job.give_up(stage, attempt.shard, action.outcome, action.reason)
        number = attempt.number + stage.offsets.get(attempt.shard, 0)
        now = self.world.now_ns
        self._observer.decided(job, attempt.stage, attempt.shard, number, ShardOutcome.FAILED, action.reason, now)

    def _split(self, action: Split) -> None:
        """Cut a shard into equal parts, as far as it has that many bytes."""
        job = self._open[action.job]
        stage = job.stages[action.stage]
        size, parts = stage.sizes[action.shard], action.parts
        cuts = [size * part // parts for part in range(parts + 1)]
        sizes = [high - low for low, high in itertools.pairwise(cuts)] if size >= parts else []
        if sizes:
            stage.split(action.shard, sizes)
            self._observer.split(job, action.stage, action.shard, parts, self.world.now_ns)
        self._todo.append(ShardSplit(action.job, action.stage, action.shard, sizes))

    def _end_job(self, action: JobEnded) -> None:
        job = self._open.pop(action.job)
        job.end, job.end_ns = action, self.world.now_ns
        self._orphaned[action.job] = job
        self._observer.ended(job, self.world.now_ns)

    def _wait_until(self, action: WaitUntil) -> None:
        self._times.alarm_ns = action.time_ns

    def _place(self, attempt: AttemptId) -> tuple[JobState, StageState]:
        """Return the job and the stage of an attempt, which may be of an earlier coordinator."""
        job = self._open.get(attempt.job) or self._orphaned[attempt.job]
        return job, job.stages[attempt.stage]
