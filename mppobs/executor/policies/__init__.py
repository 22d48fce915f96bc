"""
The scheduler's judgements, one small function each, with the place that its threshold comes from.

All are pure: chance is a generator that the caller seeded, times are integer nanoseconds. `Policy` switches them.
"""

from mppobs.executor.policies.placing import MAX_WINDOW, order_largest_first, window_by_duration
from mppobs.executor.policies.retrying import (
    SECOND,
    Blame,
    backoff_after_loss,
    backoff_full_jitter,
    backoff_half_jitter,
    blame_for,
    retry_budget,
)
from mppobs.executor.policies.settings import Autoscale, Policy, Share, SlowNodes, Speculation, Splitting, Spot

__all__ = [
    "MAX_WINDOW", "SECOND", "Autoscale", "Blame", "Policy", "Share", "SlowNodes", "Speculation", "Splitting", "Spot",
    "backoff_after_loss", "backoff_full_jitter", "backoff_half_jitter", "blame_for", "order_largest_first",
    "retry_budget", "window_by_duration",
]  # fmt: skip
