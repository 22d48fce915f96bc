"""When a running job will be done: from what is left, how fast it goes, and how long the last shard takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How a running job has gone so far. Times in nanoseconds."""

    start_ns: int
    """When its first attempt began."""
    planned: int
    decided: int
    mean_ns: float = 0.0
    """Of the durations of its finished shards; 0 where not known, as the next."""
    p99_ns: float = 0.0


def predict_finish(pace: Pace, now_ns: int) -> int | None:
    """
    Return when a job will have finished, in nanoseconds since the epoch; `None` before its first shard is decided.

    The shards that are left, at the average rate so far, would end as long after each other as those before did. But
    the job ends with its last shard, and with many at a time the last is one of the slow: it takes about the p99 where
    the average one takes the mean. So the difference of the two is added while anything is left.

    >>> predict_finish(Pace(0, planned=100, decided=50, mean_ns=10, p99_ns=30), now_ns=1000)
    2020
    >>> predict_finish(Pace(0, planned=100, decided=0), now_ns=1000) is None
    True
    """
    elapsed = now_ns - pace.start_ns
    left = pace.planned - pace.decided
    if pace.decided <= 0 or pace.planned <= 0 or elapsed <= 0:
        return None
    if left <= 0:
        return now_ns
    tail = max(0.0, pace.p99_ns - pace.mean_ns)
    return now_ns + round(left * elapsed / pace.decided + tail)
