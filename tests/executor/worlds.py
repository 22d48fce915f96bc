"""Worlds made up from a seed, in which anything may go wrong under any policy."""

from __future__ import annotations

import random

from mppobs.executor.events import BudgetSpent, JobSubmitted, StageSpec
from mppobs.executor.plan import Limits, OnFailure
from mppobs.executor.policies import Autoscale, Policy, Share, SlowNodes, Speculation, Splitting, Spot
from mppobs.model import Tier
from tests.executor.fates import MS, Chances, Machines
from tests.executor.world import World

TENANTS = ("", "ads", "maps")


def random_stage(chance: random.Random, index: int) -> StageSpec:
    """Return a stage that needs some of those before it."""
    return StageSpec(
        chance.randint(1, 30),
        tuple(n for n in range(index) if chance.random() < 0.6),
        Limits(attempts=chance.randint(1, 4), losses=chance.randint(0, 3), timeout=0.2, backoff=0.01),
        splittable=chance.random() < 0.5,
        memory_bytes=chance.choice((0, 0, 3)),
        priority=chance.choice((-1, 0, 0, 1)),
        cap=chance.choice((0, 0, 3)),
    )


def random_job(chance: random.Random, key: str) -> JobSubmitted:
    """Return a job of one to four stages."""
    return JobSubmitted(
        key,
        tuple(random_stage(chance, index) for index in range(chance.randint(1, 4))),
        chance.choice(list(OnFailure)),
        retry_share=chance.choice((0.0, 0.1, 1.0)),
        retry_floor=chance.randint(0, 5),
        tenant=chance.choice(TENANTS),
        tier=chance.choice(list(Tier)),
        deadline_ns=chance.choice((0, 50 * MS)),
        cap=chance.choice((0, 0, 4)),
    )


def random_policy(chance: random.Random) -> Policy:
    """Return a policy with some of its parts on."""

    def perhaps() -> bool:
        return chance.random() < 0.7

    speculation = Speculation(done=0.5, least_done=2, floor=0.001, share=chance.choice((0.1, 0.5)))
    shares = {name: Share(chance.choice((1.0, 3.0)), chance.choice((0, 2)), chance.choice((0, 1))) for name in TENANTS}
    return Policy(
        fair=perhaps(),
        tenants=shares if perhaps() else {},
        deadlines=perhaps(),
        budgets=perhaps(),
        locality_wait=chance.choice((0.0, 0.01)),
        backoff=perhaps(),
        retry_budget=perhaps(),
        back_pressure=perhaps(),
        memory_retry=perhaps(),
        zones=perhaps(),
        speculation=speculation if perhaps() else None,
        splitting=Splitting(factor=2.0, least_bytes=20) if perhaps() else None,
        slow_nodes=SlowNodes(strikes=1, seconds=0.02, share=0.5) if perhaps() else None,
        spot=Spot(evictions=1) if perhaps() else None,
        autoscale=None if perhaps() else Autoscale(1, 8, drain=0.05, up_after=0.005, down_after=0.05),
    )


def lossy_world(seed: int) -> World:
    """Return a world with workers to spare in two or three zones, one of which loses most of what it is given."""
    chance = random.Random(seed)
    chances = Chances(zone_loss=chance.choice((0.5, 0.9)), loss=chance.choice((0.0, 0.3)), hang=0.02)
    machines = Machines(8, chance.choice((0, 6)), chance.choice((0.0, 0.5)), zones=chance.choice((2, 3)))
    world = World(seed, chances, machines, Policy(backoff=False, back_pressure=False))
    for number in range(3):
        stage = StageSpec(6, limits=Limits(timeout=0.2, losses=5), priority=chance.choice((0, 1)))
        world.submit(JobSubmitted(f"job-{number}", (stage,), OnFailure.FINISH), number * 20 * MS)
    return world


def random_world(seed: int) -> World:
    """Return a world with one to four jobs in which anything may go wrong, more or less often."""
    chance = random.Random(seed)
    scale = chance.choice((0.0, 0.02, 0.1, 0.3))
    rates = [chance.random() * scale for _ in range(8)]
    chances = Chances(
        *rates[:4], loss=rates[4], eviction=rates[5], node_loss=rates[6] / 3, memory=rates[7], ghost=0.5, cancel=0.1,
        damage=chance.choice((0.0, 0.03)), crash=chance.choice((0.0, 0.02)), slow_node=chance.choice((0.0, 0.3)),
        crash_when_cancelled=0.8, zone_loss=chance.choice((0.0, 0.0, 0.5)),
    )  # fmt: skip
    machines = Machines(
        chance.randint(1, 8), chance.choice((0, 1, 4)), chance.choice((0.0, 0.5)),
        chance.choice(((0,), (2, 4), (2, 8))), chance.choice((0, 2, 3)),
    )  # fmt: skip
    world = World(seed, chances, machines, random_policy(chance))
    for number in range(chance.randint(1, 4)):
        world.submit(random_job(chance, f"job-{number}"), chance.randrange(50 * MS))
    if chance.random() < 0.3:
        tenant = chance.choice(TENANTS)
        spent_ns = chance.randrange(50 * MS)
        world.later(spent_ns, BudgetSpent(tenant, True))
        world.later(spent_ns + chance.randrange(1, 200 * MS), BudgetSpent(tenant, False))
    return world
