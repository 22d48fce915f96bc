"""Replay and suggestions: what promises would have been is what the aggregator counts, and is kept with room."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mppobs.cli.main import run
from mppobs.model import JobOutcome, RunKind
from mppobs.slo.budget import allowed_bad
from mppobs.slo.indicators import JobFacts, ShardFacts
from mppobs.slo.lint import Check, lint
from mppobs.slo.model import Bounds, Counts, IndicatorKind, Slo
from mppobs.slo.replay import Past, replay
from mppobs.slo.suggest import LADDER, MIN_RUNS, SLACK, suggest
from mppobs.slo.windows import DAY
from tests.sidecar.slo_rig import FAILED, SPEC, SUCCEEDED, Rig

NS = 10**9
NOW = 1_790_000_000 * NS
SUCCESS_SLO = Slo("t", "ok", IndicatorKind.JOB_SUCCESS, Fraction(9, 10), 30, "nightly")
SHARD_SLO = Slo("t", "shards", IndicatorKind.SHARD_SUCCESS, Fraction(99, 100), 30, "nightly")


def past(
    days_ago: float, outcome: JobOutcome = SUCCEEDED, kind: RunKind = RunKind.SCHEDULED, seconds: int = 60
) -> Past:
    """A run of `nightly` with ten shards, of which one is lost where it failed."""
    end = NOW - round(days_ago * DAY * NS)
    bad = int(outcome is FAILED)
    facts = JobFacts("nightly", "default", kind, outcome, end - seconds * NS, end)
    return Past(end, facts, (ShardFacts("nightly", "default", kind, "map", 10 - bad, 0, bad),))


def test_replay_counts_what_would_have_been_and_finds_the_worst_day() -> None:
    """Two failures on one day of three: that day burns fastest; order of arrival does not matter."""
    runs = [past(2), past(1, FAILED), past(1.1, FAILED), past(0)]

    (jobs, shards) = replay([SUCCESS_SLO, SHARD_SLO], reversed(runs), NOW)

    assert (jobs.counts, shards.counts) == (Counts(4, 2), Counts(40, 2))
    assert jobs.worst_burn == 10
    assert 0 <= runs[1].time_ns - jobs.worst_day_ns < DAY * NS
    assert jobs.period.counts == Counts(4, 2)


def test_what_leaves_no_record_is_not_replayed() -> None:
    """Minutes, money and queries are left out rather than reported as perfect."""
    fresh = Slo("t", "f", IndicatorKind.FRESHNESS, Fraction(1, 2), 30, "nightly", bounds=Bounds(at_most=Decimal(60)))

    assert replay([fresh], [past(1)], NOW) == []


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.integers(1, 4000)), max_size=60))
def test_suggestions_would_have_been_kept_with_half_of_the_budget_left(rows: list[tuple[float, bool, int]]) -> None:
    """None is stricter than the history bears, and none could be one step stricter."""
    runs = [past(days, FAILED if bad else SUCCEEDED, seconds=seconds) for days, bad, seconds in rows]

    found = suggest(runs, NOW)

    assert found == [] or len(runs) >= MIN_RUNS
    for each in found:
        counts = each.counts
        assert counts.bad * SLACK <= allowed_bad(counts.total, each.slo.objective)
        stricter = LADDER[max(0, LADDER.index(each.slo.objective) - 1)]
        budget = allowed_bad(counts.total, stricter)
        assert stricter == each.slo.objective or counts.bad * SLACK > budget or budget < 1
        (again,) = replay([each.slo], runs, NOW)
        assert again.counts == counts
        refused = any(finding.check is Check.UNREACHABLE_LEG for finding in lint([each.slo]))
        assert each.can_alert == (not refused)


def test_drills_and_backfills_suggest_nothing() -> None:
    """A history of game days is no history."""
    runs = [past(day, FAILED, kind) for day in range(20) for kind in (RunKind.DRILL, RunKind.BACKFILL)]

    assert suggest(runs, NOW) == []


def test_a_perfect_history_promises_no_more_than_it_shows() -> None:
    """Twenty good runs bear 95 %: of 99 % nobody has seen a twentieth of a bad run."""
    found = {each.slo.name: each for each in suggest([past(day) for day in range(20)], NOW)}

    jobs = found["nightly-job-success"]
    assert jobs.slo.objective == Fraction(95, 100)
    assert float(jobs.budget) == pytest.approx(1.55, abs=0.1)
    assert found["nightly-shard-success"].slo.objective == Fraction(995, 1000)
    assert found["nightly-on-time"].slo.bounds.deadline_seconds == 120


def test_replay_of_an_aggregator_s_store_is_what_it_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command reads the store beside the running aggregator, and comes to the same counts."""
    rig = Rig(tmp_path)
    try:
        for number in range(12):
            rig.job(FAILED if number == 3 else SUCCEEDED, committed=3, lost=number % 2)
        rig.job(FAILED, kind=RunKind.DRILL, failed=2)
        rig.settle()
        counted = rig.counts()
        (tmp_path / "again.yaml").write_text(SPEC)
        state = f"--state={tmp_path / 'state'}"

        assert run(("slo", "replay", str(tmp_path / "again.yaml"), state, "--days=36500", "--json")) == 0
        told = json.loads(capsys.readouterr().out)
        assert run(("slo", "replay", str(tmp_path / "again.yaml"), state, "--days=36500")) == 0
        table = capsys.readouterr().out
        assert run(("slo", "suggest", state, "--days=36500", "--json")) == 0
        suggested = json.loads(capsys.readouterr().out)
        assert run(("slo", "suggest", state, "--days=36500")) == 0
        suggestions = capsys.readouterr().out
        assert run(("slo", "replay", str(tmp_path / "again.yaml"), state, "--days=1")) == 0
        unseen = capsys.readouterr().out.splitlines()
    finally:
        rig.close()

    assert {each["slo"].removeprefix("risk/"): (each["events"], each["bad_events"]) for each in told["slos"]} == {
        name: (counts.total, counts.bad) for name, counts in counted.items()
    }
    assert "risk/nightly-job-success" in table
    assert unseen[2].split()[1:] == ["–", "95", "%", "–", "0", "0", "–", "–"], "no events are no full budget"
    assert suggestions.count("too low") == 1 + sum(not each["can_alert"] for each in suggested)
    assert {each["indicator"]: each["objective_ratio"] for each in suggested} == {
        "job-success": 0.8,
        "shard-success": 0.5,
        "on-time": 0.8,
    }


def test_a_directory_without_a_store_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What to give is named."""
    assert run(("slo", "suggest", f"--state={tmp_path}")) == 2
    assert "--state" in capsys.readouterr().err
