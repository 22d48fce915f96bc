"""
The scheduler's judgements, one small function each, with the place that its threshold comes from.

All are pure: chance is a generator that the caller seeded, times are integer nanoseconds. `Policy` switches them.
"""

from mppobs.executor.policies.placing import (
    MAX_WINDOW,
    avoids_zone,
    memory_after_oom,
    order_largest_first,
    wait_for_zone,
    waits_for_data,
    window_by_duration,
)
from mppobs.executor.policies.retrying import (
    SECOND,
    Blame,
    backoff_after_loss,
    backoff_full_jitter,
    backoff_half_jitter,
    blame_for,
    retry_budget,
)
from mppobs.executor.policies.scaling import is_enough_fewer, is_enough_more, workers_wanted
from mppobs.executor.policies.settings import Autoscale, Policy, Share, SlowNodes, Speculation, Splitting, Spot
from mppobs.executor.policies.sharing import due_at, fewer_at_a_time, more_at_a_time, share_used
from mppobs.executor.policies.straggling import (
    cause_of,
    check_after,
    is_copied,
    is_skewed,
    is_split_running,
    most_aside,
    most_copies,
    parts_of,
    straggles_after,
    time_left,
)

__all__ = [
    "MAX_WINDOW", "SECOND", "Autoscale", "Blame", "Policy", "Share", "SlowNodes", "Speculation", "Splitting", "Spot",
    "avoids_zone", "backoff_after_loss", "backoff_full_jitter", "backoff_half_jitter", "blame_for", "cause_of",
    "check_after", "due_at", "fewer_at_a_time", "is_copied", "is_enough_fewer", "is_enough_more", "is_skewed",
    "is_split_running", "memory_after_oom", "more_at_a_time", "most_aside", "most_copies", "order_largest_first",
    "parts_of", "retry_budget", "share_used", "straggles_after", "time_left", "wait_for_zone", "waits_for_data",
    "window_by_duration", "workers_wanted",
]  # fmt: skip
