"""Attempts that run long: a copy where the node is slow, smaller shards where there is simply more to do."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from mppobs.executor import policies
from mppobs.executor.events import SetAside, Split
from mppobs.executor.policies import SECOND
from mppobs.executor.scheduling.book import Book
from mppobs.executor.scheduling.jobs import UNDECIDED, Running, Stage
from mppobs.executor.scheduling.pool import Node
from mppobs.model import StragglerCause

_QUARTERS = (0.25, 0.5, 0.75)
_AS_USUAL = 1.5
"""Times the mean: an attempt that was done in less takes a strike off its node. Half of what makes a straggler."""


class _Typical(NamedTuple):
    """What the attempts of a stage usually take."""

    median_ns: float
    pace: float
    """Nanoseconds for a MiB, at the median."""


class Watch:
    """Looks at stages that are well under way for attempts that run long."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def committed(self, running: Running, duration_ns: int, now_ns: int) -> None:
        """Take in that an attempt has succeeded: perhaps enough of its stage is done to tell what is long."""
        stage, node = running.stage, running.worker.node
        stage.timing.learn(duration_ns, stage.size_of(running.attempt.shard))
        if node.strikes and duration_ns < _AS_USUAL * stage.timing.mean_ns:
            node.strikes -= 1
        rules = self._book.policy.speculation
        if rules is None or stage.watched or stage.timing.durations.count < rules.least_done:
            return
        if stage.decided >= math.ceil(rules.done * stage.shards):
            stage.watched = True
            self._look(stage, now_ns)

    def ask_to_split(self, stage: Stage) -> None:
        """Have shards split before they start that are far larger than the others of a stage that is being opened."""
        rules = self._book.policy.splitting
        if rules is None or not stage.spec.splittable or not stage.sizes:
            return
        median = statistics.median_low(stage.sizes)
        for shard, size in enumerate(stage.sizes):
            if stage.status[shard] == UNDECIDED and policies.is_skewed(rules, size, median):
                stage.splits.apart[shard] = None
                self._ask(stage, shard, policies.parts_of(rules, size, median))

    def _ask(self, stage: Stage, shard: int, parts: int) -> None:
        stage.splits.asked[shard] = None
        stage.splits.asking[shard] = None
        self._book.out.append(Split(stage.job.key, stage.index, shard, parts))

    def _look(self, stage: Stage, now_ns: int) -> None:
        """Judge the attempts of a stage that run long, and come back later."""
        rules = self._book.policy.speculation
        if rules is None or stage.closed:
            stage.watched = False
            return
        lower, median, upper = stage.timing.durations.quantiles(_QUARTERS)
        threshold = policies.straggles_after(rules, lower, median, upper)
        typical = _Typical(median, stage.timing.paces.quantiles((0.5,))[0])
        slow: list[tuple[float, int, Running]] = []
        soonest = now_ns + threshold
        for running in stage.held.values():
            if running.started_ns < 0 or running.judged or running.stop is not None or running.speculative:
                continue
            elapsed = now_ns - running.started_ns
            if elapsed < threshold:
                soonest = min(soonest, running.started_ns + threshold)
                continue
            soonest = now_ns
            left = self._judge(running, elapsed, typical)
            if left > 0:
                slow.append((-left, len(slow), running))
        for _, _, running in sorted(slow):
            self._copy(running, now_ns)
        pause = policies.check_after(threshold)
        self._book.timers.at(max(now_ns + pause, soonest), lambda then: self._look(stage, then))

    def _judge(self, running: Running, elapsed: int, typical: _Typical) -> float:
        """Return how long an attempt will go on, or 0 where a copy does not help; have it split if it is skewed."""
        rules, stage, shard = self._book.policy.speculation, running.stage, running.attempt.shard
        if rules is None or stage.status[shard] != UNDECIDED or shard in stage.splits.asking:
            return 0.0
        expected = stage.timing.expected_ns(stage.size_of(shard), *typical)
        cause = policies.cause_of(rules, elapsed, running.progress, expected)
        if cause is StragglerCause.SKEW:
            self._split_running(running, max(expected - elapsed, 0.0), expected)
            return 0.0
        left = policies.time_left(elapsed, running.progress)
        special = stage.special.get(shard)
        if special is not None and special.is_bound:
            return 0.0  # it is where it is for a reason
        return left if policies.is_copied(left, expected) else 0.0

    def _split_running(self, running: Running, left: float, whole: float) -> None:
        """Have a shard split that runs and has more to do than others, where that still pays."""
        rules, stage, shard = self._book.policy.splitting, running.stage, running.attempt.shard
        if rules is None or not stage.spec.splittable or not stage.sizes or shard in stage.splits.asked:
            return
        size, median = stage.sizes[shard], statistics.median_low(stage.sizes)
        if size >= rules.least_bytes:
            parts = policies.parts_of(rules, size, median)
            if policies.is_split_running(left, whole, parts):
                self._ask(stage, shard, parts)

    def _copy(self, running: Running, now_ns: int) -> None:
        """Have a copy of an attempt begun elsewhere, where the job can afford it, and count it against its node."""
        book, stage, shard = self._book, running.stage, running.attempt.shard
        rules = book.policy.speculation
        if not running.struck:
            running.struck = True
            self._strike(running.worker.node, now_ns)
        affordable = stage.job.retries > 0 or not book.policy.retry_budget
        if rules is None or not affordable or book.copies >= policies.most_copies(rules, len(book.pool.workers)):
            return  # perhaps later
        running.judged = True
        if shard in stage.pending_backups or len(stage.copies(shard)) > 1:
            return
        stage.job.retries -= 1
        book.copies += 1
        stage.pending_backups[shard] = None
        stage.backups.append(running)
        book.enlist(stage)

    def _strike(self, node: Node, now_ns: int) -> None:
        """Count a straggler against its node, and set it aside after some."""
        rules, pool = self._book.policy.slow_nodes, self._book.pool
        if rules is None or not node.name or node.aside_until:
            return
        node.strikes += 1
        nodes = list(pool.named_nodes())
        aside = sum(1 for each in nodes if each.aside_until)
        if node.strikes < rules.strikes or aside >= policies.most_aside(rules, len(nodes)):
            return
        until = now_ns + int(rules.seconds * SECOND)
        node.aside_until, node.strikes = until, 0
        pool.reopen(node)
        self._book.out.append(SetAside(node.name, until))

        def bring_back(_: int) -> None:
            node.aside_until = 0
            pool.reopen(node)

        self._book.timers.at(until, bring_back)
