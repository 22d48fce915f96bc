"""Whose turn it is: against a second implementation that looks at everything each time, and rule by rule."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptStarted,
    BudgetSpent,
    JobSubmitted,
    StageOpened,
    StageReady,
    StageSpec,
    Submit,
    WorkerUp,
)
from mppobs.executor.plan import Limits
from mppobs.executor.policies import Policy, Share, due_at
from mppobs.executor.scheduler import Scheduler
from mppobs.model import AttemptOutcome, Reason, Tier
from tests.executor.stand import SECOND, Stand, job, submits, workers

MANY = workers(*(["n"] * 12))


@dataclass
class NaiveJob:
    """A job as the naive scheduler sees it."""

    event: JobSubmitted
    number: int
    due: int
    left: list[int]
    held: int = 0
    begun: bool = False


@dataclass
class Naive:
    """Decides whose turn it is by going through all jobs of all tenants: slow, and plainly what the rules say."""

    policy: Policy
    tenants: list[str] = field(default_factory=list)
    jobs: list[NaiveJob] = field(default_factory=list)

    def held(self, tenant: str) -> int:
        return sum(each.held for each in self.jobs if each.event.tenant == tenant)

    def may(self, each: NaiveJob) -> bool:
        """Return whether a job may start something."""
        share = self.policy.share_of(each.event.tenant)
        begun = sum(o.begun and (bool(o.left) or o.held > 0) for o in self.jobs if o.event.tenant == each.event.tenant)
        if not each.begun and 0 < share.jobs <= begun:
            return False
        if 0 < share.quota <= self.held(each.event.tenant) or 0 < each.event.cap <= each.held:
            return False
        return bool(each.left)

    def next(self) -> tuple[str, int] | None:
        """Return the job and shard that go next."""
        ready = [each for each in self.jobs if self.may(each)]
        if not ready:
            return None
        names = {each.event.tenant for each in ready}
        tenant = min(names, key=lambda n: (self.held(n) / self.policy.share_of(n).weight, self.tenants.index(n)))
        chosen = min((each for each in ready if each.event.tenant == tenant), key=lambda each: (each.due, each.number))
        chosen.begun = True
        chosen.held += 1
        return chosen.event.job, chosen.left.pop(0)


def random_job(chance: random.Random, key: str, tenants: list[str]) -> JobSubmitted:
    """Return a job of some tenant, with or without a deadline and a cap."""
    return JobSubmitted(
        key,
        (StageSpec(chance.randint(1, 12)),),
        tenant=chance.choice(tenants),
        tier=chance.choice(list(Tier)),
        deadline_ns=chance.choice((0, 3600 * SECOND)),
        cap=chance.choice((0, 0, 1, 3)),
    )


@pytest.mark.parametrize("seed", range(60))
def test_turns_are_as_a_naive_scheduler_gives_them(seed: int) -> None:
    """With random weights, quotas, caps, deadlines and fates, every shard goes when the plain rules say."""
    chance = random.Random(seed)
    names = [f"t{n}" for n in range(chance.randint(1, 5))]
    shares = {n: Share(chance.choice((0.5, 1.0, 3.0)), chance.choice((0, 2, 5)), chance.choice((0, 1))) for n in names}
    policy = Policy(tenants=shares, speculation=None)
    naive, scheduler = Naive(policy), Scheduler(random.Random(1), policy)
    for number in range(chance.randint(1, 8)):
        scheduler.on(WorkerUp(f"w{number}"), 0)
    free, held, now = len(scheduler._book.pool.workers), [], 0
    arriving = [random_job(chance, f"j{n}", names) for n in range(12)]
    while arriving or held:
        now += SECOND
        if arriving and (not held or chance.random() < 0.3):
            event = arriving.pop()
            if event.tenant not in naive.tenants:
                naive.tenants.append(event.tenant)
            number, due = len(naive.jobs), due_at(now, event.deadline_ns, event.tier)
            assert scheduler.on(event, now)[0] == StageReady(event.job, 0)
            naive.jobs.append(NaiveJob(event, number, due, list(range(event.stages[0].shards))))
            actions = scheduler.on(StageOpened(event.job, 0), now)
        else:
            attempt = held.pop(chance.randrange(len(held)))
            scheduler.on(AttemptStarted(attempt), now)
            free += 1
            next(each for each in naive.jobs if each.event.job == attempt.job).held -= 1
            actions = scheduler.on(AttemptEnded(attempt, AttemptOutcome.SUCCESS, duration_ns=SECOND), now)
        expected = []
        while free > 0 and (turn := naive.next()) is not None:
            free -= 1
            expected.append(turn)
        given = [action.attempt for action in actions if isinstance(action, Submit)]
        assert [(each.job, each.shard) for each in given] == expected
        held += given


def test_weights_share_the_workers() -> None:
    """Of twelve workers a tenant of weight 3 has nine, one of weight 1 three, whoever came first."""
    stand = Stand(Policy(tenants={"a": Share(3.0)}), *MANY)
    stand.begin(job(50, "b")._replace(tenant="b"))
    stand.begin(job(50, "a")._replace(tenant="a"))
    for _ in range(40):
        stand.start()
        stand.finish(next(iter(stand.held)))
    assert sorted(attempt.job for attempt in stand.held) == ["a"] * 9 + ["b"] * 3


def test_a_small_tenant_is_not_starved() -> None:
    """However much another tenant keeps sending, a job that comes later has its share of the next free workers."""
    stand = Stand(Policy(), *MANY)
    stand.begin(job(5000, "flood")._replace(tenant="flood"))
    stand.begin(job(6, "small")._replace(tenant="small"))
    stand.start()
    for _ in range(30):
        stand.finish(next(iter(stand.held)))
        stand.start()
    assert stand.scheduler._book.jobs.keys() == {"flood"}, "the small one is done"


def test_without_fairness_the_first_comes_first() -> None:
    """With the policy off, jobs are served in their order, whose ever they are."""
    stand = Stand(Policy(fair=False), *MANY)
    stand.begin(job(50, "a")._replace(tenant="a"))
    stand.begin(job(50, "b")._replace(tenant="b"))
    stand.start()
    stand.finish(*list(stand.held)[:4])
    assert {attempt.job for attempt in stand.held} == {"a"}


def test_quota_and_caps_hold_what_is_idle() -> None:
    """A tenant's quota, a job's cap and a stage's cap each keep workers idle rather than be passed."""
    cases = (
        (Policy(share=Share(quota=4)), job(20)),
        (Policy(), job(20)._replace(cap=4)),
        (Policy(), job(20, cap=4)),
    )
    for policy, submitted in cases:
        stand = Stand(policy, *MANY)
        assert len(submits(stand.begin(submitted))) == 4
        stand.start()
        assert len(submits(stand.finish(next(iter(stand.held))))) == 1


def test_jobs_at_a_time_are_those_due_first() -> None:
    """A tenant that may have one job at a time has the next one begin when the first is over."""
    stand = Stand(Policy(share=Share(jobs=1)), *MANY)
    stand.begin(job(1, "first"))
    stand.begin(job(1, "later")._replace(deadline_ns=9 * SECOND))
    stand.begin(job(1, "sooner")._replace(deadline_ns=5 * SECOND))
    for expected in ("first", "sooner", "later"):
        (attempt,) = stand.held
        assert attempt.job == expected
        stand.start()
        stand.finish(attempt)


def test_the_earliest_deadline_goes_first() -> None:
    """A job with a deadline overtakes one without, a critical one a standard one, and not with the policy off."""
    for policy, expected in ((Policy(), ["soon", "critical", "plain"]), (Policy(deadlines=False), ["plain"])):
        stand = Stand(policy, *workers("n"))
        stand.begin(job(1, "busy"))
        stand.begin(job(1, "plain"))
        stand.begin(job(1, "critical")._replace(tier=Tier.CRITICAL))
        stand.begin(job(1, "soon")._replace(deadline_ns=60 * SECOND))
        stand.start()
        (first,) = stand.held
        order = []
        for _ in expected:
            (given,) = submits(stand.finish(first))
            first = given.attempt
            order.append(first.job)
        assert order == expected


def test_who_has_spent_its_budget_waits() -> None:
    """Jobs that are not critical start nothing while their tenant's budget is gone, and go on when it is back."""
    stand = Stand(Policy(), *MANY)
    stand.tell(BudgetSpent("a", True))
    assert submits(stand.begin(job(3, "standard")._replace(tenant="a"))) == []
    assert len(submits(stand.begin(job(3, "critical")._replace(tenant="a", tier=Tier.CRITICAL)))) == 3
    assert len(submits(stand.begin(job(3, "other")._replace(tenant="b")))) == 3
    assert len(submits(stand.tell(BudgetSpent("a", False)))) == 3


def test_throttling_is_answered_by_fewer_at_a_time() -> None:
    """A throttled attempt halves what the stage runs at a time, once per round; successes bring it back bit by bit."""
    stand = Stand(Policy(), *MANY)
    stand.begin(job(100, limits=Limits(backoff=1000.0))._replace(retry_share=1.0))
    stand.start()
    first, second, *others = list(stand.held)
    stand.now += SECOND
    stand.fail(first, Reason.STORAGE, throttled=True)
    stand.fail(second, Reason.STORAGE, throttled=True)
    assert len(stand.held) == 10
    for attempt in others[:5]:
        stand.finish(attempt)
    assert len(stand.held) == 6, "half of twelve, and five successes are not a round yet"
    stand.finish(others[5])
    assert len(stand.held) == 7
    for _ in range(100):
        stand.start()
        if stand.held:
            stand.finish(next(iter(stand.held)))
    assert AttemptId("j", 0, 99, 0) not in stand.held
