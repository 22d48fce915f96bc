"""What the scheduler promises whatever happens, in worlds made up from seeds; `observer.py` says what that is."""

from __future__ import annotations

from collections import Counter

import pytest

from mppobs.executor.events import Commit, OutputLost, Scale, SetAside, ShardFailed, Split, Stop, Submit, WaitUntil
from mppobs.model import JobOutcome, Reason
from tests.executor.world import World
from tests.executor.worlds import random_world


def run(seed: int) -> World:
    """Run the world of a seed, which an error names."""
    world = random_world(seed)
    try:
        world.run()
    except BaseException as error:
        error.add_note(f"in the world of seed {seed}")
        raise
    return world


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_it_keeps_its_promises_in_any_world(first: int) -> None:
    """Each shard counts once or is given up, no limit is passed, no output is lost, and every job ends."""
    for seed in range(first, first + 50):
        run(seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(300, 5000, 500))
def test_it_keeps_its_promises_in_many_worlds(first: int) -> None:
    """The same over more seeds than anyone has patience for."""
    for seed in range(first, min(first + 500, 5000)):
        run(seed)


def test_the_worlds_are_worth_it() -> None:
    """The random worlds do contain what can go wrong, and all that the scheduler can do about it."""
    ends: Counter[JobOutcome] = Counter()
    kinds: Counter[type] = Counter()
    reasons: Counter[Reason] = Counter()
    found: Counter[str] = Counter()
    for seed in range(120):
        world = random_world(seed)
        world.run()
        ends.update(book.ended.outcome for book in world.books.values() if book.ended)
        kinds.update(type(action) for action in world.log)
        reasons.update(action.reason for action in world.log if isinstance(action, ShardFailed))
        found["copies"] += sum(isinstance(action, Submit) and action.speculative for action in world.log)
        found["crashes"] += world.crashes
        found["parts"] += sum(len(book.replaced) for book in world.books.values())
        found["lost output"] += world.told[OutputLost]
        earlier = [book.submitted.earlier for book in world.books.values()]
        found["given up, and gone on with"] += sum(bool(each.given_up) for each in earlier)
        found["cancelled, and gone on with"] += sum(each.cancelled for each in earlier)
        found["counted in several lives"] += sum(bool(each.setbacks) for each in earlier)
    assert set(ends) == set(JobOutcome)
    assert min(kinds[kind] for kind in (Commit, ShardFailed, Stop, Submit, WaitUntil, Split)) > 30
    assert min(kinds[kind] for kind in (Scale, SetAside)) > 5
    assert min(found[what] for what in ("copies", "crashes", "parts", "lost output")) > 20
    assert found["given up, and gone on with"] > 20
    assert found["counted in several lives"] > 20
    assert found["cancelled, and gone on with"] > 2
    assert {Reason.RETRIES_EXHAUSTED, Reason.WORKER_LOST, Reason.OOM_KILLED, Reason.DEADLINE} <= set(reasons)
    assert {Reason.EXCEPTION, Reason.NODE_LOST, Reason.STORAGE} <= set(reasons)


def test_the_same_seed_gives_the_same_decisions() -> None:
    """Two schedulers that see the same events decide the same, to the last wait."""
    for seed in (7, 38, 75):
        assert run(seed).log == run(seed).log
