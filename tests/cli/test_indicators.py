"""The table of indicators shows what the API serves, in the units that people use."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from mppobs.catalog.indicators import INDICATORS
from mppobs.cli.indicators import indicator_table, note
from mppobs.model import AttemptOutcome, CostKind, JobOutcome, ShardOutcome
from mppobs.sidecar.aggregates import PipelineKey, PipelineTotals, StageKey, StageTotals
from mppobs.sidecar.slis import LiveFigures, report


def pipeline(name: str = "nightly") -> dict[str, Any]:
    """Return the indicators of a pipeline with some history, as the API would give them."""
    key = PipelineKey("default", "default", name)
    totals = PipelineTotals(key)
    totals.jobs[JobOutcome.SUCCESS], totals.jobs[JobOutcome.ERROR] = 3, 1
    for seconds in (10, 20, 30, 40):
        totals.durations.observe(seconds * 10**9)
        totals.queue.observe(10**8)
        totals.job_shuffle.observe(2 * 2**30)
        totals.job_cost.observe(5 * 10**11)
    totals.cost_pusd[CostKind.USEFUL], totals.cost_pusd[CostKind.RETRY] = 15 * 10**11, 5 * 10**11
    stage = StageTotals(StageKey(*key, "map"))
    stage.shards[ShardOutcome.COMMITTED], stage.shards[ShardOutcome.LOST] = 99, 1
    stage.attempts[AttemptOutcome.SUCCESS], stage.attempts[AttemptOutcome.ERROR] = 99, 4
    stage.retries, stage.cpu_ns, stage.cpu_wall_ns = 3, 80 * 10**9, 100 * 10**9
    values = report(totals, [stage], LiveFigures(memory_max_ratio=0.5, checkpoint_lag_seconds=None), 10**18)
    indicators = {
        each.indicator.key: {
            "key": each.indicator.key,
            "unit": each.indicator.unit,
            "headline": each.headline,
            "value": each.value,
            "parts": [{"name": part.name, "value": part.value, "unit": part.unit} for part in each.parts],
        }
        for each in values.values
    }
    return {"pipeline": name, "indicators": indicators}


def drawn(*pipelines: dict[str, Any]) -> list[str]:
    """Return the lines of the table without colours."""
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(indicator_table(list(pipelines)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_every_indicator_has_its_row() -> None:
    """M1 to M12 stand below each other, each with its title, once for every pipeline."""
    lines = drawn(pipeline("a"), pipeline("b"))

    for indicator in INDICATORS:
        row = next(line for line in lines if line.startswith(f"{indicator.key} "))
        assert indicator.title in row


def test_values_have_the_units_that_people_say() -> None:
    """Seconds, bytes, dollars, percent and counts are written out; what is not known is a dash."""
    rows = {line.split()[0]: line for line in drawn(pipeline()) if line.startswith("M")}

    assert "25 s" in rows["M1"]
    assert "99 %" in rows["M2"]
    assert "2 GiB" in rows["M4"]
    assert "80 %" in rows["M6"]
    assert "$0.50" in rows["M9"]
    assert "–" in rows["M11"]
    assert "1" in rows["M12"]


def test_notes_say_what_a_value_is_made_of() -> None:
    """The note beside a value has the figures behind it, and leaves out those that are nought."""
    notes = {key: note(sli) for key, sli in pipeline()["indicators"].items()}

    assert notes["M1"] == "mean of 4 jobs"
    assert notes["M2"] == "99 committed · 1 lost"
    assert notes["M8"] == "3 retries in 103 attempts"
    assert notes["M9"] == "mean per job; waste 25 %"
    assert notes["M12"] == "3 success · 1 error"


def test_report_of_nothing_is_empty() -> None:
    """Without pipelines there is a table without columns for any, and no error."""
    assert len(drawn()) >= len(INDICATORS)
