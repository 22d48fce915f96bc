"""The jobs of the demo: both queries, some times over, with faults in one round, each answer checked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from mppobs.cli.progress import Board
from mppobs.executor import Executor
from mppobs.executor.plan import Plan
from mppobs.executor.result import JobResult, Progress
from mppobs.model import JobOutcome, Shard
from mppobs.units import human_bytes, human_seconds
from mppobs.workloads.data import Dataset
from mppobs.workloads.tpch import QUERIES
from mppobs.workloads.tpch_query import Query, Verdict, check
from mppobs.workloads.trouble import Trouble, with_trouble

TROUBLED_ROUND: Final = 1
"""The round, from 0, in which things go wrong on purpose: not the first, so that there is something to compare with."""

TROUBLE: Final[dict[str, tuple[str, dict[Shard, Trouble]]]] = {
    "Q1": ("map", {11: Trouble.SLOW}),
    "Q3": ("lineitems", {5: Trouble.KILL, 17: Trouble.RAISE}),
}
"""By query: the stage and its shards to which something happens, on their first attempt."""

TROUBLE_TOLD: Final = (
    "on purpose, in run 2: Q1 waits for a straggler, map/11; in Q3 the worker of lineitems/5 is killed (SIGKILL) "
    "and lineitems/17 raises once"
)

_BUDGET_SECONDS: Final = 60.0
"""No further round is begun after this; the round with the trouble always is."""


@dataclass(slots=True)
class Findings:
    """What the demo found out: runs, whether their answers were right, indicators, and how long things took."""

    results: dict[str, list[JobResult]] = field(default_factory=dict)
    """By key of the query."""
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    """The indicators, as the sidecar's API gave them."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each part of the demo took."""

    @property
    def ok(self) -> bool:
        """Return whether every job succeeded and every answer was right."""
        verdicts = [verdict for found in self.verdicts.values() for verdict in found]
        return bool(verdicts) and all(verdict.ok for verdict in verdicts)

    @property
    def job_ids(self) -> list[str]:
        """Return the jobs that ran."""
        return [result.job_id for results in self.results.values() for result in results]

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time that the block takes to what is so called."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start


def run_queries(executor: Executor, dataset: Dataset, runs: int, board: Board, findings: Findings) -> None:
    """
    Run both queries `runs` times in turn and note what came out.

    Raises `KeyboardInterrupt` where a job was cancelled by one.
    """
    board.wait("asking DuckDB for the right answers")
    with findings.timed("duckdb"):
        expected = {query.key: query.expected(dataset) for query in QUERIES}
    started = time.monotonic()
    with findings.timed("jobs"):
        for number in range(runs):
            if number > TROUBLED_ROUND and time.monotonic() - started > _BUDGET_SECONDS:
                board.say(f"time is up: {number} of {runs} runs")
                return
            for query in QUERIES:
                plan = plan_of(query, dataset, troubled=number == TROUBLED_ROUND)
                result = _run(executor, plan, f"{query.key} {query.title}, run {number + 1} of {runs}", board)
                verdict = _verdict(result, expected[query.key])
                findings.results.setdefault(query.key, []).append(result)
                findings.verdicts.setdefault(query.key, []).append(verdict)
                board.say(_line(query, number, result, verdict))


def plan_of(query: Query, dataset: Dataset, *, troubled: bool) -> Plan:
    """Return the plan of a query, with its faults in the troubled round."""
    plan = query.plan(dataset)
    return with_trouble(plan, *TROUBLE[query.key]) if troubled else plan


def _run(executor: Executor, plan: Plan, title: str, board: Board) -> JobResult:
    def show(progress: Progress) -> None:
        board.show(title, progress)

    result = executor.run(plan, show)
    if result.outcome is JobOutcome.CANCELLED:
        raise KeyboardInterrupt
    return result


def _verdict(result: JobResult, expected: list[tuple[Any, ...]]) -> Verdict:
    if result.outcome is not JobOutcome.SUCCESS:
        return Verdict(0, f"the job ended as {result.outcome} ({result.reason})")
    return check(result.answer, expected)


def _line(query: Query, number: int, result: JobResult, verdict: Verdict) -> str:
    """Return what is said of a run that has ended."""
    shards = sum(stage.done for stage in result.stages)
    retries = sum(stage.retries for stage in result.stages)
    shuffled = sum(stage.shuffle_read + stage.shuffle_written for stage in result.stages)
    answer = f"{verdict.rows} rows, as DuckDB" if verdict.ok else f"WRONG: {verdict.difference}"
    return (
        f"{query.key} run {number + 1}  {human_seconds(result.wall):>8}  {shards:>4} shards  "
        f"{human_bytes(shuffled):>8} shuffled  {retries:>2} retries  {answer}"
    )
