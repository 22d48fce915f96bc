"""What a job's records say of its stages, and on which fabric each would do best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from mppobs.diagnose.fabric import Advice, StageFacts
from mppobs.journal.examine import records_of
from mppobs.journal.reader import scan
from mppobs.model import AttemptRecord, Context, ContextRecord, DetailKind, DetailRecord, PlanRecord, Record

_PEERS = "exchange"
"""The activity of a task that exchanges with processes which run at the same moment."""


@dataclass(slots=True)
class _Sums:
    """What adds up over a stage."""

    shards: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    cpu_ns: int = 0
    input_bytes: int = 0
    read: int = 0
    written: int = 0
    peer_ns: int = 0
    first_ns: int = 1 << 63
    """When its first attempt began."""

    def add(self, record: Record) -> None:
        """Take in one record of the stage."""
        match record:
            case AttemptRecord():
                self.shards.add(record.shard_key)
                self.first_ns = min(self.first_ns, record.start_ns)
                self.seconds.append(record.duration_ns / 1e9)
                self.cpu_ns += record.cpu_ns or 0
                self.read += record.shuffle_read
                self.written += record.shuffle_written
            case DetailRecord(what=DetailKind.ACTIVITY):
                self.peer_ns += dict(record.amounts).get(_PEERS, 0)
            case PlanRecord():
                self.input_bytes += record.input_bytes
            case _:
                return

    def facts(self, stage: str, custom_code: bool) -> StageFacts:
        """Return what was measured of the stage."""
        return StageFacts(
            stage=stage,
            shards=len(self.shards),
            wall_seconds=sum(self.seconds),
            cpu_seconds=self.cpu_ns / 1e9,
            # What comes from peers is no input that could lie somewhere else.
            input_bytes=self.input_bytes if self.peer_ns else max(self.input_bytes, self.read),
            read_bytes=self.read,
            written_bytes=self.written,
            peer_seconds=self.peer_ns / 1e9,
            median_seconds=median(self.seconds),
            longest_seconds=max(self.seconds),
            custom_code=custom_code,
        )


def facts_of(journals: Path, job_id: str, custom_code: Collection[str]) -> list[StageFacts]:
    """Return the facts of each stage of a job, in the order in which they began; `custom_code` names stages."""
    stages: dict[str, _Sums] = defaultdict(_Sums)
    for context, record in _records(journals):
        if context.job_id == job_id and context.stage:
            stages[context.stage].add(record)
    begun = sorted((sums.first_ns, stage) for stage, sums in stages.items() if sums.seconds)
    return [stages[stage].facts(stage, stage in custom_code) for _, stage in begun]


def advice_table(advice: list[Advice]) -> Table:
    """Return advice as a table: stage, fabric, and what speaks for it and against."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "belongs on", "since it", "but it"):
        table.add_column(column, overflow="fold")
    for each in advice:
        table.add_row(
            each.stage,
            str(each.fabric) if each.reasons else f"{each.fabric} (nothing tells)",
            "; ".join(reason.text for reason in each.reasons),
            "; ".join(reason.text for reason in each.against),
        )
    return table


def advice_as_json(advice: list[Advice]) -> list[dict[str, Any]]:
    """Return advice for machines."""
    return [
        {
            "stage": each.stage,
            "fabric": str(each.fabric),
            "margin": each.margin,
            "reasons": [{"rule": reason.rule, "text": reason.text} for reason in each.reasons],
            "against": [
                {"fabric": str(reason.fabric), "rule": reason.rule, "text": reason.text} for reason in each.against
            ],
        }
        for each in advice
    ]


def _records(journals: Path) -> Iterator[tuple[Context, Record]]:
    """Yield every record that belongs to a job, with its context."""
    for files in scan(journals):
        contexts: dict[int, Context] = {}
        for placed in records_of(files):
            record = placed.record
            if isinstance(record, ContextRecord):
                contexts[record.context_id] = record.context
            elif (context := contexts.get(getattr(record, "context_id", 0))) is not None:
                yield context, record
