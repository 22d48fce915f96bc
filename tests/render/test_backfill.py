"""
Windows by subtraction, in a real Prometheus over thirty uneven days: each equals the count of events, exactly.

The history is made of events at known times; a scrape sees how many there were so far. What a window should hold is
counted from the events themselves, at the scrape instants that the window's ends fall on.
"""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from mppobs.model import RunKind
from mppobs.render.promql import Durations
from mppobs.render.rules import BAD, EVENTS, LOOKBACK, START, delta
from mppobs.slo.evaluate import Evaluator
from mppobs.slo.indicators import ShardFacts
from mppobs.slo.model import Counts, IndicatorKind, Slo
from mppobs.slo.standing import window
from mppobs.slo.windows import DAY, HOUR, MINUTE, WINDOWS
from tests.servers import Prometheus, free_port, require, run, serving

BEGIN = 1_790_000_000 // DAY * DAY
DAYS = 30
END = BEGIN + DAYS * DAY
NS = 10**9
STALE = 5 * MINUTE
"""Prometheus's look-back for an instant."""


@dataclass(frozen=True)
class History:
    """One SLO's life: when it was (re)started without a memory, its events, and when it was scraped."""

    slo: str
    starts: Sequence[int]
    events: Sequence[int]
    bad: Sequence[int]
    scrapes: Sequence[int]

    def start_at(self, time: int) -> int:
        """Return when the counting that is in force began."""
        return self.starts[bisect.bisect_right(self.starts, time) - 1]

    def counted(self, times: Sequence[int], time: int) -> int:
        """Return what a scrape at a time shows: events since the counting began."""
        return bisect.bisect_right(times, time) - bisect.bisect_left(times, self.start_at(time))

    def seen(self, time: int, age: int) -> int | None:
        """Return the newest scrape at or before a time, no older than `age`."""
        index = bisect.bisect_right(self.scrapes, time) - 1
        found = self.scrapes[index] if index >= 0 else None
        return found if found is not None and time - found < age else None

    def window(self, times: Sequence[int], time: int, seconds: int) -> int | None:
        """Return how many events lie between the scrapes at the ends of the window; `None` where one is missing."""
        now = self.seen(time, STALE)
        if now is None:
            return None
        if self.start_at(now) > time - seconds:
            return self.counted(times, now)
        past = self.seen(time - seconds, LOOKBACK)
        return None if past is None else self.counted(times, now) - self.counted(times, past)


def _busy(chance: random.Random) -> Iterator[int]:
    """Yield events of days with idle nights and bursts."""
    for hour in range(DAYS * 24):
        rate = 0 if hour % 24 < 6 else chance.choice([5, 40, 400])
        yield from (BEGIN + hour * HOUR + chance.randrange(HOUR) for _ in range(rate))


def _histories() -> list[History]:
    """Return SLOs of every kind that batch work has."""
    chance = random.Random(11)
    every = range(BEGIN, END + 1, MINUTE)
    outage = range(BEGIN + 20 * DAY + 5 * HOUR, BEGIN + 20 * DAY + 5 * HOUR + 40 * MINUTE)
    seen = [time for time in every if time not in outage]
    busy = sorted(_busy(chance))
    nightly = [BEGIN + day * DAY + 2 * HOUR + chance.randrange(MINUTE * 30) for day in range(DAYS)]
    weekly = sorted(BEGIN + day * DAY + chance.randrange(HOUR) for day in range(0, DAYS, 7) for _ in range(2000))
    restart = BEGIN + 12 * DAY + 7 * HOUR + 11
    late = END - 5 * HOUR

    def bad(events: Sequence[int], share: float) -> list[int]:
        return [time for time in events if chance.random() < share]

    return [
        History("t/busy", [BEGIN], busy, bad(busy, 0.03), seen),
        History("t/nightly", [BEGIN], nightly, bad(nightly, 0.2), seen),
        History("t/weekly", [BEGIN], weekly, bad(weekly, 0.01), seen),
        History("t/forgot", [BEGIN, restart], busy, bad(busy, 0.03), seen),
        History(
            "t/young", [late], [t for t in busy if t >= late], [late + 1, late + 7], [t for t in seen if t >= late]
        ),
        History("t/first", [END - 90], [END - 80], [END - 80], [t for t in every if t >= END - 90]),
    ]


def _openmetrics(histories: Sequence[History]) -> Iterator[str]:
    """Yield the histories as the recording rules would have left them: one series per SLO."""
    for name, of in ((EVENTS, "events"), (BAD, "bad"), (START, "start")):
        yield f"# TYPE {name} gauge\n"
        for history in histories:
            for time in history.scrapes:
                value = history.start_at(time) if of == "start" else history.counted(getattr(history, of), time)
                yield f'{name}{{slo="{history.slo}"}} {value} {time}\n'
    yield "# EOF\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, list[History]]]:
    """Run a Prometheus that remembers thirty days."""
    directory: Path = tmp_path_factory.mktemp("backfill")
    binary, promtool = require("prometheus", "prometheus"), require("promtool", "prometheus")
    histories = _histories()
    with (directory / "history.om").open("w") as file:
        file.writelines(_openmetrics(histories))
    blocks = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=768h", "--quiet"]
    made = run([*blocks, str(directory / "history.om"), str(directory / "data")])
    assert made.returncode == 0, made.stderr
    (directory / "prometheus.yml").write_text("{}")
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
        "--storage.tsdb.retention.time=10y", f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with serving(command, directory, f"http://{address}", "/-/ready") as url:
        yield Prometheus(url), histories


def _over(prometheus: Prometheus, expression: str, start: int, step: int) -> dict[tuple[str, int], int]:
    """Return the values of an expression by SLO and instant, from a start to the end of the history."""
    answer = prometheus.get("query_range", query=expression, start=str(start), end=str(END), step=str(step))
    return {
        (series["metric"]["slo"], int(time)): int(value)
        for series in answer["result"]
        for time, value in series["values"]
    }


@pytest.mark.parametrize("seconds", WINDOWS)
def test_every_window_equals_the_count_of_events(server: tuple[Prometheus, list[History]], seconds: int) -> None:
    """For every SLO at every instant, Prometheus says what counting the events says, and says nothing else."""
    prometheus, histories = server
    for counter, of in ((EVENTS, "events"), (BAD, "bad")):
        expression = delta(counter, counter, seconds, Durations()).text
        for start, step in ((BEGIN + 17, 5 * HOUR + 13 * MINUTE), (BEGIN + 20 * DAY, 7 * MINUTE + 1), (END - DAY, 97)):
            found = _over(prometheus, expression, start, step)
            expected = {
                (history.slo, time): held
                for history in histories
                for time in range(start, END + 1, step)
                if (held := history.window(getattr(history, of), time, seconds)) is not None
            }
            assert found == expected


def test_what_increase_would_have_said(server: tuple[Prometheus, list[History]]) -> None:
    """The usual way misses the first event of a counter that is born with it; the subtraction does not."""
    prometheus, _ = server
    usual = prometheus.get("query", query=f'increase({BAD}{{slo="t/first"}}[1h])', time=str(END))["result"]
    ours = prometheus.get("query", query=delta(BAD, BAD, HOUR, Durations()).text, time=str(END))["result"]
    assert [float(series["value"][1]) for series in usual] in ([], [0.0])
    assert {series["metric"]["slo"]: series["value"][1] for series in ours}["t/first"] == "1"


def _own_windows(history: History, of: Sequence[int], windows: Sequence[int]) -> dict[tuple[int, int], Counts]:
    """Return what the aggregator says of windows at each full hour, fed with the same events as they come."""
    slo = Slo("t", "x", IndicatorKind.SHARD_SUCCESS, Fraction(99, 100), DAYS, "p")
    found: dict[tuple[int, int], Counts] = {}
    evaluator, begun, place, bad = Evaluator(), 0, 0, Counter(history.bad)
    for time in range(BEGIN, END + 1, HOUR):
        if history.start_at(time) != begun:  # it forgot everything
            evaluator, begun = Evaluator(), history.start_at(time)
            evaluator.watch([slo], begun * NS)
            place = bisect.bisect_left(of, begun)
        while place < len(of) and of[place] <= time:
            failed = int(bad[of[place]] > 0)
            bad[of[place]] -= failed
            facts = ShardFacts("p", "", RunKind.SCHEDULED, "s", 1 - failed, failed)
            evaluator.shards(facts, of[place] * NS - 1)  # a scrape in the same second has seen it
            place += 1
        evaluator.thin(time * NS)
        found |= {(seconds, time): window(evaluator.tally(slo), time * NS, seconds) for seconds in windows}
    return found


def test_the_aggregator_s_own_counts_agree(server: tuple[Prometheus, list[History]]) -> None:
    """At each full hour of the thirty days, windows and budget of the aggregator are those of Prometheus, exactly."""
    prometheus, histories = server
    windows = (*WINDOWS, 7 * DAY, 28 * DAY)
    own = {history.slo: _own_windows(history, history.events, windows) for history in histories[:4]}
    compared = 0
    for seconds in windows:
        events = _over(prometheus, delta(EVENTS, EVENTS, seconds, Durations()).text, BEGIN, HOUR)
        bad = _over(prometheus, delta(BAD, BAD, seconds, Durations()).text, BEGIN, HOUR)
        for history in histories[:4]:
            scraped = set(history.scrapes)
            for time in range(BEGIN + HOUR, END + 1, HOUR):
                young = history.start_at(time) > time - seconds
                if time in scraped and (young or time - seconds in scraped):
                    compared += 1
                    told = Counts(events[history.slo, time], bad[history.slo, time])
                    assert own[history.slo][seconds, time] == told, (history.slo, seconds, time - BEGIN)
    assert compared > 4 * len(windows) * 24 * DAYS * 0.9
