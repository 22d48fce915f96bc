"""How promises are exposed: from the start, at 0, and only where the aggregator counts them."""

from __future__ import annotations

from dataclasses import replace

from mppobs.catalog.metrics import BY_NAME
from mppobs.sidecar.view import View
from mppobs.slo.evaluate import Tally
from mppobs.slo.model import IndicatorKind
from tests.sidecar.test_exposition import text_of, value
from tests.sidecar.views import NOW, SECOND, full_view

OUTCOME = {
    "mpp_slo_window_events": {"outcome": "bad"},
    "mpp_slo_charges_total": {"outcome": "bad"},
    "mpp_slo_predictions_total": {"outcome": "caught"},
}
"""One series of each family that has several to an SLO."""


def test_an_slo_is_exposed_at_zero_from_its_load_and_latches_only_where_it_is_sparse() -> None:
    """Counters of an SLO without events are there, at 0; objective, start and period are exact."""
    promise = full_view(1).slos[0]
    tally = Tally(promise.slo.full_name, "", promise.slo.objective, NOW)
    promise = replace(promise, tally=tally, latched=None, provisional=0, windows={}, foresight=None)
    text = text_of(View(slos=[promise]))

    own = {name: value(text, name, slo="team/pipeline-0") for name in BY_NAME if name.startswith("mpp_slo_")}
    assert own == {
        "mpp_slo_events_total": 0, "mpp_slo_bad_events_total": 0, "mpp_slo_objective_ratio": 0.95,
        "mpp_slo_start_timestamp_seconds": NOW / SECOND, "mpp_slo_period_seconds": 30 * 86400, "mpp_slo_info": 1,
        "mpp_slo_provisional_bad_events": 0, "mpp_slo_latched": None, "mpp_slo_budget_left_ratio": 0.5,
        "mpp_slo_revision": 1, "mpp_slo_window_events": None, "mpp_slo_charges_total": None,
        "mpp_slo_predictions_total": None, "mpp_slo_prediction_coverage_ratio": None, "mpp_slo_prediction_runs": None,
    }  # fmt: skip


def test_of_an_slo_on_queries_only_what_its_file_says_is_exposed() -> None:
    """Its counts are Prometheus's own: a second series at 0 beside them would say that nothing ever happened."""
    figures = full_view(1).slos[0]
    asked = replace(figures.slo, indicator=IndicatorKind.PROMQL, pipeline="")
    text = text_of(View(slos=[replace(figures, slo=asked)]))

    shown = {name: value(text, name, slo="team/pipeline-0", **OUTCOME.get(name, {})) for name in BY_NAME}
    assert {name for name, number in shown.items() if number is not None} == {
        "mpp_slo_objective_ratio", "mpp_slo_period_seconds", "mpp_slo_info", "mpp_slo_revision",
    }  # fmt: skip
