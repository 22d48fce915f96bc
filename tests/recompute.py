"""The indicators once more, from kept records alone: the bytes, the order in which rounds read them, and the oracle."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from mppobs.journal import reader
from mppobs.journal.codec import decode_all
from mppobs.journal.format import RECORD_WORDS
from mppobs.model import ContextRecord, Record, SampleRecord
from tests.oracle import Oracle, Piece


class Recomputed:
    """What the kept records of a demo add up to, as `tests.oracle` folds them."""

    def __init__(
        self, records: Path, store: Path, usd_per_hour: Mapping[tuple[str, bool], float], usd_per_gb: float
    ) -> None:
        """Feed every record to the oracle, round by round as the store noted them; prices by node type and spot."""
        self.oracle = Oracle(usd_per_hour, usd_per_gb)
        self.memory: dict[str, float] = {}
        """The highest memory ratio that any sample of a pipeline's workers shows."""
        files = {found.journal: found for found in reader.scan(records)}
        for time_ns, ranges in rounds_of(store):
            pieces = []
            for journal, segment, first, count in ranges:
                found = records_of(files[journal].segments[segment], first, count)
                pieces.append(Piece(journal, first == 0, found))
            self.oracle.round(pieces, time_ns)
        for journal in files.values():
            for path in journal.segments.values():
                self._take_memory(decode_all(rows_of(path, 0, 1 << 20)))

    def indicators(self, pipeline: str) -> dict[str, float]:
        """Return the headline figures of a pipeline by indicator, but for M11: slots leave no record."""
        totals = self.oracle.pipelines[("default", "default", pipeline)]
        stages = [figures for key, figures in self.oracle.stages.items() if key[2] == pipeline]
        durations = sorted(duration for stage in stages for _, duration in stage["durations"])
        committed = sum(stage["shards"]["committed"] for stage in stages)
        sums = {name: sum(stage["sums"][name] for stage in stages) for name in ("retries", "cpu_ns", "cpu_wall_ns")}
        return {
            "M1": mean(totals["job_durations"]) / 1e9,
            "M2": committed / sum(sum(stage["shards"].values()) for stage in stages),
            "M3": durations[math.ceil(0.99 * len(durations)) - 1] / 1e9,
            "M4": mean(totals["shuffled"]),
            "M5": sum(totals["network"].values()),
            "M6": sums["cpu_ns"] / sums["cpu_wall_ns"],
            "M7": self.memory[pipeline],
            "M8": sums["retries"] / committed,
            "M9": mean(totals["job_cost"]) / 1e12,
            "M10": mean(totals["delays"]) / 1e9,
            "M12": totals["jobs"]["failure"] + totals["jobs"]["error"],
        }

    def _take_memory(self, records: Iterable[Record]) -> None:
        pipelines: dict[int, str] = {}
        for record in records:
            if isinstance(record, ContextRecord):
                pipelines[record.context_id] = record.context.pipeline
            elif isinstance(record, SampleRecord) and record.memory_limit and record.context_id in pipelines:
                pipeline = pipelines[record.context_id]
                ratio = record.peak_rss / record.memory_limit
                self.memory[pipeline] = max(ratio, self.memory.get(pipeline, 0.0))


def rounds_of(store: Path) -> list[tuple[int, list[tuple[str, int, int, int]]]]:
    """Return the time of each round and what it read: journal, segment, first record, number of records."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT time_ns, ranges FROM rounds ORDER BY number").fetchall()
    return [(time_ns, json.loads(ranges)) for time_ns, ranges in rows]


def records_of(path: Path, first: int, count: int) -> list[Record]:
    """Return some records of a segment, decoded with the texts that come before them."""
    before = rows_of(path, 0, first)
    skipped = sum(1 for _ in decode_all(before))
    return list(decode_all([*before, *rows_of(path, first, count)]))[skipped:]


def rows_of(path: Path, first: int, count: int) -> list[list[int]]:
    """Return the words of some complete records of a segment."""
    words = memoryview(reader.read_records(path, first, count)).cast("Q").tolist() if count else []
    return [words[start : start + RECORD_WORDS] for start in range(0, len(words), RECORD_WORDS)]


def mean(values: Sequence[int]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


def differences(
    found: Mapping[str, float], told: Mapping[str, float], tolerance: Mapping[str, float]
) -> dict[str, str]:
    """Return the indicators that differ by more than their tolerance (1e-9 where none is given), and how."""
    return {
        key: f"{told[key]} told, {value} recomputed"
        for key, value in found.items()
        if not math.isclose(value, told[key], rel_tol=tolerance.get(key, 1e-9), abs_tol=1e-12)
    }
