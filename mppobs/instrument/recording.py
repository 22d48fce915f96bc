"""
How an attempt begins and ends: the hot path.

`start` and `succeed` are what every attempt pays. They are flat and without helper calls on purpose; everything that
is not the plain success of an attempt goes through `finish`, which is for reading. None of them raises.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from time import monotonic_ns, thread_time_ns, time_ns
from typing import Final, SupportsIndex

from mppobs.instrument.attempt import NOTHING, SPECULATIVE, Attempt, Extra
from mppobs.instrument.outcomes import SUCCESS, Ending, ending_of
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.run import StageBinding
from mppobs.journal import format as fmt
from mppobs.journal.slots import Place
from mppobs.journal.writer import JournalWriter
from mppobs.model import AttemptOutcome, AttemptRecord, DetailKind, DetailRecord, Reason, Shard

_pack: Final = fmt.RECORD.pack
_INTEGER_SHARDS: Final = 1 << 61
_NO_COUNTS: Final = fmt.pair(0, 0)
_NO_LINK: Final = fmt.link(0)
_NO_CPU: Final = fmt.FLAG_NO_CPU << 24
_HAS_DELAY: Final = fmt.FLAG_HAS_DELAY << 24
_SUCCESS_CODE: Final = fmt.ATTEMPT_CODES[AttemptOutcome.SUCCESS]
_LAST: Final = fmt.MAX_ATTEMPT

CPU_READ_NS: Final = 10_000
"""
How long a reading of a thread's CPU time serves: within it, the time since is added instead of reading again. A reading
costs 0.6 to 0.8 µs, a sixth of all that is recorded (the other clocks are read without a system call), and twice as
much for attempts that follow each other closely. A thread that waits and is woken again takes longer than this as a
rule; where it does not, the CPU time of one attempt is wrong by this at the most, and the next reading is right again.
"""


def start(
    binding: StageBinding, shard: Shard, number: int, speculative: bool, assigned_ns: int | None, cpu: bool
) -> Attempt:
    """Begin an attempt: show it in a slot and note the clocks; that of the thread where `cpu` says it is its own."""
    attempt = Attempt()
    journal = binding.journal
    key = shard << 1 | 1 if type(shard) is int and 0 <= shard < _INTEGER_SHARDS else _named(journal, shard) << 1 | 1
    identity, check = binding.identity, binding.check
    flags = 0 if cpu else _NO_CPU
    if number or speculative:
        number = min(number, _LAST)
        bits = number << 16 | speculative << 8
        identity, check = identity ^ bits, check ^ bits
        flags |= speculative and SPECULATIVE
    try:
        place: Place | None = journal.free_slots.pop()
    except IndexError:
        place = journal.take_slot()
    now = time_ns()
    if place is None:
        attempt._link = _NO_LINK | number
    else:
        # One aligned word at a time; the identity last, so that the slot never shows half of an attempt.
        words, base = place.words, place.base
        words[base + 1] = key
        words[base + 2] = now
        words[base + 3] = check ^ key ^ now
        words[base] = identity
        attempt._link = place.link | number
    journal.last_context = binding.number
    attempt._binding, attempt._place, attempt._extra = binding, place, None
    attempt.shard, attempt.attempt, attempt._key, attempt._start = shard, number, key, now + 1
    attempt._rows = attempt._read = attempt._written = attempt._delay = 1
    attempt._faults = _NO_COUNTS
    if assigned_ns is not None:
        flags |= _HAS_DELAY
        attempt._delay = max(now - assigned_ns, 0) + 1
    attempt._flags = flags
    attempt._monotonic = began = monotonic_ns()
    if cpu:
        if place is not None and (since := began - place.read_at) < CPU_READ_NS and place.thread == get_ident():
            attempt._cpu = place.cpu + since
        else:
            attempt._cpu = _read_cpu(place, began)
    return attempt


def succeed(attempt: Attempt) -> None:
    """Record that an attempt ended well, and free its slot."""
    if attempt is NOTHING:
        return
    flags = attempt._flags
    place = attempt._place
    ended = monotonic_ns()
    if flags & _NO_CPU:
        cpu = 1
    else:
        if place is not None and (since := ended - place.read_at) < CPU_READ_NS:
            reading = place.cpu + since
        else:
            reading = _read_cpu(place, ended)
        cpu = reading - attempt._cpu + 1 if reading > attempt._cpu else 1
    wall = ended - attempt._monotonic + 1
    if attempt._extra is not None:
        finish(attempt, SUCCESS, wall - 1, cpu - 1)
        return
    binding = attempt._binding
    journal = binding.journal
    try:
        data = _pack(
            binding.success | flags, attempt._key, attempt._link, attempt._start, wall, cpu, attempt._delay,
            attempt._rows, attempt._read, attempt._written, attempt._faults, journal.peak_word,
        )  # fmt: skip
    except Exception:
        finish(attempt, SUCCESS, wall - 1, cpu - 1)  # an amount that is no whole number, for one
        return
    try:
        journal.write(data)
    except ValueError:
        journal.overflow(data, _SUCCESS_CODE)
    attempt._place = None
    if place is not None:
        try:
            place.words[place.base] = 0
            journal.free_slots.append(place)
        except ValueError:
            pass  # the journal was closed meanwhile, or is that of the parent of this process


def _read_cpu(place: Place | None, now: int) -> int:
    """Read the CPU time of this thread, and note it for the attempts that follow in the same slot."""
    reading = thread_time_ns()
    if place is not None:
        place.thread, place.cpu, place.read_at = get_ident(), reading, now
    return reading


def fail(attempt: Attempt, error: BaseException) -> None:
    """Record that an attempt ended with an exception, and free its slot."""
    if attempt is NOTHING:
        return
    cpu = 0 if attempt._flags & _NO_CPU else max(thread_time_ns() - attempt._cpu, 0)
    wall = monotonic_ns() - attempt._monotonic
    try:
        ending = ending_of(error)
    except Exception:
        RECORDER.note("an exception could not be classified")  # one whose attributes raise, for one
        ending = Ending(AttemptOutcome.FAILURE, Reason.EXCEPTION)
    finish(attempt, ending, wall, cpu)


def finish(attempt: Attempt, ending: Ending, wall: int, cpu: int) -> None:
    """Record an attempt in any way that it can end, details before it, and free its slot."""
    journal, place = attempt._binding.journal, attempt._place
    try:
        record = _record(attempt, ending, wall, cpu)
        details = () if attempt._extra is None else _details(record, attempt._extra, attempt._monotonic + wall)
        journal.append_attempt(record, details)
    except Exception:
        RECORDER.note("an attempt could not be recorded")
    attempt._place = None
    if place is not None:
        with suppress(ValueError):  # the journal was closed meanwhile, or is that of the parent of this process
            journal.end(place)


def _record(attempt: Attempt, ending: Ending, wall: int, cpu: int) -> AttemptRecord:
    flags, journal = attempt._flags, attempt._binding.journal
    extra = attempt._extra
    if extra is not None and extra.ending is not None:
        ending = extra.ending
    errors, throttled = fmt.unpair(attempt._faults)
    number, slot, _ = fmt.unlink(attempt._link)
    return AttemptRecord(
        context_id=attempt._binding.number,
        shard_key=attempt._key >> 1,
        attempt=number,
        outcome=ending.outcome,
        start_ns=attempt._start - 1,
        duration_ns=wall,
        reason=ending.reason,
        error_type=ending.error_type,
        speculative=bool(flags & SPECULATIVE),
        cpu_ns=None if flags & _NO_CPU else cpu,
        delay_ns=attempt._delay - 1 if flags & _HAS_DELAY else None,
        rows=_whole(attempt._rows) - 1,
        shuffle_read=_whole(attempt._read) - 1,
        shuffle_written=_whole(attempt._written) - 1,
        network_errors=errors,
        storage_throttled=throttled,
        peak_rss=journal.peak_word - 1,
        slot=slot,
    )


def _details(record: AttemptRecord, extra: Extra, end: int) -> list[DetailRecord]:
    """Return the named amounts of an attempt; its activities end at `end`, by the clock that measures."""
    activities = {} if extra.ledger is None else extra.ledger.close(end)
    amounts = {
        DetailKind.ACTIVITY: activities,
        DetailKind.NETWORK_ERROR: extra.network,
        DetailKind.STORAGE_THROTTLED: extra.storage,
    }
    return [
        DetailRecord(what, record.context_id, record.shard_key, record.attempt, record.start_ns, tuple(named.items()))
        for what, named in amounts.items()
        if named
    ]


def _whole(amount: object) -> int:
    """Return an amount as a whole number, 1 (nothing was added) where it is none."""
    try:
        return max(int(amount), 1)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        RECORDER.note("an amount was no number")
        return 1


def _named(journal: JournalWriter, shard: Shard) -> int:
    """Return the key of a shard that is a text, or a number of some other kind."""
    if type(shard) is not str:
        return journal.name_shard(as_shard(shard))
    key = journal.names.young.get(shard)
    return journal.name_shard(shard) if key is None else key


def as_shard(shard: object) -> Shard:
    """
    Return what identifies a shard as one of the two kinds that a record can hold.

    >>> as_shard(7), as_shard((2026, 11)), as_shard(True)
    (7, '(2026, 11)', 'True')
    """
    if isinstance(shard, (int, str)) and not isinstance(shard, bool):
        return int(shard) if isinstance(shard, int) else str(shard)
    if isinstance(shard, SupportsIndex) and not isinstance(shard, bool):
        return shard.__index__()
    return str(shard)


def forget_cpu(attempt: Attempt) -> None:
    """Say that the CPU time of the thread that ends an attempt is not the attempt's."""
    if attempt is not NOTHING:
        attempt._flags |= _NO_CPU
