"""
One attempt as it runs, as the user's code sees it. How it begins and ends is in `mppobs.instrument.recording`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from mppobs.instrument.activities import OTHER, Activity, Ledger
from mppobs.instrument.outcomes import Ending
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import StageBinding
from mppobs.journal import format as fmt
from mppobs.journal.slots import Place
from mppobs.model import AttemptOutcome, DetailKind, Reason, Shard
from mppobs.trace_ids import span_id

MAX_KINDS: Final = 16
"""How many kinds of one trouble an attempt may name; further ones count as `other`."""
SPECULATIVE: Final = fmt.FLAG_SPECULATIVE << 24


class Extra:
    """What few attempts have: progress, activities, counts by kind, an outcome that the user set."""

    __slots__ = ("ending", "ledger", "network", "storage")

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.ledger: Ledger | None = None
        self.network: dict[str, int] = {}
        self.storage: dict[str, int] = {}


class Attempt:
    """
    The attempt that runs now, as `mppobs.current()` gives it. Its methods never raise, also after its end.

    Outside an attempt `current()` gives one that records nothing, so code needs no check.
    """

    __slots__ = (
        "_binding", "_cpu", "_delay", "_extra", "_faults", "_flags", "_key", "_link", "_monotonic", "_place", "_read",
        "_rows", "_start", "_written", "attempt", "shard",
    )  # fmt: skip

    _binding: StageBinding
    _cpu: int
    """CPU time of the thread at the start."""
    _delay: int
    """The delay word of the record."""
    _extra: Extra | None
    _faults: int
    """The word of network errors and throttled requests."""
    _flags: int
    """The flags of the record, at their place in its first word."""
    _key: int
    """The shard word."""
    _link: int
    """The link word, without an error's type."""
    _monotonic: int
    """When it began, by the clock that measures."""
    _place: Place | None
    """Its slot until it ends; `None` where it has none."""
    _read: int
    """The word of shuffle bytes read: 1 and what was added; so are `_rows` and `_written`."""
    _rows: int
    _start: int
    """The start word: wall time, plus one."""
    _written: int
    attempt: int
    """The number of the attempt, from 0."""
    shard: Shard
    """The shard that it works on."""

    def add(
        self,
        *,
        rows: int = 0,
        shuffle_read: int = 0,
        shuffle_written: int = 0,
        network_errors: int | Mapping[str, int] = 0,
        storage_throttled: int | Mapping[str, int] = 0,
    ) -> None:
        """
        Add to what the attempt has done: rows, bytes of exchanges, and troubles as a count or as counts by kind.

        Nothing can be taken back: negative amounts are passed over.
        """
        try:
            if rows and rows > 0:
                self._rows += rows
            if shuffle_read and shuffle_read > 0:
                self._read += shuffle_read
            if shuffle_written and shuffle_written > 0:
                self._written += shuffle_written
            if network_errors or storage_throttled:
                errors, throttled = fmt.unpair(self._faults)
                errors += self._by_kind(network_errors, DetailKind.NETWORK_ERROR)
                throttled += self._by_kind(storage_throttled, DetailKind.STORAGE_THROTTLED)
                self._faults = fmt.pair(min(errors, 0xFFFFFFFF), min(throttled, 0x7FFFFFFF))
        except Exception:
            RECORDER.note("add was given what cannot be counted")

    def progress(self, ratio: float) -> None:
        """Say how far the attempt has come, in [0, 1]. One that did so and then makes none counts as stuck."""
        try:
            place, journal = self._place, self._binding.journal
            if place is not None and not journal.closed:
                self._more()  # so that the end is not the short one: what was reported is to be cleared
                journal.progress(place, ratio)
        except Exception:
            RECORDER.note("progress was given what is no ratio")

    def checkpoint(self) -> None:
        """Say that a checkpoint was taken now."""
        try:
            place, journal = self._place, self._binding.journal
            if place is not None and not journal.closed:
                self._more()
                journal.checkpoint(place)
        except Exception:
            RECORDER.note("a checkpoint could not be stored")

    def activity(self, name: str) -> Activity:
        """
        Return a timer for `with`: the time inside counts as this activity's, but for that of activities within it.

        What no activity covers is `other`; all of them sum exactly to the attempt's wall time.
        """
        extra = self._more()
        if extra.ledger is None:
            extra.ledger = Ledger(self._monotonic)
        return Activity(extra.ledger, str(name))

    def fail(self, error_type: str = "", *, reason: Reason = Reason.NONE) -> None:
        """End as `failure` although the function will return; for code that reports errors as values."""
        self._ends_as(Ending(AttemptOutcome.FAILURE, Reason(reason), error_type))

    def superseded(self) -> None:
        """End as `superseded`: another attempt of this shard has won."""
        self._ends_as(Ending(AttemptOutcome.SUPERSEDED, Reason.SUPERSEDED))

    def end_as(self, outcome: AttemptOutcome, *, reason: Reason = Reason.NONE, error_type: str = "") -> None:
        """End with this outcome, whatever the function returns or raises."""
        try:
            self._ends_as(Ending(AttemptOutcome(outcome), Reason(reason), error_type))
        except ValueError:
            RECORDER.note("end_as was given no outcome of an attempt")

    @property
    def start_ns(self) -> int:
        """Return when it began, in nanoseconds since the epoch."""
        return self._start - 1

    @property
    def stage(self) -> str:
        """Return the stage; empty outside an attempt."""
        return self._binding.context.stage

    @property
    def pipeline(self) -> str:
        """Return the pipeline; empty outside an attempt."""
        return self._binding.context.pipeline

    @property
    def job_id(self) -> str:
        """Return the job; empty outside an attempt."""
        return self._binding.context.job_id

    @property
    def speculative(self) -> bool:
        """Return whether this is a copy that races another attempt of its shard."""
        return bool(self._flags & SPECULATIVE)

    @property
    def trace_id(self) -> int:
        """Return the OpenTelemetry trace ID of the job, 0 outside an attempt."""
        return self._binding.run.trace_id

    @property
    def span_id(self) -> int:
        """Return the OpenTelemetry span ID of this attempt, 0 outside an attempt."""
        context = self._binding.context
        return span_id(context.job_key, context.stage, self.shard, self.attempt)

    def _more(self) -> Extra:
        """Return what few attempts have, making it."""
        if self._extra is None:
            self._extra = Extra()
        return self._extra

    def _ends_as(self, ending: Ending) -> None:
        self._more().ending = ending

    def _by_kind(self, amount: int | Mapping[str, int], kind: DetailKind) -> int:
        """Return the sum of an amount, keeping its kinds where it has them."""
        if not isinstance(amount, Mapping):
            return max(int(amount), 0)
        extra = self._more()
        counts = extra.network if kind is DetailKind.NETWORK_ERROR else extra.storage
        total = 0
        for name, count in amount.items():
            if (whole := int(count)) > 0:
                name = str(name) if str(name) in counts or len(counts) < MAX_KINDS else OTHER
                counts[name] = counts.get(name, 0) + whole
                total += whole
        return total


class _Nothing(Attempt):
    """What `current` gives outside an attempt: it takes everything and keeps nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        self._place = None
        self._flags = self._start = self.attempt = self.shard = 0

    def add(
        self,
        *,
        rows: int = 0,
        shuffle_read: int = 0,
        shuffle_written: int = 0,
        network_errors: int | Mapping[str, int] = 0,
        storage_throttled: int | Mapping[str, int] = 0,
    ) -> None:
        """Count nothing: there is no attempt to count it for."""

    def progress(self, ratio: float) -> None:
        """Say nothing."""

    def checkpoint(self) -> None:
        """Say nothing."""

    def activity(self, name: str) -> Activity:
        """Return a timer that measures nothing."""
        return Activity(None, name)

    stage = pipeline = job_id = property(lambda self: "")
    trace_id = span_id = start_ns = property(lambda self: 0)

    def _ends_as(self, ending: Ending) -> None:
        """Keep nothing."""


NOTHING: Final = _Nothing()

current_attempt: ContextVar[Attempt] = ContextVar("mppobs_attempt", default=NOTHING)
