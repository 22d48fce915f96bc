"""
Random histories of journals, from a seed: everything that happens to real jobs, and much that should not.

A history is a list of rounds; a round is what each journal had to say. Records are encoded and decoded by the codec,
so the fold gets bytes and the oracle gets records.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode, encode
from mppobs.journal.columns import words_of
from mppobs.journal.format import Kind, TextKind
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    ContextRecord,
    DetailKind,
    DetailRecord,
    DispatchRecord,
    DropRecord,
    EndRecord,
    HeartbeatRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Reason,
    Record,
    RunKind,
    SampleRecord,
    Shard,
    ShardOutcome,
    TextRecord,
    Tier,
    WorkerEvent,
    WorkerInfo,
    WorkerRecord,
)
from mppobs.sidecar.follow import Block
from tests.oracle import Piece, Undecodable

S = 10**9
BEGIN = 1_700_000_000 * S


@dataclass
class Said:
    """A record on its way into a journal."""

    record: Record
    context: Context | None = None
    names: tuple[Shard, ...] = ()
    spoil: str = ""
    """How to make nonsense of it: `code`, `kind`, `shard` or `text`."""


@dataclass
class Segment:
    """One segment as it is written."""

    index: int
    data: bytearray = field(default_factory=bytearray)
    texts: dict[str, int] = field(default_factory=dict)
    contexts: set[Context] = field(default_factory=set)
    names: set[int] = field(default_factory=set)
    ends: list[int] = field(default_factory=list)
    """Records after each thing said: where a block may end."""


class JournalScribe:
    """Writes one journal."""

    def __init__(self, name: str, info: WorkerInfo, rng: random.Random) -> None:
        self.name, self.info = name, info
        self._rng = rng
        self._texts: dict[str, int] = {}
        self._contexts: dict[Context, int] = {}
        self.segments: list[Segment] = []
        self._turn()

    def say(self, said: Said) -> None:
        """Append a record, and before it what it names."""
        if self._rng.random() < 0.01:
            self._turn()
        segment = self.segments[-1]
        record = said.record
        for shard in said.names:
            self._name(segment, shard)
        if said.context is not None:
            record = replace(record, context_id=self._context(segment, said.context))  # type: ignore[call-arg]
        data = bytearray(encode(record, lambda text: self._text(segment, text)))
        if said.spoil:
            _spoil(data, said.spoil)
        segment.data += data
        segment.ends.append(len(segment.data) // fmt.RECORD_BYTES)

    def _turn(self) -> None:
        """Begin a segment."""
        self.segments.append(Segment(len(self.segments)))
        segment = self.segments[-1]
        segment.data += encode(WorkerRecord(WorkerEvent.SELF, BEGIN, self.info), lambda text: self._text(segment, text))
        segment.ends.append(len(segment.data) // fmt.RECORD_BYTES)

    def _text(self, segment: Segment, text: str) -> int:
        if not text:
            return 0
        number = self._texts.setdefault(text, len(self._texts) + 1)
        if text not in segment.texts:
            segment.texts[text] = number
            segment.data += fmt.text_records(TextKind.INTERNED, text, number=number)
            segment.ends.append(len(segment.data) // fmt.RECORD_BYTES)
        return number

    def _context(self, segment: Segment, context: Context) -> int:
        number = self._contexts.setdefault(context, len(self._contexts) + 1)
        if context not in segment.contexts:
            segment.contexts.add(context)
            data = encode(ContextRecord(number, context), lambda text: self._text(segment, text))
            segment.data += data
            segment.ends.append(len(segment.data) // fmt.RECORD_BYTES)
        return number

    def _name(self, segment: Segment, shard: Shard) -> None:
        key = fmt.shard_key(shard)
        if fmt.is_named(key) and key not in segment.names and self._rng.random() < 0.95:
            segment.names.add(key)
            segment.data += fmt.text_records(TextKind.SHARD_NAME, str(shard), key=key)
            segment.ends.append(len(segment.data) // fmt.RECORD_BYTES)


def _spoil(data: bytearray, how: str) -> None:
    """Make nonsense of a record."""
    match how:
        case "code":
            data[1] = 200
        case "kind":
            data[0] = 99
        case "shard":
            data[8] &= 0xFE
        case "text":
            data[20:24] = (0x7FFFFFF0).to_bytes(4, "little")
            data[23] |= 0x80


@dataclass
class Round:
    """What one round folds: the same records as blocks and as pieces."""

    now: int
    blocks: list[Block]
    pieces: list[Piece]


@dataclass
class History:
    """A list of rounds."""

    rounds: list[Round]
    journals: dict[str, JournalScribe]


class Teller:
    """Makes up what happens, and says it in journals."""

    def __init__(self, seed: int, steps: int = 60) -> None:
        self.rng = random.Random(seed)
        self.now = BEGIN
        self.scribes = [JournalScribe(f"{place:032x}", self._worker(place), self.rng) for place in range(5)]
        self.steps = steps
        self.incarnations: dict[str, list[int]] = {}
        self.counter = 0

    def tell(self) -> Iterator[tuple[JournalScribe, Said]]:
        """Yield what is said, and where, several jobs at a time."""
        lives = [self._life() for _ in range(4)]
        for _ in range(self.steps):
            self.now += self.rng.choice([S // 1000, S // 10, S, 3 * S])
            for _ in range(self.rng.randint(1, 12)):
                place = self.rng.randrange(len(lives))
                said = next(lives[place], None)
                if said is None:
                    lives[place] = self._life()
                else:
                    yield from self._sometimes(said)
            if self.rng.random() < 0.4:
                yield self._noise()

    def _sometimes(self, said: tuple[JournalScribe, Said]) -> Iterator[tuple[JournalScribe, Said]]:
        """Say most things once, some never, some twice, some wrongly."""
        chance = self.rng.random()
        if chance < 0.03:
            return
        yield said
        if chance > 0.96:
            yield (self.rng.choice(self.scribes), said[1])
        if chance > 0.98 and isinstance(said[1].record, AttemptRecord | CommitRecord | DispatchRecord | DetailRecord):
            yield said[0], replace(said[1], record=self._absurd(said[1].record))
        elif chance > 0.97 and isinstance(said[1].record, AttemptRecord | CommitRecord):
            yield said[0], replace(said[1], spoil=self.rng.choice(["code", "kind", "shard", "text"]))

    def _absurd(self, record: Record) -> Record:
        """Return a record that no sane writer writes."""
        if isinstance(record, AttemptRecord):
            return self.rng.choice([
                replace(record, start_ns=self.rng.choice([0, 10**15, self.now + 10**16])),
                replace(record, duration_ns=10**18), replace(record, shuffle_read=2**60),
                replace(record, cpu_ns=2**62), replace(record, rows=2**63 + 5),
            ])  # fmt: skip
        field_name = "start_ns" if isinstance(record, DetailRecord) else "time_ns"
        return replace(record, **{field_name: 5})  # type: ignore[arg-type]

    def _worker(self, place: int) -> WorkerInfo:
        return WorkerInfo(
            worker=f"w{place}", node=f"n{place % 2}", zone="z", node_type=self.rng.choice(["", "big", "small"]),
            spot=self.rng.random() < 0.5, dedicated=place % 2 == 0, lanes=self.rng.randint(1, 4), pid=place,
        )  # fmt: skip

    def _life(self) -> Iterator[tuple[JournalScribe, Said]]:
        """Yield what is said of one run, in an order that may be disturbed."""
        said = list(self._plain_life())
        if self.rng.random() < 0.5:
            for _ in range(len(said) // 5):
                place = self.rng.randrange(len(said))
                other = min(len(said) - 1, max(0, place + self.rng.randint(-4, 4)))
                said[place], said[other] = said[other], said[place]
        yield from said

    def _plain_life(self) -> Iterator[tuple[JournalScribe, Said]]:
        """Yield what is said of one run, as it should be."""
        rng = self.rng
        job_id = f"job-{rng.randrange(4)}"
        used = self.incarnations.setdefault(job_id, [])
        again = used and rng.random() < 0.15
        incarnation = rng.choice(used) if again else self.now + rng.randrange(1000)
        used.append(incarnation)
        kind = rng.choice(["coordinated", "coordinated", "started", "implicit", "unnamed"])
        job = Context(
            pipeline=f"p{rng.randrange(2)}", job_id=job_id, incarnation=0 if kind == "unnamed" else incarnation,
            tenant=rng.choice(["default", "acme"]), owner=f"o{rng.randrange(2)}", tier=rng.choice(list(Tier)),
            run_kind=rng.choice(list(RunKind)), deadline_ns=rng.choice([0, self.now + 900 * S]),
        )  # fmt: skip
        coordinator = rng.choice(self.scribes)
        starts = kind in ("coordinated", "started") or (kind == "unnamed" and rng.random() < 0.3)
        coordinated = kind == "coordinated"
        if starts:
            yield self._start(coordinator, job, coordinated)
        for stage in rng.sample(["map", "join", "reduce"], rng.randint(1, 3)):
            yield from self._stage(coordinator, replace(job, stage=stage, task=f"t.{stage}"), coordinated)
            if starts and rng.random() < 0.2:
                yield coordinator, Said(JobRecord(JobEvent.ORPHANED, 0, self._time()), job)
                if rng.random() < 0.7:
                    job = replace(job, incarnation=self.now + rng.randrange(1, 1000))
                    self.now += rng.choice([0, 0, 100 * S])
                    coordinator = rng.choice(self.scribes)
                    yield self._start(coordinator, job, coordinated)
        yield from self._finish(coordinator, job)

    def _start(self, coordinator: JournalScribe, job: Context, coordinated: bool) -> tuple[JournalScribe, Said]:
        time = self._time()
        record = JobRecord(
            JobEvent.START, 0, time, coordinated=coordinated, submit_ns=self.rng.choice([0, time - 5 * S, time - S]),
            lease_ns=self.rng.choice([0, 2 * S, 600 * S]), deadline_ns=self.rng.choice([0, time + 100 * S]),
        )  # fmt: skip
        return coordinator, Said(record, job)

    def _finish(self, coordinator: JournalScribe, job: Context) -> Iterator[tuple[JournalScribe, Said]]:
        """End a run, usually, and judge it; some of it still comes after that."""
        rng = self.rng
        if rng.random() < 0.85:
            outcome = rng.choice([*[JobOutcome.SUCCESS] * 3, *JobOutcome])
            yield coordinator, Said(JobRecord(JobEvent.END, 0, self._time(), outcome, rng.choice(list(Reason))), job)
        if rng.random() < 0.3:
            yield coordinator, Said(JobRecord(JobEvent.CHECKPOINT, 0, self._time()), job)
        if rng.random() < 0.8:
            yield self.scribes[0], Said(JobRecord(JobEvent.SETTLED, 0, self._time()), job)
            if rng.random() < 0.5:
                yield from self._stage(coordinator, replace(job, stage="map"), True)

    def _stage(
        self, coordinator: JournalScribe, stage: Context, coordinated: bool
    ) -> Iterator[tuple[JournalScribe, Said]]:
        """Yield a stage: planned, handed out, tried, decided."""
        rng = self.rng
        shards: list[Shard] = [
            rng.choice([place, f"part-{place:03d}", 10**12 + place, f"{place}" + "-long" * 30])
            for place in range(rng.randint(1, 8))
        ]
        planned = rng.random() < 0.8
        if planned:
            yield (
                coordinator,
                Said(PlanRecord(0, self._time(), len(shards) + rng.randint(0, 2), rng.random() < 0.5), stage),
            )
        if rng.random() < 0.3:
            parent = rng.choice(shards)
            record = PlanRecord(0, self._time(), 2, parent_key=fmt.shard_key(parent))
            yield coordinator, Said(record, stage, (parent,))
            shards += [f"{parent}/0", f"{parent}/1"]
        for shard in shards:
            yield from self._shard(coordinator, stage, shard, coordinated)

    def _shard(
        self, coordinator: JournalScribe, stage: Context, shard: Shard, coordinated: bool
    ) -> Iterator[tuple[JournalScribe, Said]]:
        """Yield the tries at a shard, and its decision."""
        rng = self.rng
        key = fmt.shard_key(shard)
        worker = coordinator
        for attempt in range(rng.choice([1, 1, 1, 2, 3])):
            number = attempt if rng.random() < 0.98 else rng.choice([30, 31, 32, 40, 70_000])
            worker = rng.choice(self.scribes)
            if coordinated or rng.random() < 0.1:
                record = DispatchRecord(
                    0, key, min(number, 0xFFFF), self._time(), attempt > 1, worker.info.worker, rng.choice([0, 500])
                )
                yield coordinator, Said(record, stage, (shard,))
            if rng.random() < 0.93:
                yield from self._attempt(worker, stage, shard, number, last=rng.random() < 0.7)
        if coordinated and rng.random() < 0.9:
            outcome = rng.choice([*[ShardOutcome.COMMITTED] * 6, ShardOutcome.FAILED, ShardOutcome.LOST])
            commit = CommitRecord(
                0, key, 0, outcome, self._time(), rng.choice([0, 0, self.now - 2 * S]), rng.choice(list(Reason)),
                rng.choice(["", "ValueError"]), rng.randrange(1000), rng.randrange(10),
            )  # fmt: skip
            yield coordinator, Said(commit, stage, (shard,))

    def _attempt(
        self, worker: JournalScribe, stage: Context, shard: Shard, number: int, *, last: bool
    ) -> Iterator[tuple[JournalScribe, Said]]:
        """Yield an attempt's details and then the attempt."""
        rng = self.rng
        outcome = AttemptOutcome.SUCCESS if last else rng.choice(list(AttemptOutcome))
        ok = outcome is AttemptOutcome.SUCCESS
        errors = rng.choice([0, 0, 0, rng.randint(1, 9)])
        record = AttemptRecord(
            0, fmt.shard_key(shard), number, outcome, self._time() - 5 * S,
            int(rng.lognormvariate(0, 2) * S) if rng.random() < 0.98 else 0,
            Reason.NONE if ok else rng.choice(list(Reason)), "" if ok else rng.choice(["", "KeyError", "OSError"]),
            speculative=rng.random() < 0.1, cpu_ns=rng.choice([None, 10**8, rng.randrange(10**9)]),
            delay_ns=rng.choice([None, 0, rng.randrange(10**10)]), rows=rng.randrange(1000),
            shuffle_read=rng.randrange(10**6), shuffle_written=rng.choice([0, 10**9 + 7]), network_errors=errors,
            storage_throttled=rng.choice([0, 0, 3]), peak_rss=rng.randrange(10**9), slot=rng.choice([3, 0xFFFF]),
        )  # fmt: skip
        if rng.random() < 0.1:
            stage = replace(stage, incarnation=0)
        if rng.random() < 0.3:
            parts = tuple(
                (name, rng.randrange(10**9))
                for name in rng.sample(["read", "write", "sort", "other"], rng.randint(1, 4))
            )
            yield worker, Said(self._detail(record, DetailKind.ACTIVITY, parts), stage, (shard,))
        if errors and rng.random() < 0.6:
            kinds = tuple(
                (name, rng.randint(1, 4)) for name in rng.sample(["reset", "timeout", "dns"], rng.randint(1, 2))
            )
            yield worker, Said(self._detail(record, DetailKind.NETWORK_ERROR, kinds), stage, (shard,))
        if record.storage_throttled and rng.random() < 0.6:
            yield worker, Said(self._detail(record, DetailKind.STORAGE_THROTTLED, (("s3", 2),)), stage, (shard,))
        yield worker, Said(record, stage, (shard,))

    @staticmethod
    def _detail(record: AttemptRecord, what: DetailKind, amounts: tuple[tuple[str, int], ...]) -> DetailRecord:
        return DetailRecord(what, 0, record.shard_key, min(record.attempt, 0xFFFF), record.start_ns, amounts)

    def _noise(self) -> tuple[JournalScribe, Said]:
        """Return what is said beside jobs, or what makes no sense."""
        rng = self.rng
        scribe = rng.choice(self.scribes)
        self.counter += 1
        context = Context(f"p{rng.randrange(2)}", f"job-{rng.randrange(4)}", 0, tenant="default", owner="beside")
        record: Record
        match rng.randrange(8):
            case 0 | 1 | 2:
                record = SampleRecord(
                    0, self._time(), 10**9, 10**6, rng.randrange(10**9), rng.choice([0, 10**9]),
                    self.counter * S // 10 + rng.randrange(S), 0, rng.randrange(S),
                )  # fmt: skip
                return scribe, Said(record, context if rng.random() < 0.9 else None)
            case 3:
                return scribe, Said(HeartbeatRecord(0, self._time(), 1, 1, 5, 5, 1, 1, 0), context)
            case 4:
                some = {rng.choice(list(AttemptOutcome)): rng.randrange(20)}
                return scribe, Said(DropRecord(self._time(), some, rng.randrange(9)))
            case 5:
                reason = rng.choice([Reason.NONE, Reason.NODE_LOST, Reason.OOM_KILLED])
                info = WorkerInfo(rng.choice(["", "w1", "w2", "far"]))
                return scribe, Said(WorkerRecord(rng.choice(list(WorkerEvent)[1:]), self._time(), info, reason))
            case 6:
                return scribe, Said(AttemptRecord(9999, 1, 0, AttemptOutcome.SUCCESS, self._time(), 1))
            case _:
                return scribe, Said(JobRecord(rng.choice(list(JobEvent)[1:]), 8888, self._time()))

    def _time(self) -> int:
        """Return a time about now: clocks differ."""
        return self.now + self.rng.randint(-S, S)


def history(seed: int, *, steps: int = 60) -> History:
    """Return a random history."""
    teller = Teller(seed, steps)
    rng = random.Random(seed + 1)
    cursors = {scribe.name: (0, 0) for scribe in teller.scribes}
    rounds: list[Round] = []
    texts: dict[tuple[str, int], dict[int, str]] = {}
    for scribe, said in teller.tell():
        scribe.say(said)
        if rng.random() < 0.04:
            rounds.append(_round(teller, rng, cursors, texts, everything=False))
    for scribe in teller.scribes[1:3]:
        scribe.say(Said(EndRecord(teller.now, sealed=False)))
    rounds.append(_round(teller, rng, cursors, texts, everything=True))
    return History(rounds, {scribe.name: scribe for scribe in teller.scribes})


def _round(
    teller: Teller,
    rng: random.Random,
    cursors: dict[str, tuple[int, int]],
    texts: dict[tuple[str, int], dict[int, str]],
    *,
    everything: bool,
) -> Round:
    """Return a round of what some journals have not yet said."""
    made = Round(teller.now + 2 * S, [], [])
    for scribe in rng.sample(teller.scribes, len(teller.scribes)):
        if not everything and rng.random() < 0.3:
            continue
        index, first = cursors[scribe.name]
        for segment in scribe.segments[index:]:
            whole = everything or segment.index + 1 < len(scribe.segments) or rng.random() < 0.5
            fits = [end for end in segment.ends if end > first] or [first]
            last = fits[-1] if whole else rng.choice(fits)
            if last > first:
                data = bytes(segment.data[first * fmt.RECORD_BYTES : last * fmt.RECORD_BYTES])
                block = Block(scribe.name, segment.index, first, words_of(data))
                known = texts.setdefault((scribe.name, segment.index), {0: ""})
                made.blocks.append(block)
                made.pieces.append(Piece(scribe.name, first == 0, decode_rows(block.words.tolist(), known)))
            cursors[scribe.name] = (segment.index, last)
            if not whole:
                break
            first = 0
    return made


def decode_rows(rows: Sequence[Sequence[int]], texts: dict[int, str]) -> list[Record | Undecodable]:
    """Return the records of some rows one by one; one that cannot be decoded is its reason."""
    records: list[Record | Undecodable] = []
    place = 0
    while place < len(rows):
        row, place = rows[place], place + 1
        if row[0] & 0xFF == Kind.TEXT:
            more = rows[place : place + (row[0] >> 16 & 0xFF)]
            place += len(more)
            text = fmt.text_of([*row[3:], *(word for each in more for word in each[1:])], row[1] - 1)
            named = row[0] >> 8 & 0xFF == TextKind.SHARD_NAME
            record = TextRecord(text, row[0] >> 32, row[2] >> 1 if named else 0)
            if not named:
                texts.setdefault(record.text_id, text)
            records.append(record)
            continue
        try:
            records.append(decode(list(row), lambda number: _known(texts, number)))
        except JournalError:
            records.append("undecodable")
    return records


def _known(texts: dict[int, str], number: int) -> str:
    if number not in texts:
        raise JournalError("an unknown text")
    return texts[number]


def recut(blocks: Sequence[Block], rng: random.Random, ends: dict[tuple[str, int], set[int]]) -> list[Block]:
    """Return the same records in other blocks: cut finer, in the same order."""
    pieces: list[Block] = []
    for block in blocks:
        fits = [end for end in ends[block.journal, block.segment] if block.first < end < block.first + len(block.words)]
        cuts = sorted(rng.sample(fits, min(len(fits), rng.randint(0, 4))))
        edges = [block.first, *cuts, block.first + len(block.words)]
        for start, end in pairwise(edges):
            words = block.words[start - block.first : end - block.first]
            pieces.append(Block(block.journal, block.segment, start, np.ascontiguousarray(words)))
    return pieces
