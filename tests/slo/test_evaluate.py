"""Counting promises: the evaluator against a recount of the list of events, naively."""

from __future__ import annotations

import calendar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.errors import ConfigError
from mppobs.model import JobOutcome, RunKind, Tier
from mppobs.slo.evaluate import Evaluator, definition
from mppobs.slo.history import HOURLY_DAYS, History, begin_of, first_slot, slot_of
from mppobs.slo.indicators import JobFacts, MinuteFacts, ShardFacts, judge_minute
from mppobs.slo.model import Bounds, Counts, IndicatorKind, Slo
from mppobs.slo.standing import Period, current_period, month, standing, window
from mppobs.slo.windows import DAY, HOUR, WINDOWS

NOW = 1_790_000_000 * 10**9
NS = 10**9
SUCCESS, FAILURE = JobOutcome.SUCCESS, JobOutcome.FAILURE


def promise(**given: object) -> Slo:
    """An SLO on the success of the pipeline `nightly`, with some fields changed."""
    base = Slo("risk", "ok", IndicatorKind.JOB_SUCCESS, Fraction(99, 100), 30, "nightly")
    return replace(base, **given)  # type: ignore[arg-type]


def job(outcome: JobOutcome = FAILURE, **given: object) -> JobFacts:
    """A finished job of the pipeline `nightly`."""
    return replace(JobFacts("nightly", "default", RunKind.SCHEDULED, outcome, 0, NS), **given)  # type: ignore[arg-type]


def watching(*slos: Slo, now_ns: int = NOW) -> Evaluator:
    """An evaluator that has just begun to watch some SLOs."""
    made = Evaluator()
    made.watch(slos, now_ns)
    return made


@dataclass(frozen=True)
class Event:
    """What a naive recount remembers."""

    time_ns: int
    counts: Counts


def recount(events: list[Event], since_ns: int, until_ns: int = 1 << 62) -> Counts:
    """The events of a stretch of time, one by one."""
    chosen = [event.counts for event in events if since_ns <= event.time_ns < until_ns]
    return sum(chosen, Counts(0, 0))


event_lists = st.lists(
    st.tuples(st.integers(0, 70 * DAY), st.integers(1, 4), st.integers(0, 4)), max_size=60
).map(
    lambda rows: [Event(NOW + at * NS, Counts(total, min(bad, total))) for at, total, bad in sorted(rows)]
)  # fmt: skip


def fed(events: list[Event], slo: Slo, *, thin_every: int = 0) -> Evaluator:
    """An evaluator that was fed the events as shards, and thinned its history now and then."""
    evaluator = watching(slo)
    for number, event in enumerate(events, 1):
        good, bad = event.counts.total - event.counts.bad, event.counts.bad
        facts = ShardFacts("nightly", "default", RunKind.SCHEDULED, "map", good, bad // 2, bad - bad // 2)
        evaluator.shards(facts, event.time_ns)
        if thin_every and number % thin_every == 0:
            evaluator.thin(event.time_ns)
    return evaluator


@settings(max_examples=150)
@given(event_lists, st.integers(0, 80 * DAY), st.integers(0, 5))
def test_windows_and_period_equal_a_recount(events: list[Event], ahead: int, thin_every: int) -> None:
    """Whenever it is asked, and however often it was thinned, each stretch holds exactly the events since its start."""
    slo = promise(indicator=IndicatorKind.SHARD_SUCCESS)
    events = [event for event in events if event.time_ns <= NOW + ahead * NS]
    evaluator, now = fed(events, slo, thin_every=thin_every), NOW + ahead * NS
    evaluator.thin(now)
    tally = evaluator.tally(slo)

    assert tally.counts == recount(events, 0)
    for seconds in (*WINDOWS, 7 * DAY, 30 * DAY, 62 * DAY, 63 * DAY, 90 * DAY):
        assert window(tally, now, seconds) == recount(events, begin_of(first_slot(now, seconds))), seconds
    assert current_period(slo, tally, now).counts == recount(events, begin_of(first_slot(now, 30 * DAY)))


@settings(max_examples=80)
@given(event_lists, st.integers(0, 3))
def test_months_equal_a_recount(events: list[Event], thin_every: int) -> None:
    """Each month of the calendar, in UTC, has exactly its own events, and together they have all."""
    slo = promise(indicator=IndicatorKind.SHARD_SUCCESS)
    now = NOW + 75 * DAY * NS
    tally = fed(events, slo, thin_every=thin_every).tally(slo)
    names = sorted({datetime.fromtimestamp(NOW // NS + day * DAY, UTC).strftime("%Y-%m") for day in range(76)})

    found = {name: month(slo, tally, name, now).counts for name in names}

    for name, counts in found.items():
        year, number = map(int, name.split("-"))
        start = calendar.timegm((year, number, 1, 0, 0, 0))
        end = start + calendar.monthrange(year, number)[1] * DAY
        assert counts == recount(events, start * NS, end * NS), name
    assert sum(found.values(), Counts(0, 0)) == tally.counts


@given(st.integers(0, 2**40), st.sampled_from([*WINDOWS, 28 * DAY, 30 * DAY, 90 * DAY, 366 * DAY]))
def test_a_window_begins_at_most_one_step_early(now: int, seconds: int) -> None:
    """Five minutes for alerting windows, an hour for months, a day for what is longer."""
    now_ns = (now + 366 * DAY) * NS
    early = now_ns - seconds * NS - begin_of(first_slot(now_ns, seconds))
    step = 300 if seconds <= 3 * DAY else HOUR if seconds < HOURLY_DAYS * DAY else DAY

    assert 0 <= early < step * NS


def test_a_staircase_only_rises_in_time() -> None:
    """A step before the newest is refused: it would change what was already said."""
    history = History()
    history.put(5, Counts(1, 0))

    with pytest.raises(ValueError, match="before 5"):
        history.put(4, Counts(2, 0))


def test_thinning_bounds_what_is_kept() -> None:
    """Two years of an event every five minutes come down to a few thousand steps; the newest days are all there."""
    history = History()
    end = slot_of(NOW)
    for slot in range(end - 730 * 288, end + 1):
        history.put(slot, Counts(slot, 0))
        if slot % 20_000 == 0:
            history.thin(slot)
    gone = history.thin(end)

    assert gone
    assert len(history) < 4 * 288 + 63 * 24 + 730 + 40
    assert history.between(end - 288, end + 1) == Counts(289, 0)


def test_first_event_of_a_new_slo_is_its_whole_count() -> None:
    """0 from the moment it is watched, then 1: nothing before its load counts, and nothing after is lost."""
    evaluator = watching(promise())
    (fresh,) = evaluator.changed()
    assert (fresh.counts, fresh.start_ns, fresh.revision) == (Counts(0, 0), NOW, 1)
    evaluator.saved()
    assert evaluator.changed() == []

    evaluator.job(job(FAILURE), NOW + NS)

    (tally,) = evaluator.changed()
    assert (tally.counts, tally.latched) == (Counts(1, 1), True)
    assert window(tally, NOW + NS, 300) == Counts(1, 1)


def test_latch_follows_the_newest_event() -> None:
    """Bad until the next good one; an event that does not concern the SLO changes nothing."""
    slo = promise(exclude=(RunKind.DRILL,))
    evaluator = watching(slo)
    seen = []
    for facts in (job(FAILURE), job(SUCCESS, run_kind=RunKind.DRILL), job(SUCCESS), job(FAILURE, pipeline="other")):
        evaluator.job(facts, NOW)
        seen.append(evaluator.tally(slo).latched)

    assert seen == [True, True, False, False]


@pytest.mark.parametrize("kind", list(RunKind))
def test_excluded_kinds_of_run_are_no_events(kind: RunKind) -> None:
    """A run of an excluded kind counts neither as a job nor by its shards; all others do."""
    excluded = (RunKind.BACKFILL, RunKind.DRILL)
    jobs = promise(exclude=excluded)
    shards = promise(name="shards", indicator=IndicatorKind.SHARD_SUCCESS, exclude=excluded)
    evaluator = watching(jobs, shards)

    evaluator.job(job(FAILURE, run_kind=kind), NOW)
    evaluator.shards(ShardFacts("nightly", "default", kind, "map", 3, 1, 1), NOW)

    expected = (Counts(0, 0), Counts(0, 0)) if kind in excluded else (Counts(1, 1), Counts(5, 2))
    assert (evaluator.tally(jobs).counts, evaluator.tally(shards).counts) == expected


def test_a_changed_objective_keeps_the_counts_and_is_marked() -> None:
    """The same events, another budget: counts, start and revision stay; the change is remembered with its time."""
    evaluator = watching(promise())
    evaluator.job(job(FAILURE), NOW)
    stricter = promise(objective=Fraction(999, 1000), owner="someone", tier=Tier.CRITICAL, period_days=28)

    evaluator.watch([stricter], NOW + NS)

    tally = evaluator.tally(stricter)
    assert (tally.counts, tally.start_ns, tally.revision) == (Counts(1, 1), NOW, 1)
    assert tally.marks == [(NOW + NS, Fraction(99, 100), Fraction(999, 1000))]
    assert evaluator.changed() == [tally]


@pytest.mark.parametrize(
    "change",
    [
        {"indicator": IndicatorKind.COVERAGE}, {"pipeline": "other"}, {"tenant": "ads"}, {"stage": "map"},
        {"exclude": (RunKind.DRILL,)}, {"bounds": Bounds(at_most=Decimal(5))}, {"bounds": Bounds(good_query="up")},
    ],
)  # fmt: skip
def test_a_changed_definition_counts_anew(change: dict[str, object]) -> None:
    """Another kind of event is another revision, at 0 and without history."""
    evaluator = watching(promise())
    evaluator.job(job(FAILURE), NOW)
    changed = promise(**change)

    evaluator.watch([changed], NOW + NS)

    tally = evaluator.tally(changed)
    assert (tally.counts, tally.start_ns, tally.revision, len(tally.history)) == (Counts(0, 0), NOW + NS, 2, 0)


def test_numbers_written_differently_define_the_same_events() -> None:
    """`2` and `2.0`, and kinds of run in another order, are no change; the period is one of `spend` alone."""
    one = promise(bounds=Bounds(at_most=Decimal(2)), exclude=(RunKind.DRILL, RunKind.BACKFILL))
    two = promise(bounds=Bounds(at_most=Decimal("2.0")), exclude=(RunKind.BACKFILL, RunKind.DRILL))
    spend = promise(indicator=IndicatorKind.SPEND, bounds=Bounds(usd_per_period=Decimal(100)))

    assert definition(one) == definition(two)
    assert definition(spend) != definition(replace(spend, period_days=28))


def test_an_slo_that_comes_back_goes_on_where_it_was() -> None:
    """While nobody watches it nothing is counted, and nothing that was counted is lost."""
    slo = promise()
    evaluator = watching(slo)
    evaluator.job(job(FAILURE), NOW)
    evaluator.watch([], NOW)
    evaluator.job(job(FAILURE), NOW)
    evaluator.watch([slo], NOW)
    evaluator.job(job(SUCCESS), NOW)

    assert evaluator.tally(slo).counts == Counts(2, 1)


def test_minutes_of_all_tenants_and_of_one_are_told_apart() -> None:
    """A minute counts once for each SLO: by the sum over tenants where it names none, else by its own tenant."""
    everybody = promise(indicator=IndicatorKind.FRESHNESS, bounds=Bounds(at_most=Decimal(60)))
    one = replace(everybody, name="one", tenant="ads")
    evaluator = watching(everybody, one)

    evaluator.minute(MinuteFacts("nightly", "", NOW // NS // 60, last_success_ns=1), NOW)
    evaluator.minute(MinuteFacts("nightly", "ads", NOW // NS // 60, last_success_ns=NOW), NOW)

    assert evaluator.tally(everybody).counts == Counts(1, 1)
    assert evaluator.tally(one).counts == Counts(1, 0)


def test_even_spending_burns_at_pace_one() -> None:
    """Money spent evenly over the period is a burn rate of 1, and at its end exactly nothing is left."""
    slo = promise(
        indicator=IndicatorKind.SPEND, objective=Fraction(1, 2), bounds=Bounds(usd_per_period=Decimal(432))
    )  # one cent a minute
    evaluator = watching(slo)
    first = NOW // NS // 60 // 60 * 60
    for minute in range(first, first + 30 * 1440):
        evaluator.minute(MinuteFacts("nightly", "", minute, spent_cents=1), minute * 60 * NS)
    now = (first + 30 * 1440 - 1) * 60 * NS

    found = standing(slo, evaluator.tally(slo), now)

    assert judge_minute(slo, MinuteFacts("nightly", "", first)) == Counts(2, 0)
    assert found.burns[DAY].rate == 1
    assert found.period.budget_left == 0
    assert found.exhausted_in == 0


def test_budget_of_a_period_counts_the_runs_that_are_still_expected() -> None:
    """One failure of the first two nights, of thirty that are expected at 95 %: half an event is left, not minus 19."""
    slo = promise(objective=Fraction(95, 100), expected_events=30)
    evaluator = watching(slo)
    evaluator.job(job(FAILURE), NOW)
    evaluator.job(job(SUCCESS), NOW + DAY * NS)

    period = current_period(slo, evaluator.tally(slo), NOW + DAY * NS)

    assert (period.counts, period.allowed, period.bad_left) == (Counts(2, 1), Fraction(3, 2), Fraction(1, 2))
    assert period.budget_left == Fraction(1, 3)
    assert period.start_ns == NOW


def test_forecast_goes_by_the_last_day_with_events() -> None:
    """Half of the budget left at ten times the pace lasts a twentieth of the period; without bad events for ever."""
    slo = promise(indicator=IndicatorKind.SHARD_SUCCESS)
    old = [Event(NOW, Counts(10_000, 0)), Event(NOW + 20 * DAY * NS, Counts(1000, 55))]
    evaluator = fed(old, slo)
    tally, now = evaluator.tally(slo), NOW + 20 * DAY * NS

    found = standing(slo, tally, now)
    later = standing(slo, tally, now + 5 * DAY * NS)

    assert found.period.budget_left == Fraction(1, 2)
    assert found.burns[DAY].rate == Fraction(11, 2)
    assert found.exhausted_in == pytest.approx(30 * DAY / 2 / 5.5)
    assert later.exhausted_in is None


def test_an_objective_of_one_hundred_percent_has_no_budget() -> None:
    """The first bad event overspends it; nothing is divided by nothing."""
    slo = promise(objective=Fraction(1))
    evaluator = watching(slo)
    assert standing(slo, evaluator.tally(slo), NOW).period.budget_left == 1
    evaluator.job(job(FAILURE), NOW)

    assert standing(slo, evaluator.tally(slo), NOW).period.budget_left <= 0


def test_calendar_budgets_begin_with_the_month() -> None:
    """An SLO by the calendar has its whole budget back on the first, in UTC."""
    slo = promise(calendar=True, expected_events=30)
    evaluator = watching(slo)
    last = calendar.timegm((2026, 9, 30, 23, 59, 59)) * NS
    evaluator.job(job(FAILURE), last)

    before = current_period(slo, evaluator.tally(slo), last)
    after = current_period(slo, evaluator.tally(slo), last + NS)

    assert (before.counts, after.counts) == (Counts(1, 1), Counts(0, 0))
    assert after.start_ns == last + NS
    assert after.allowed == Fraction(31, 100)


@pytest.mark.parametrize(("name", "message"), [("2026-13", "no month"), ("May", "no month"), ("2099-01", "not begun")])
def test_months_that_are_none_are_refused(name: str, message: str) -> None:
    """What is no month, or lies ahead, is an error that says so."""
    slo = promise()

    with pytest.raises(ConfigError, match=message):
        month(slo, watching(slo).tally(slo), name, NOW)


def test_a_month_before_the_first_count_is_empty() -> None:
    """A report of a time at which nothing was counted says so, rather than that all was good."""
    slo = promise()
    found = month(slo, watching(slo).tally(slo), "2026-01", NOW)

    assert isinstance(found, Period)
    assert found.counts == Counts(0, 0)
    assert found.start_ns == found.end_ns


def test_a_clock_that_is_set_back_does_not_stop_the_counting() -> None:
    """What comes at an earlier time counts with the newest: no event is lost and none is refused."""
    slo = promise()
    evaluator = watching(slo)
    evaluator.job(job(FAILURE), NOW)
    evaluator.job(job(SUCCESS), NOW - DAY * NS)

    assert window(evaluator.tally(slo), NOW, 300) == Counts(2, 1)
