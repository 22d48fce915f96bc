"""The forecast of series holds what an aggregator exposes and what the rules record, no more and no less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mppobs.render.rules import Recording, groups
from mppobs.sidecar.exposition import render
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.store_slos import StoredSlos
from mppobs.sidecar.view import SloFigures, View
from mppobs.slo.lint import Level, lint
from mppobs.slo.model import IndicatorKind, Slo
from mppobs.slo.series import MAX_SERIES, RECORDED, series_of
from mppobs.slo.spec import parse_spec

NOW = 1_700_000_000 * 10**9
EVERYTHING = """
team: t
pipelines:
  often:
    every: 5m
    deadline: 1h
    objectives: &all
      shard-success: 99%
      job-success: 99%
      on-time: 99%
      duration: {objective: 99%, at-most: 1h}
      tail: {objective: 99%, at-most: 2}
      cost: {objective: 99%, at-most: 2}
      spend: {usd-per-period: 100}
      freshness: {objective: 99%, at-most: 1h}
      scheduler-latency: {objective: 99%, at-most: 10s}
      checkpoint-lag: {objective: 99%, at-most: 1h}
      coverage: {objective: 99%, at-least: 1}
  seldom: {every: 1d, deadline: 1h, objectives: *all}
  weekly: {every: 1h, deadline: 1h, period: 7d, objectives: *all}
"""


def _exposed(path: Path, days: float) -> dict[str, int]:
    """Return how many series an aggregator exposes of each SLO of a file, once predictions have been held to ends."""
    book = SloBook(SloFiles([path]), prometheus_days=days)
    book.load(StoredSlos(), NOW, {}, lambda pipeline, tenant: 0)
    book.committed()
    view = View(slos=[_seasoned(each) for each in book.figures(NOW)])
    lines = render(view, NOW, openmetrics=False).decode().splitlines()
    return {each.slo.full_name: sum(f'slo="{each.slo.full_name}"' in line for line in lines) for each in view.slos}


def _seasoned(figures: SloFigures) -> SloFigures:
    """Return an SLO with predictions whose intervals can be counted, where any are made."""
    foresight = figures.foresight and replace(figures.foresight, runs=20, coverage=0.9)
    return replace(figures, foresight=foresight)


@pytest.mark.parametrize("days", [1, 15, 40])
def test_each_slo_has_the_series_that_are_forecast(days: int, tmp_path: Path) -> None:
    """Of every indicator the aggregator counts itself, sparse or not, by how long Prometheus keeps samples."""
    path = tmp_path / "slo.yaml"
    path.write_text(EVERYTHING)
    slos = parse_spec(EVERYTHING).slos
    assert {slo.indicator for slo in slos} == set(IndicatorKind) - {IndicatorKind.PROMQL}

    exposed = _exposed(path, days)

    assert {slo.full_name: series_of(slo, days) - RECORDED for slo in slos} == exposed


def test_the_rules_record_as_many_series_of_an_slo_as_are_forecast() -> None:
    """Each recording rule about SLOs gives one series of each."""
    recorded = [rule for group in groups() for rule in group.rules if isinstance(rule, Recording)]

    assert len(recorded) == len({rule.record for rule in recorded}) == RECORDED


def test_a_thousand_slos_of_the_costliest_kind_are_allowed() -> None:
    """As many as an aggregator takes by default; twice as many are an error that names the option."""

    def promised(count: int) -> list[Slo]:
        pipelines = "".join(
            f"  p{i}: {{owner: o, every: 1d, deadline: 1h, objectives: {{on-time: 95%}}}}\n" for i in range(count)
        )
        return list(parse_spec(f"team: t\npipelines:\n{pipelines}").slos)

    thousand = promised(1000)
    assert 50_000 < sum(series_of(slo, 15) for slo in thousand) <= MAX_SERIES
    assert [found for found in lint(thousand) if found.level is Level.ERROR] == []
    (found,) = (found for found in lint(promised(1200)) if found.level is Level.ERROR)
    assert "1,200 SLOs make 61,200 series, more than the 60,000 allowed" in found.message
    assert "--max-series" in found.message
