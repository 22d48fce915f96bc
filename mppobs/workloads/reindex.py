"""
A reindex: logs into an inverted index, which says for each term in which documents it is.

`sample` looks at a few lines for terms that are nearly everywhere; `tokenise` cuts lines into terms and cuts hot ones
into slices by document; `merge` gathers the documents of each term and writes them to a store that takes only so
many writes a second on each prefix; `publish` reads back what was written and counts it.

**In production** two things go wrong. One term is in a third of all documents, and its reducer holds the job. And all
writes begin with the same prefix, which the store throttles: writers try again, together, and the retries are what it
throttles next. The fixes are here as parameters: slices of hot terms, and writes that are gathered into large objects
and fanned out over prefixes.

**Watch** throttled requests by prefix (F3) and the activity `throttled`, attempts that end with reason `storage` (M8),
and the tail of `merge` (M3).
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

import mppobs
from mppobs.executor.plan import Limits, Plan, ShardPlan, Stage, path_of
from mppobs.executor.task import TaskInput
from mppobs.workloads.base import Setup, Work, require, split_paths
from mppobs.workloads.made import make_once, sweep
from mppobs.workloads.store import PrefixStore

_LINES: Final = 400_000
"""At scale 1."""
_FILES: Final = 16
_VOCABULARY: Final = 20_000
_WORDS: Final = 6
"""Of a line, beside hot ones."""
_HOT: Final = ("error", "timeout")
_HOT_SHARE: Final = 0.3
"""Of the lines that have a hot term, for each of them."""
_SAMPLED: Final = 200
"""Lines of a file from which hot terms are told."""
_HOT_ABOVE: Final = 0.1
"""A term counts as hot that is in more of the sampled lines."""
_FAN: Final = 16
"""Prefixes over which large objects are fanned out: as many times the store's limit."""
_SEED: Final = 77
_MASK: Final = (1 << 61) - 1
"""Checksums are taken modulo this, so that they fit 64 bits however they are added up."""
_POSTINGS: Final = pa.schema([
    ("term", pa.string()), ("slice", pa.int32()), ("documents", pa.list_(pa.int64())),
])  # fmt: skip


def prepare(setup: Setup) -> None:
    """Make the logs, the same for the same scale."""
    _logs(setup)


def plan(setup: Setup, shards: int) -> Plan:
    """Return the reindex as a plan: so many shards read logs, half as many merge and write."""
    files = sorted(str(path) for path in _logs(setup).glob("*.log"))
    wanted = min(shards, len(files))
    home = setup.directory / "indexes"
    sweep(home)
    sink = {
        "home": str(home),
        "buffered": setup.flag("buffered"),
        "rate": setup.real("writes-per-second"),
    }
    return Plan(
        pipeline="reindex",
        owner="search",
        deadline=120.0,
        stages=(
            Stage("sample", path_of(find_hot_terms), (ShardPlan(0, {"paths": files}),)),
            Stage(
                name="tokenise",
                task=path_of(tokenise),
                shards=tuple(ShardPlan(number, {"paths": files[number::wanted]}) for number in range(wanted)),
                reads=("sample",),
                partition_by=("term", "slice"),
                partitions=max(1, shards // 2),
                arguments={"slices": setup.number("slices")},
                splittable=True,
                split=path_of(split_paths),
            ),
            Stage(
                name="merge",
                task=path_of(merge_and_write),
                reads=("tokenise",),
                arguments=sink,
                limits=Limits(attempts=8),  # that a busy store says no is nobody's fault
                splittable=True,  # parts of a term's documents are written side by side, and counted together
            ),
            Stage("publish", path_of(publish), reads=("merge",), arguments=sink),
        ),
    )


def find_hot_terms(task: TaskInput) -> pa.Table:
    """Return the terms that are in more than a tenth of the first lines of each file."""
    seen: Counter[str] = Counter()
    lines = 0
    for path in task.arguments["paths"]:
        for number, (_, words) in enumerate(_documents(Path(path))):
            if number == _SAMPLED:
                break
            seen.update(set(words))
            lines += 1
    hot = sorted(term for term, count in seen.items() if count > _HOT_ABOVE * lines)
    return pa.table({"term": pa.array(hot, pa.string())})


def tokenise(task: TaskInput) -> pa.Table:
    """Return the documents of each term in some files; those of hot terms in slices."""
    attempt = mppobs.current()
    hot, slices = set(task.read("sample")["term"].to_pylist()), task.arguments["slices"]
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    lines = 0
    paths = task.arguments["paths"]
    for done, path in enumerate(paths, 1):
        with attempt.activity("tokenise"):
            for document, words in _documents(Path(path)):
                lines += 1
                for term in set(words):
                    found[term, document % slices if term in hot else 0].append(document)
        attempt.progress(done / len(paths))
    attempt.add(rows=lines)
    return _postings(found)


def merge_and_write(task: TaskInput) -> pa.Table:
    """Gather the documents of this partition's terms, write them to the store and return the objects' names."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for table in task.read_parts("tokenise"):
        for row in table.to_pylist():
            found[row["term"], row["slice"]] += row["documents"]
    mppobs.current().add(rows=len(found))
    objects = _objects(task, found)
    store = _store(task)
    for done, (name, keys) in enumerate(objects.items(), 1):
        with mppobs.current().activity("write"):
            # The name follows from the shard alone: an attempt that writes it again replaces it by the same.
            store.put_patiently(name, _encode({key: found[key] for key in keys}))
        mppobs.current().progress(done / len(objects))
    return pa.table({"object": pa.array(list(objects), pa.string())})


def publish(task: TaskInput) -> pa.Table:
    """Read back every object that was written and return each term's documents, as a count and a checksum."""
    store = _store(task)
    totals: dict[str, tuple[int, int]] = {}
    for name in task.read("merge")["object"].to_pylist():
        for term, documents in _decode(store.get(name)):
            count, checksum = totals.get(term, (0, 0))
            totals[term] = count + len(documents), (checksum + _checksum(documents)) & _MASK
    mppobs.current().add(rows=len(totals))
    terms = sorted(totals)
    return pa.table({
        "term": terms,
        "documents": [totals[term][0] for term in terms],
        "checksum": [totals[term][1] for term in terms],
    })  # fmt: skip


def check(setup: Setup, answer: Any) -> None:
    """Compare with one loop over all lines."""
    places: dict[str, list[int]] = defaultdict(list)
    for path in sorted(_logs(setup).glob("*.log")):
        for document, words in _documents(path):
            for term in set(words):
                places[term].append(document)
    found = {row["term"]: row for row in answer.to_pylist()}
    require(found.keys() == places.keys(), f"{len(found)} terms, expected {len(places)}")
    for term, documents in sorted(places.items()):
        row = found[term]
        got, wanted = (row["documents"], row["checksum"]), (len(documents), _checksum(documents))
        require(got == wanted, f"{term!r}: documents and their checksum are {got}, expected {wanted}")


def tell(setup: Setup, answer: Any) -> list[str]:
    """Return how large the index is and how it was written."""
    hottest = answer.sort_by([("documents", "descending")]).slice(0, 1).to_pylist()[0]
    way = f"buffered, over {_FAN} prefixes" if setup.flag("buffered") else "term by term, on one prefix"
    return [f"{answer.num_rows} terms, written {way}; hottest {hottest['term']!r} in {hottest['documents']} documents"]


WORK: Final = Work(prepare, plan, check, tell)


def _objects(task: TaskInput, found: Mapping[tuple[str, int], list[int]]) -> dict[str, list[tuple[str, int]]]:
    """Return the objects to be written, each with the keys that go into it."""
    objects: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for key in sorted(found):
        number = zlib.crc32(f"{key[0]}/{key[1]}".encode())
        if task.arguments["buffered"]:
            objects[f"{number % _FAN:02x}/segment-{task.shard}"].append(key)
        else:
            objects[f"index/{number:08x}-{key[1]}-{task.shard}"].append(key)
    return objects


def _encode(postings: Mapping[tuple[str, int], list[int]]) -> bytes:
    """Return an object: a line for each term, with its documents in order."""
    lines = (f"{term} {' '.join(map(str, sorted(documents)))}\n" for (term, _), documents in postings.items())
    return "".join(lines).encode()


def _decode(data: bytes) -> Iterator[tuple[str, list[int]]]:
    for line in data.decode().splitlines():
        term, *documents = line.split(" ")
        yield term, [int(document) for document in documents]


def _checksum(documents: list[int]) -> int:
    """Return a number that hangs on each of the documents and not on their order."""
    return sum(document * document + document + 1 for document in documents) & _MASK


def _postings(found: Mapping[tuple[str, int], list[int]]) -> pa.Table:
    keys = sorted(found)
    columns = [[key[0] for key in keys], [key[1] for key in keys], [found[key] for key in keys]]
    return pa.table(columns, schema=_POSTINGS)


def _documents(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a file: the document's number and its words."""
    with path.open() as file:
        for line in file:
            number, *words = line.split()
            yield int(number), words


def _store(task: TaskInput) -> PrefixStore:
    """Return where the job's index is written; it stays for a day."""
    return PrefixStore(Path(task.arguments["home"], task.job_id), task.arguments["rate"])


def _logs(setup: Setup) -> Path:
    """Return the directory of the logs, making it where it is not there."""
    lines, words = setup.count(_LINES, least=2_000), setup.count(_VOCABULARY, least=300)
    return make_once(setup.directory / f"logs-{lines}-{words}", lambda directory: _generate(directory, lines, words))


def _generate(directory: Path, lines: int, vocabulary: int) -> None:
    """Write log files whose words are as frequent as words are: the second half as often as the first, and so on."""
    chance = np.random.default_rng(_SEED)
    weights = 1.0 / np.arange(1, vocabulary + 1)
    # Beyond the first fifty, so that only the terms that are made hot are.
    weights[:50] = weights[50]
    for number, documents in enumerate(np.array_split(np.arange(lines), _FILES)):
        words = chance.choice(vocabulary, (len(documents), _WORDS), p=weights / weights.sum())
        hot = chance.random((len(documents), len(_HOT))) < _HOT_SHARE
        with (directory / f"part-{number:02d}.log").open("w") as file:
            for document, row, heat in zip(documents.tolist(), words.tolist(), hot.tolist(), strict=True):
                terms = [f"w{word}" for word in row] + [term for term, there in zip(_HOT, heat, strict=True) if there]
                file.write(f"{document} {' '.join(terms)}\n")
