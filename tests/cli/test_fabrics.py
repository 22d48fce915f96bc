"""Facts of stages as the journals of a job give them, and advice as it is shown."""

from __future__ import annotations

import io

from rich.console import Console

import mppobs
from mppobs.cli.fabrics import advice_as_json, advice_table, facts_of
from mppobs.diagnose.fabric import Rates, advise
from mppobs.testing import capture


def recorded() -> str:
    """Record a job of two stages and return its ID."""
    with mppobs.job(pipeline="hybrid") as run:
        run.plan("scan", 2, input_bytes=5_000_000)
        for shard in range(2):
            with mppobs.attempt(stage="scan", shard=shard) as attempt:
                attempt.add(rows=5, shuffle_written=70_000)
        for number in range(2):
            with mppobs.attempt(stage="step", shard=0, attempt=number) as attempt, attempt.activity("exchange"):
                attempt.add(shuffle_read=10, shuffle_written=10)
    with mppobs.job(pipeline="other"), mppobs.attempt(stage="scan", shard=0):
        pass
    return run.job_id


def test_facts_are_sums_over_the_records_of_one_job() -> None:
    """Attempts, plans and activities add up by stage, in the order in which stages began; other jobs do not count."""
    with capture() as captured:
        job_id = recorded()
        scan, step = facts_of(captured.directory, job_id, {"step"})

    assert (scan.stage, scan.shards, scan.input_bytes, scan.written_bytes) == ("scan", 2, 5_000_000, 140_000)
    assert (step.stage, step.shards, step.input_bytes, step.exchanged_bytes) == ("step", 1, 0, 40)
    assert (scan.custom_code, step.custom_code) == (False, True)
    assert scan.peer_seconds == 0
    assert 0 < step.peer_seconds <= step.wall_seconds
    assert 0 < scan.median_seconds <= scan.longest_seconds <= scan.wall_seconds


def test_advice_is_shown_with_its_reasons() -> None:
    """Both forms name stage, fabric and what speaks for it."""
    with capture() as captured:
        advice = advise(facts_of(captured.directory, recorded(), {"step"}), Rates())
    out = io.StringIO()
    Console(file=out, width=200).print(advice_table(advice))
    told = advice_as_json(advice)

    assert [(each["stage"], each["fabric"]) for each in told] == [("scan", "parallel engine"), ("step", "containers")]
    assert told[1]["reasons"][0]["rule"] == "peers"
    assert "all must run at once; is code of its own" in out.getvalue()
