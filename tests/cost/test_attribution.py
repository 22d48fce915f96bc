"""Cost as arithmetic: what an amount is, and whose it is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.cost.attribution import HOUR_NS, MAX_AMOUNT, PICO, amount, byte_rate, cost_kind, idle_ns, lane_rate
from mppobs.model import AttemptOutcome, CostKind
from mppobs.sidecar.fold_attempts import amounts

SPANS = st.integers(0, 10 * HOUR_NS)


@settings(deadline=None)
@given(SPANS, st.floats(0, 1000), st.integers(1, 128))
def test_an_amount_is_right_to_the_last_digits(span: int, usd: float, lanes: int) -> None:
    """Against exact fractions: within one part in 10^15, and half a picodollar."""
    exact = Fraction(span) * Fraction(usd) * PICO / (HOUR_NS * lanes)
    assert abs(amount(span, lane_rate(usd, lanes)) - exact) <= exact / 10**15 + Fraction(1, 2)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**58), min_size=1, max_size=50), st.floats(0, 10**6))
def test_many_at_a_time_are_the_same_as_one_by_one(spans: list[int], rate: float) -> None:
    """The columns of the fold and the plain function agree to the unit."""
    assert amounts(np.array(spans), rate).tolist() == [amount(span, rate) for span in spans]


def test_an_absurd_amount_is_bounded() -> None:
    """A mistake in a price cannot overflow a total."""
    assert amount(2**62, 1e9) == MAX_AMOUNT


def test_every_outcome_has_a_kind() -> None:
    """A success is useful once; all that did not help is waste with a name."""
    kinds = {outcome: cost_kind(outcome, first_success=True) for outcome in AttemptOutcome}
    assert kinds[AttemptOutcome.SUCCESS] is CostKind.USEFUL
    assert cost_kind(AttemptOutcome.SUCCESS, first_success=False) is CostKind.SPECULATION
    assert CostKind.USEFUL not in [kind for outcome, kind in kinds.items() if outcome is not AttemptOutcome.SUCCESS]


def test_a_gigabyte_costs_its_price() -> None:
    """Bytes are decimal gigabytes."""
    assert amount(10**9, byte_rate(0.02)) == 0.02 * PICO


@settings(deadline=None)
@given(st.integers(-5, 64), SPANS, SPANS)
def test_idle_time_is_never_negative_and_never_more_than_the_lanes_have(lanes: int, elapsed: int, ran: int) -> None:
    """A worker that ran more than it could has no idle time."""
    assert 0 <= idle_ns(lanes, elapsed, ran) <= max(1, lanes) * elapsed
