"""Attempts that run long: what is a straggler, and that skew is split and slow nodes are backed up and set aside."""

from __future__ import annotations

import pytest

from mppobs.executor.events import (
    AttemptEnded,
    AttemptId,
    AttemptProgress,
    AttemptStarted,
    Commit,
    JobEnded,
    SetAside,
    ShardFailed,
    ShardSplit,
    Split,
    StageDone,
    StageOpened,
    Stop,
    Submit,
    Tick,
    WorkerLost,
)
from mppobs.executor.plan import Limits
from mppobs.executor.policies import Policy, SlowNodes, Speculation, Splitting
from mppobs.model import AttemptOutcome, JobOutcome
from tests.executor.stand import SECOND, Stand, job, submits, workers

QUICK = Speculation(floor=0.0)
FOUR = workers("n0", "n1", "n2", "n3")


def tail(policy: Policy, sizes: tuple[int, ...] = (), shards: int = 20, **spec: object) -> tuple[Stand, AttemptId]:
    """Return a stage of which all is done, in a second each, but one attempt that has just begun, and that one."""
    stand = Stand(policy, *FOUR)
    stand.begin(job(shards, **spec), StageOpened("j", 0, sizes))
    slow = next(iter(stand.held))
    while others := [each for each in stand.held if each != slow]:
        stand.start(*others)
        stand.finish(others[0])
    stand.start(slow)
    return stand, slow


def wait(stand: Stand, seconds: float) -> list[object]:
    """Let time pass, tick by tick; return what is decided meanwhile."""
    found: list[object] = []
    until = stand.now + int(seconds * SECOND)
    while stand.now < until:
        stand.now += SECOND // 10
        found += stand.tell(Tick())
    return found


def test_a_straggler_gets_one_copy_on_another_node() -> None:
    """An attempt that runs far longer than the others is copied once, elsewhere, and the first to succeed counts."""
    stand, slow = tail(Policy(speculation=QUICK))
    (copy,) = submits(wait(stand, 60))
    assert copy.speculative
    assert copy.attempt == slow._replace(number=1)
    assert copy.worker.split(".")[0] != stand.held[slow].split(".")[0]
    stand.start()
    actions = stand.finish(copy.attempt)
    assert actions[:2] == [Commit(copy.attempt), Stop(slow, AttemptOutcome.SUPERSEDED)]
    late = stand.finish(slow)
    assert late == [JobEnded("j", JobOutcome.SUCCESS)], "the loser of the pair is not delivered a second time"


def test_no_copy_without_the_policy_or_before_the_floor() -> None:
    """Nothing is copied where that is off, nor before it has run for as long as a copy costs."""
    stand, _ = tail(Policy(speculation=None))
    assert submits(wait(stand, 60)) == []
    stand, _ = tail(Policy())
    assert submits(wait(stand, 4.9)) == []
    assert len(submits(wait(stand, 2))) == 1


def test_time_in_the_queue_makes_no_straggler() -> None:
    """What counts is how long an attempt has run, not how long it waited at its worker."""
    stand = Stand(Policy(speculation=QUICK), *FOUR)
    stand.begin(job(8))
    first = list(stand.held)
    stand.start(*first[1:])
    while running := [each for each in stand.held if each != first[0]]:
        stand.start(*running)
        stand.finish(running[0])
    assert submits(wait(stand, 30)) == [], "it has not begun"
    stand.start(first[0])
    assert len(submits(wait(stand, 30))) == 1


def test_copies_are_paid_from_the_retry_budget() -> None:
    """A job without a retry left makes no copy, and one with the budget off does."""
    for policy, copies in ((Policy(speculation=QUICK), 0), (Policy(speculation=QUICK, retry_budget=False), 1)):
        stand = Stand(policy, *FOUR)
        stand.begin(job(20)._replace(retry_share=0.0, retry_floor=0))
        slow = next(iter(stand.held))
        stand.start()
        while len(stand.held) > 1:
            stand.finish(*[each for each in stand.held if each != slow][:1])
            stand.start()
        assert len(submits(wait(stand, 30))) == copies


def test_large_shards_are_not_copied() -> None:
    """A shard with ten times the input may take ten times as long: a copy would be as slow."""
    sizes = (100, *[10] * 19)
    stand, slow = tail(Policy(speculation=QUICK, splitting=None), sizes)
    assert slow.shard == 0
    assert submits(wait(stand, 8)) == []
    assert len(submits(wait(stand, 30))) == 1, "but not for ever"


def test_progress_tells_a_slow_node_from_a_large_shard() -> None:
    """A large shard that says it has done next to nothing in its time is slow, and copied at once."""
    stand, slow = tail(Policy(speculation=QUICK, splitting=None), (100, *[10] * 19))
    wait(stand, 3)
    stand.tell(AttemptProgress(slow, 0.05))
    assert len(submits(wait(stand, 2))) == 1


def test_a_copy_that_fails_costs_no_retry() -> None:
    """While one attempt of a shard runs, the end of the other changes nothing; after the last one it is retried."""
    stand, slow = tail(Policy(speculation=QUICK), limits=Limits(attempts=4, backoff=0.0))
    (copy,) = submits(wait(stand, 60))
    stand.start()
    assert submits(stand.fail(copy.attempt)) == []
    (again,) = submits(stand.fail(slow))
    assert not again.speculative
    assert again.attempt.number == 2


def test_a_shard_is_not_given_up_while_one_of_its_attempts_runs() -> None:
    """Where the limit is reached by a copy, the original may still succeed."""
    stand, slow = tail(Policy(speculation=QUICK), limits=Limits(attempts=1))
    (copy,) = submits(wait(stand, 60))
    stand.start()
    assert not any(isinstance(action, ShardFailed) for action in stand.fail(copy.attempt))
    assert stand.finish(slow)[0] == Commit(slow)


def test_a_copy_goes_on_when_its_original_is_lost() -> None:
    """A worker that dies takes only its own attempt with it."""
    stand, slow = tail(Policy(speculation=QUICK))
    (copy,) = submits(wait(stand, 60))
    stand.start()
    assert submits(stand.tell(WorkerLost(stand.held[slow]))) == []
    assert stand.finish(copy.attempt)[0] == Commit(copy.attempt)


def test_a_slow_node_is_set_aside_for_a_while() -> None:
    """A node with two stragglers is given nothing for a minute, and then again."""
    stand = Stand(Policy(speculation=QUICK), *workers(*["bad"] * 2, *[f"n{n}" for n in range(8)]))
    stand.begin(job(400))
    bad = [attempt for attempt, worker in stand.held.items() if worker.startswith("bad")]
    stand.start()
    while stand.scheduler._book.jobs["j"].stages[0].decided < 310:
        stand.finish(*[each for each in stand.held if each not in bad][:1])
        stand.start()
    actions = [action for action in wait(stand, 10) if isinstance(action, SetAside)]
    assert [action.node for action in actions] == ["bad"]
    stand.finish(*bad)
    while stand.scheduler._book.jobs["j"].stages[0].decided < 380:
        given = submits(stand.finish(*list(stand.held)[:1]))
        assert not any(each.worker.startswith("bad") for each in given)
        stand.start()
    stand.now = actions[0].until_ns
    assert any(each.worker.startswith("bad") for each in submits(stand.tell(Tick())))


def test_the_last_node_is_never_set_aside() -> None:
    """Where there is one node, or its name is not known, it is used, slow or not."""
    for node in ("only", ""):
        stand = Stand(Policy(speculation=QUICK, slow_nodes=SlowNodes(strikes=1)), *workers(*[node] * 4))
        stand.begin(job(20))
        slow = next(iter(stand.held))
        stand.start()
        while len(stand.held) > 1:
            stand.finish(*[each for each in stand.held if each != slow][:1])
            stand.start()
        assert not [action for action in wait(stand, 60) if isinstance(action, SetAside)]


def test_a_skewed_shard_is_split_before_it_starts() -> None:
    """A shard far above the median waits for the answer, and its parts run in its place."""
    stand = Stand(Policy(splitting=Splitting(least_bytes=50)), *FOUR)
    actions = stand.begin(job(8, splittable=True), StageOpened("j", 0, (10, 10, 400, 10, 10, 10, 10, 10)))
    assert [action for action in actions if isinstance(action, Split)] == [Split("j", 0, 2, 8)]
    assert 2 not in {attempt.shard for attempt in stand.held}
    stand.tell(ShardSplit("j", 0, 2, (200, 200)))
    done: list[object] = []
    while stand.held:
        stand.start()
        done += stand.finish(next(iter(stand.held)))
    commits = [action.attempt.shard for action in done if isinstance(action, Commit)]
    assert sorted(commits) == [0, 1, 3, 4, 5, 6, 7, 8, 9], "its parts count, itself it does not"
    assert done[-2:] == [StageDone("j", 0), JobEnded("j", JobOutcome.SUCCESS)]


def test_what_cannot_be_split_runs_whole() -> None:
    """An answer without sizes has the shard run as it is, and is not asked for again."""
    stand = Stand(Policy(splitting=Splitting(least_bytes=50)), *FOUR)
    stand.begin(job(3, splittable=True), StageOpened("j", 0, (10, 400, 10)))
    (whole,) = submits(stand.tell(ShardSplit("j", 0, 1)))
    assert whole.attempt == AttemptId("j", 0, 1, 0)


@pytest.mark.parametrize(
    ("policy", "spec"),
    [
        (Policy(splitting=None), {"splittable": True}),
        (Policy(splitting=Splitting(least_bytes=50)), {}),
        (Policy(), {"splittable": True}),
    ],
)
def test_small_or_whole_shards_are_not_split(policy: Policy, spec: dict[str, object]) -> None:
    """Nothing is split with the policy off, in a stage that cannot be, or where the bytes are not worth it."""
    stand = Stand(policy, *FOUR)
    actions = stand.begin(job(3, **spec), StageOpened("j", 0, (10, 400, 10)))
    assert not [action for action in actions if isinstance(action, Split)]


def running_skew() -> tuple[Stand, AttemptId]:
    """Return a stage whose largest shard runs on its own, for long enough that a split was asked for."""
    policy = Policy(speculation=QUICK, splitting=Splitting(factor=50.0, least_bytes=10))
    stand, slow = tail(policy, (400, *[10] * 19), splittable=True)
    assert Split("j", 0, slow.shard, 32) in wait(stand, 10)
    return stand, slow


def test_a_skewed_shard_is_split_while_it_runs() -> None:
    """Where nothing was known before, the shard that holds the stage is split, and its attempt is stopped."""
    stand, slow = running_skew()
    actions = stand.tell(ShardSplit("j", 0, slow.shard, (200, 200)))
    assert Stop(slow, AttemptOutcome.SUPERSEDED) in actions
    parts = submits(actions)
    assert [each.attempt.shard for each in parts] == [20, 21]
    assert not any(isinstance(action, Commit) for action in stand.finish(slow)), "too late: its parts count"
    stand.start()
    assert JobEnded("j", JobOutcome.SUCCESS) in stand.finish(*[each.attempt for each in parts])


def test_a_success_waits_for_the_answer_about_its_shard() -> None:
    """A shard that succeeds while it is perhaps being split counts if it was not, and does not if it was."""
    stand, slow = running_skew()
    assert not any(isinstance(action, Commit) for action in stand.finish(slow))
    assert Commit(slow) in stand.tell(ShardSplit("j", 0, slow.shard))
    stand, slow = running_skew()
    stand.finish(slow)
    actions = stand.tell(ShardSplit("j", 0, slow.shard, (200, 200)))
    assert Commit(slow) not in actions
    assert len([action for action in actions if isinstance(action, Submit)]) == 2


def test_progress_of_attempts_that_are_gone_is_nothing() -> None:
    """News that comes late changes nothing and raises nothing."""
    stand, slow = tail(Policy())
    stand.finish(slow)
    assert stand.tell(AttemptProgress(slow, 0.5), AttemptStarted(slow), ShardSplit("j", 0, 0, (1, 1))) == []
    assert stand.tell(AttemptEnded(slow, AttemptOutcome.SUCCESS)) == []
