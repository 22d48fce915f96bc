"""
A k-mer scan: short reads find their place in a reference, by the words that both have.

`index` cuts the reference into words of 16 bases and `seeds` the reads; `match` joins them, so every pair of a word's
place in a read and its place in the reference votes for where the read may begin; `align` compares each read with its
best candidates, base by base.

**In production** this is the join with a key that nobody expected: a genome has stretches of the same few bases over
and over, and one such word meets itself thousands of times thousands. One shard of `match` then holds the job, whatever
the number of workers; the fix is in the data (words that are too frequent say nothing: `mask-above`), not in retries.

**Watch** the tail and the idle fraction of `match` (M3), its largest input among the stragglers with cause `skew`, and
shuffle bytes, which grow with the square of a word's frequency (M4).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import mppobs
from mppobs.executor.plan import Plan, ShardPlan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import Setup, Work, require
from mppobs.workloads.made import make_once

Bases = npt.NDArray[np.uint8]
Whole = npt.NDArray[np.int64]

K: Final = 16
"""Bases of a word, two bits each. A word of 16 comes by chance once in four billion places."""
_READ: Final = 100
"""Bases of a read."""
_STRIDE: Final = 10
"""Bases from one word that is taken of a read to the next."""
_BASES: Final = 2_000_000
"""Of the reference, at scale 1."""
_READS: Final = 100_000
_TRACT: Final = 40
"""Length of a stretch of one base over and over."""
_TRACTS: Final = 60
"""At scale 1, and with the root of the scale: the work that they make grows with their square, as the rest does."""
_ERROR_RATE: Final = 0.01
_CANDIDATES: Final = 8
"""Places that a read is compared with, those with the most votes."""
_SEED: Final = 4
_WEIGHTS: Final = 4 ** np.arange(K - 1, -1, -1, dtype=np.int64)


def prepare(setup: Setup) -> None:
    """Make the reference and the reads, the same for the same scale."""
    _genome(setup)


def plan(setup: Setup, shards: int) -> Plan:
    """Return the scan as a plan: so many shards of the reference and of the reads, half as many of what joins them."""
    directory, partitions = _genome(setup), max(1, shards // 2)
    bases, reads = setup.count(_BASES, least=5_000), setup.count(_READS, least=200)
    home = {"directory": str(directory)}

    def scan(name: str, task: str, size: int) -> Stage:
        parts = _ranges(size, shards)
        return Stage(
            name=name,
            task=task,
            shards=parts,
            partition_by=("word",),
            partitions=partitions,
            arguments=home,
            splittable=True,
            split=path_of(split_range),
        )

    match = Stage(
        name="match",
        task=path_of(match_words),
        reads=("seeds", "index"),
        partition_by=("read",),
        partitions=partitions,
        combiner=path_of(count_votes),
        splittable=True,  # parts share the seeds and read all of the index, so that what is masked stays the same
        arguments={"mask_above": setup.number("mask-above")},
    )
    align = Stage(name="align", task=path_of(align_reads), reads=("match",), arguments=home)
    stages = (
        scan("index", path_of(index_reference), bases - K + 1), scan("seeds", path_of(seed_reads), reads), match, align,
    )  # fmt: skip
    return Plan(pipeline="alignment", owner="genomics", deadline=120.0, stages=stages)


def index_reference(task: TaskInput) -> pa.Table:
    """Return the words of a stretch of the reference and where they are."""
    first, last = task.arguments["first"], task.arguments["last"]
    reference = _load(task, "reference")[first : last + K - 1]
    with mppobs.current().activity("cut"):
        words = words_of(reference)
    mppobs.current().add(rows=len(words))
    return pa.table({"word": words, "position": np.arange(first, last)})


def seed_reads(task: TaskInput) -> pa.Table:
    """Return words of some reads, with the read that each is of and where in it."""
    first, last = task.arguments["first"], task.arguments["last"]
    reads = _load(task, "reads")[first:last]
    offsets = np.arange(0, _READ - K + 1, _STRIDE)
    with mppobs.current().activity("cut"):
        windows = np.lib.stride_tricks.sliding_window_view(reads, K, axis=1)[:, offsets].astype(np.int64)
        words = windows @ _WEIGHTS
    mppobs.current().add(rows=len(reads))
    read = np.repeat(np.arange(first, last), len(offsets))
    return pa.table({"word": words.reshape(-1), "read": read, "offset": np.tile(offsets, len(reads))})


def match_words(task: TaskInput) -> pa.Table:
    """Return for each word that read and reference share where the read would begin; the combiner counts these."""
    index, seeds = task.read("index"), task.read("seeds")
    with mppobs.current().activity("join"):
        if limit := task.arguments["mask_above"]:
            index = _masked(index, limit)
        joined = seeds.join(index, "word", "word", join_type="inner", use_threads=False)
        start = np.asarray(joined["position"]) - np.asarray(joined["offset"])
        return pa.table({"read": joined["read"], "start": start, "votes": np.ones(joined.num_rows, np.int64)})


def count_votes(table: pa.Table) -> pa.Table:
    """Add up votes by read and start: the combiner of `match`."""
    summed = table.group_by(["read", "start"], use_threads=False).aggregate([("votes", "sum")])
    return pa.table({"read": summed["read"], "start": summed["start"], "votes": summed["votes_sum"]})


def align_reads(task: TaskInput) -> pa.Table:
    """Return for each of this partition's reads the best of its candidates, and in how many bases it differs."""
    order = [("read", "ascending"), ("votes", "descending"), ("start", "ascending")]
    votes = count_votes(task.read("match")).sort_by(order)
    reference, reads = _load(task, "reference"), _load(task, "reads")
    with mppobs.current().activity("align"):
        read, start = (np.asarray(votes[name], np.int64) for name in ("read", "start"))
        inside = (start >= 0) & (start <= len(reference) - _READ)
        read, start = read[inside], start[inside]
        begins = np.flatnonzero(np.diff(read, prepend=-1))
        rank = np.arange(len(read)) - np.repeat(begins, np.diff(begins, append=len(read)))
        read, start = read[rank < _CANDIDATES], start[rank < _CANDIDATES]
        mismatches = _mismatches(reference, reads, read, start)
        best = np.lexsort((start, mismatches, read))
        best = best[np.flatnonzero(np.diff(read[best], prepend=-1))]
    mppobs.current().add(rows=len(best))
    return pa.table({"read": read[best], "start": start[best], "mismatches": mismatches[best]})


def words_of(bases: Bases) -> Whole:
    """
    Return the word that begins at each base, as a number.

    >>> words_of(np.array([0] * 15 + [1, 2], np.uint8)).tolist()
    [1, 6]
    """
    windows = np.lib.stride_tricks.sliding_window_view(bases, K).astype(np.int64)
    return np.asarray(windows @ _WEIGHTS, np.int64)


def split_range(arguments: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Cut a shard's range into several that follow each other."""
    first, last = arguments["first"], arguments["last"]
    ends = np.linspace(first, last, min(parts, last - first) + 1).astype(int).tolist()
    return [{**arguments, "first": begin, "last": end} for begin, end in itertools.pairwise(ends)]


def check(setup: Setup, answer: Any) -> None:
    """Compare with a dictionary of words and a loop over reads."""
    directory = _genome(setup)
    reference, reads = np.load(directory / "reference.npy"), np.load(directory / "reads.npy")
    expected = _expected(reference, reads, setup.number("mask-above"))
    ordered = answer.sort_by("read").to_pydict()
    found = list(zip(ordered["read"], ordered["start"], ordered["mismatches"], strict=True))
    require(len(found) == len(expected), f"{len(found)} reads were placed, expected {len(expected)}")
    for got, wanted in zip(found, expected, strict=True):
        require(got == wanted, f"read, start and mismatches are {got}, expected {wanted}")


def tell(setup: Setup, answer: Any) -> list[str]:
    """Return how many reads found their place."""
    reads = setup.count(_READS, least=200)
    exact = int((np.asarray(answer["mismatches"]) == 0).sum())
    return [f"{answer.num_rows} of {reads} reads placed, {exact} without a mismatch"]


WORK: Final = Work(prepare, plan, check, tell)


def _masked(index: pa.Table, limit: int) -> pa.Table:
    """Return the index without words that are there more than `limit` times."""
    words = np.asarray(index["word"])
    _, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
    return index.filter(pa.array(counts[inverse] <= limit))


def _mismatches(reference: Bases, reads: Bases, read: Whole, start: Whole) -> Whole:
    windows = np.lib.stride_tricks.sliding_window_view(reference, _READ)
    return np.asarray((windows[start] != reads[read]).sum(axis=1), np.int64)


def _expected(reference: Bases, reads: Bases, mask_above: int) -> list[tuple[int, int, int]]:
    """Return read, start and mismatches of every read that has a candidate, the plain way."""
    places: dict[bytes, list[int]] = defaultdict(list)
    text = reference.tobytes()
    for position in range(len(text) - K + 1):
        places[text[position : position + K]].append(position)
    found = []
    for number, read in enumerate(reads):
        votes: dict[int, int] = defaultdict(int)
        for offset in range(0, _READ - K + 1, _STRIDE):
            hits = places.get(read[offset : offset + K].tobytes(), [])
            for position in hits if not mask_above or len(hits) <= mask_above else []:
                votes[position - offset] += 1
        starts = sorted(
            (start for start in votes if 0 <= start <= len(text) - _READ), key=lambda start: (-votes[start], start)
        )[:_CANDIDATES]
        scored = [(int((reference[start : start + _READ] != read).sum()), start) for start in starts]
        if scored:
            mismatches, start = min(scored)
            found.append((number, start, mismatches))
    return found


def _ranges(size: int, shards: int) -> tuple[ShardPlan, ...]:
    """Return shards that share the numbers below `size` in order."""
    ranges = split_range({"first": 0, "last": size}, shards)
    return tuple(ShardPlan(number, each, each["last"] - each["first"]) for number, each in enumerate(ranges))


def _load(task: TaskInput, name: str) -> Bases:
    """Map an array that all shards share; only what is used is read."""
    with mppobs.current().activity("read"):
        array: Bases = np.load(Path(task.arguments["directory"], f"{name}.npy"), mmap_mode="r", allow_pickle=False)
    return array


def _genome(setup: Setup) -> Path:
    """Return the directory of reference and reads, making it where it is not there."""
    bases, reads = setup.count(_BASES, least=5_000), setup.count(_READS, least=200)
    tracts = max(6, round(_TRACTS * setup.scale**0.5))
    return make_once(
        setup.directory / f"genome-{bases}-{reads}-{tracts}",
        lambda directory: _generate(directory, bases, reads, tracts),
    )


def _generate(directory: Path, bases: int, reads: int, tracts: int) -> None:
    """Write a random reference with stretches of one base, and reads of it with a few wrong bases."""
    chance = np.random.default_rng(_SEED)
    reference = chance.integers(0, 4, bases, np.uint8)
    for start in chance.integers(0, bases - _TRACT, tracts):
        reference[start : start + _TRACT] = 0
    starts = chance.integers(0, bases - _READ, reads)
    found = np.lib.stride_tricks.sliding_window_view(reference, _READ)[starts].copy()
    wrong = chance.random(found.shape) < _ERROR_RATE
    found[wrong] = (found[wrong] + chance.integers(1, 4, int(wrong.sum()), np.uint8)) % 4
    np.save(directory / "reference.npy", reference)
    np.save(directory / "reads.npy", found)
