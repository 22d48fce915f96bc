"""An agent brings every journal to the aggregator whole, over whatever network, and deletes only what is safe there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.clock import ManualClock
from mppobs.journal import format as fmt
from mppobs.journal.codec import decode_all
from mppobs.journal.writer import JournalWriter
from mppobs.model import AttemptOutcome, AttemptRecord, Context, EndRecord, WorkerInfo
from mppobs.sidecar import ship as shipping
from mppobs.sidecar.follow import Block, Follower
from mppobs.sidecar.schemas import LiveReport
from mppobs.sidecar.ship import MAX_BACKOFF_SECONDS, Backoff, Shipper
from mppobs.sidecar.spool import Spool, SpoolLimits
from tests.journal.journals import START, HandWritten, attempts, end, opening, slot

PLENTY = 1 << 30
STATUS = {"ok": 200, "conflict": 409, "invalid": 422, "too_large": 413, "full": 507, "refused": 507}


class Aggregator:
    """The aggregator's routes over a real spool, without a network: what a transport of httpx calls."""

    def __init__(self, directory: Path, limits: SpoolLimits | None = None, max_body: int = 8 << 20) -> None:
        self.directory = directory
        self.clock = ManualClock(START)
        self.limits = limits or SpoolLimits()
        self.max_body = max_body
        self.requests: list[httpx.Request] = []
        self.start()

    def start(self) -> None:
        """Start, or start again on the same disk."""
        self.spool = Spool(self.directory, self.limits, clock=self.clock)
        self.follower = Follower([self.directory], {}, clock=self.clock, seal=True)
        self.blocks: list[Block] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        self.requests.append(request)
        if request.headers.get("authorization") != "Bearer secret":
            return httpx.Response(401)
        if request.url.path == "/api/v1/live":
            self.spool.report(LiveReport.model_validate_json(request.content))
            return httpx.Response(200, json={})
        *_, journal, _, segment = request.url.path.split("/")
        if len(request.content) > self.max_body:
            return httpx.Response(413)
        reply = self.spool.append(journal, int(segment), int(request.url.params["offset"]), request.content)
        return httpx.Response(STATUS[reply.status], json={"acknowledged": reply.size})

    def fold(self) -> None:
        """Read what is new and delete what is read, as an engine does."""
        self.blocks += self.follower.poll(PLENTY)
        self.follower.release(self.follower.cursors)

    def words(self, journal: str) -> list[list[int]]:
        """Return the records that arrived of a journal."""
        self.blocks += self.follower.poll(PLENTY)
        return [row for block in self.blocks if block.journal == journal for row in block.words.tolist()]


Network = Callable[[httpx.Request], httpx.Response]


def agent(directory: Path, network: Network, token: str = "secret", clock: ManualClock | None = None) -> Shipper:
    """Return an agent whose requests a function answers."""
    client = httpx.Client(transport=httpx.MockTransport(network))
    clock = clock or ManualClock(START)
    return Shipper(
        [directory], "http://aggregator/", token, clock=clock, client=client, name="a", chance=random.Random(1)
    )


def words(data: bytes) -> list[list[int]]:
    """Return the records of some bytes as words."""
    return [list(row) for row in fmt.RECORD.iter_unpack(data)]


@pytest.fixture
def aggregator(tmp_path: Path) -> Aggregator:
    """Return an aggregator with an empty spool."""
    return Aggregator(tmp_path / "spool")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Return the directory of an agent's workers."""
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


def settle(shipper: Shipper) -> None:
    """Step until there is nothing more to do at once."""
    for _ in range(1000):
        if not shipper.step():
            return
    raise AssertionError("an agent that never comes to rest")


def test_journals_arrive_whole_and_are_deleted(aggregator: Aggregator, node: Path) -> None:
    """Several segments, END included, arrive as they are; then nothing is left of them here."""
    journal = HandWritten(node)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(300)], full=True)
    data += journal.write_segment(1, [*opening(), *attempts(30), end()])
    shipper = agent(node, aggregator)

    settle(shipper)

    assert aggregator.words(journal.journal) == words(data)
    assert aggregator.follower.cursors[journal.journal].ended
    assert list(node.iterdir()) == []
    assert shipper.figures.shipped_bytes == len(data) + 2 * 96


def test_a_live_journal_is_shipped_as_it_grows(aggregator: Aggregator, node: Path) -> None:
    """What is appended is sent from where the last request ended; a live owner's newest segment stays."""
    journal = HandWritten(node)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(3)])
    shipper = agent(node, aggregator)
    with journal.owned():
        settle(shipper)
        more = journal.encode(attempts(2, first=3))
        journal.append(0, len(data) // 96, more)
        settle(shipper)

        assert aggregator.words(journal.journal) == words(data + more)
        assert [request.url.params["offset"] for request in aggregator.requests if "offset" in request.url.params] == [
            "0",
            str(96 + len(data)),
        ]
        assert journal.path(0).exists()


def test_a_death_is_sealed_and_shipped(aggregator: Aggregator, node: Path) -> None:
    """What a killed worker had begun comes to the aggregator, and the hole before it is not sent."""
    journal = HandWritten(node)
    journal.write_head({5: slot(START, shard_key=9)})
    data = journal.write_segment(0, [*opening(), *attempts(3)])
    settle(agent(node, aggregator))

    found = aggregator.words(journal.journal)

    assert found[: len(data) // 96] == words(data)
    assert [row[0] & 0xFF for row in found[len(data) // 96 :]] == [fmt.Kind.ATTEMPT, fmt.Kind.END]
    assert sum(len(request.content) for request in aggregator.requests) < 4000
    assert list(node.iterdir()) == []


def test_a_worker_killed_before_its_first_record(aggregator: Aggregator, node: Path) -> None:
    """A segment whose owner wrote nothing arrives by its header and its sealer's records."""
    journal = HandWritten(node)
    journal.write_head({5: slot(START, shard_key=9)})
    journal.write_segment(0, b"")
    settle(agent(node, aggregator))

    assert [row[0] & 0xFF for row in aggregator.words(journal.journal)] == [fmt.Kind.ATTEMPT, fmt.Kind.END]
    assert list(node.iterdir()) == []


def test_a_new_agent_goes_on(aggregator: Aggregator, node: Path) -> None:
    """An agent that knows nothing learns from the answers where the aggregator is."""
    journal = HandWritten(node)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(300)])
    with journal.owned():
        settle(agent(node, aggregator))
        more = journal.encode(attempts(200, first=300))
        journal.append(0, len(data) // 96, more)
        settle(agent(node, aggregator))

        assert aggregator.words(journal.journal) == words(data + more)


def test_an_aggregator_that_lost_its_disk(tmp_path: Path, node: Path) -> None:
    """Where the aggregator begins anew, an agent sends again what it still has."""
    journal = HandWritten(node)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(30)])
    one, two = Aggregator(tmp_path / "one"), Aggregator(tmp_path / "two")
    current = one
    shipper = agent(node, lambda request: current(request))
    with journal.owned():
        settle(shipper)
        current = two
        more = journal.encode(attempts(2, first=300))
        journal.append(0, len(data) // 96, more)
        settle(shipper)

        assert two.words(journal.journal) == words(data + more)


def test_what_was_folded_is_not_taken_twice(aggregator: Aggregator, node: Path) -> None:
    """An agent whose last acknowledgement was lost sends END again, is told that it arrived, and deletes."""
    journal = HandWritten(node)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(30), end()])
    lost = False

    def network(request: httpx.Request) -> httpx.Response:
        nonlocal lost
        response = aggregator(request)
        if not lost:
            lost = True
            aggregator.fold()
            raise httpx.ReadTimeout("lost", request=request)
        return response

    clock = ManualClock(START)
    shipper = agent(node, network, clock=clock)
    assert not shipper.step()
    clock.advance(seconds=60)
    settle(shipper)
    aggregator.fold()

    assert list(node.iterdir()) == []
    assert aggregator.words(journal.journal) == words(data)
    assert [path.suffix for path in aggregator.directory.iterdir()] == [".done"]


def test_a_dead_network_is_waited_for(aggregator: Aggregator, node: Path) -> None:
    """While nobody answers nothing is deleted, waits grow, the dead are sealed, and then all of it arrives."""
    journal = HandWritten(node)
    journal.write_head({5: slot(START)})
    data = journal.write_segment(0, [*opening(), *attempts(30)])
    up = False

    def network(request: httpx.Request) -> httpx.Response:
        if not up:
            raise httpx.ConnectError("refused", request=request)
        return aggregator(request)

    clock = ManualClock(START)
    shipper = agent(node, network, clock=clock)
    for _ in range(100):
        assert not shipper.step()
        clock.advance(seconds=1)
    assert 5 < shipper.figures.errors < 20
    assert shipper.follower.figures.sealed_attempts == 1
    later = HandWritten(node)
    later.write_head({5: slot(START)})
    later.write_segment(0, opening())
    shipper.step()
    assert shipper.follower.figures.sealed_attempts == 2
    up = True
    clock.advance(seconds=60)
    settle(shipper)

    assert aggregator.words(journal.journal)[: len(data) // 96] == words(data)
    assert aggregator.follower.cursors[later.journal].ended
    assert list(node.iterdir()) == []


@pytest.mark.parametrize("status", [302, 401, 404, 408, 429, 500, 503, 507])
def test_refusals_are_counted_and_tried_again(aggregator: Aggregator, node: Path, status: int) -> None:
    """Whatever else is answered, the journal stays and the agent comes back."""
    journal = HandWritten(node)
    journal.write_head()
    journal.write_segment(0, [*opening(), end()])
    answers = [httpx.Response(status), httpx.Response(200, text="hello"), httpx.Response(200, json=[1])]
    clock = ManualClock(START)
    shipper = agent(node, lambda request: answers.pop(0) if answers else aggregator(request), clock=clock)
    for _ in range(3):
        assert not shipper.step()
        assert journal.path(0).exists()
        clock.advance(seconds=MAX_BACKOFF_SECONDS)
    assert shipper.figures.errors == 3

    settle(shipper)
    assert list(node.iterdir()) == []


def test_a_smaller_limit_is_found(tmp_path: Path, node: Path) -> None:
    """An aggregator that takes small bodies only gets small bodies."""
    aggregator = Aggregator(tmp_path / "spool", max_body=20_000)
    journal = HandWritten(node)
    journal.write_head()
    data = journal.write_segment(0, [*opening(), *attempts(500), end()])
    settle(agent(node, aggregator))

    assert aggregator.words(journal.journal) == words(data)


def test_one_bad_journal_does_not_stop_the_others(aggregator: Aggregator, node: Path) -> None:
    """A journal that the aggregator will not have is set aside; it is neither deleted nor sent again at once."""
    bad, good = HandWritten(node, "0" * 32), HandWritten(node, "1" * 32)
    for journal in (bad, good):
        journal.write_head()
        journal.write_segment(0, [*opening(), end()])

    def network(request: httpx.Request) -> httpx.Response:
        return httpx.Response(422) if bad.journal in request.url.path else aggregator(request)

    shipper = agent(node, network)
    settle(shipper)

    assert aggregator.follower.poll(PLENTY)
    assert bad.path(0).exists()
    assert not good.path(0).exists()
    assert shipper.figures.refused_blocks == 1


def test_what_runs_is_reported_once_a_second(aggregator: Aggregator, node: Path) -> None:
    """Slots of live workers come to the aggregator as they are here."""
    journal = HandWritten(node)
    journal.write_head({3: slot(START, shard_key=2**61 + 5, attempt=1, progress=0.5, progressed_ns=START)})
    journal.write_segment(0, opening())
    clock = ManualClock(START)
    shipper = agent(node, aggregator, clock=clock)
    with journal.owned():
        settle(shipper)
        settle(shipper)
        assert aggregator.spool.running() == shipper.follower.live()
        assert aggregator.spool.running()[0].slots[0].shard_key == 2**61 + 5
        assert len([request for request in aggregator.requests if request.url.path == "/api/v1/live"]) == 1
        clock.advance(seconds=1)
        settle(shipper)
    reports = [request for request in aggregator.requests if request.url.path == "/api/v1/live"]
    assert [json.loads(request.content)["agent"] for request in reports] == ["a", "a"]


def test_a_refused_report_does_not_stop_shipping(aggregator: Aggregator, node: Path) -> None:
    """An aggregator that does not understand a report still gets the journals."""
    journal = HandWritten(node)
    journal.write_head()
    journal.write_segment(0, [*opening(), end()])

    def network(request: httpx.Request) -> httpx.Response:
        return httpx.Response(422) if request.url.path == "/api/v1/live" else aggregator(request)

    shipper = agent(node, network)
    settle(shipper)

    assert list(node.iterdir()) == []
    assert shipper.figures.errors == 1


def test_the_token_goes_nowhere_else(aggregator: Aggregator, node: Path) -> None:
    """Without the right token nothing is taken, and redirects are not followed with it."""
    HandWritten(node).write_segment(0, [*opening(), end()])
    shipper = agent(node, aggregator, token="wrong")
    assert not shipper.step()
    assert list(aggregator.directory.iterdir()) == []

    visited: list[str] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        visited.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere/"})

    agent(node, redirect).step()
    assert visited == ["aggregator"]


def test_backoff_grows_and_is_never_in_step() -> None:
    """Waits double up to a limit, each differently from another agent's, and begin anew after a success."""
    one, two = Backoff(random.Random(1)), Backoff(random.Random(2))
    waits = [one.next() for _ in range(30)]
    assert waits != [two.next() for _ in range(30)]
    assert all(MAX_BACKOFF_SECONDS / 2 <= wait <= MAX_BACKOFF_SECONDS for wait in waits[10:])
    one.reset()
    assert one.next() <= shipping.FIRST_BACKOFF_SECONDS


class Chaos:
    """A network that loses requests and answers, doubles them, and delivers them late."""

    def __init__(self, aggregator: Aggregator, chance: random.Random) -> None:
        self.aggregator = aggregator
        self.chance = chance
        self.late: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Deliver a request, or do not."""
        fate = self.chance.random()
        if self.late and self.chance.random() < 0.3:
            self.aggregator(self.late.pop(self.chance.randrange(len(self.late))))
        if fate < 0.15:
            raise httpx.ConnectError("lost", request=request)
        if fate < 0.3:
            self.late.append(request)
            raise httpx.ReadTimeout("delayed", request=request)
        response = self.aggregator(request)
        if fate < 0.45:
            raise httpx.ReadTimeout("the answer was lost", request=request)
        if fate < 0.6:
            return self.aggregator(request)
        if fate < 0.65:
            self.aggregator.start_over()  # type: ignore[attr-defined]
        return response


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_over_any_network_every_record_arrives_once(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Lost, doubled and late requests, agents and aggregators that restart: each record is folded exactly once."""
    chance = random.Random(seed)
    node = tmp_path_factory.mktemp("node")
    aggregator = Aggregator(tmp_path_factory.mktemp("spool"))
    seen: list[Block] = []

    def start_over() -> None:
        """Restart the aggregator, whose store keeps what it folded and how far."""
        cursors = dict(aggregator.follower.cursors)
        aggregator.spool = Spool(aggregator.directory, aggregator.limits, clock=aggregator.clock)
        aggregator.follower = Follower([aggregator.directory], cursors, clock=aggregator.clock, seal=True)

    aggregator.start_over = start_over  # type: ignore[attr-defined]
    journals = [HandWritten(node) for _ in range(3)]
    sent: dict[str, list[list[int]]] = {}
    for journal in journals:
        journal.write_head()
        data = journal.write_segment(0, [*opening(), *attempts(chance.randrange(400))], full=True)
        data += journal.write_segment(1, [*opening(), *attempts(chance.randrange(600)), end()])
        sent[journal.journal] = words(data)
    clock = ManualClock(START)
    network = Chaos(aggregator, chance)
    shipper = agent(node, network, clock=clock)
    shipper._body_bytes = 10_000
    for step in range(3000):
        if chance.random() < 0.03:
            shipper = agent(node, network, clock=clock)
            shipper._body_bytes = 10_000
        shipper.step()
        if chance.random() < 0.3:
            seen += aggregator.follower.poll(PLENTY)
            aggregator.follower.release(aggregator.follower.cursors)
        clock.advance(seconds=chance.random() * 20)
        if not list(node.iterdir()) and step > 100:
            break
    for request in network.late:
        aggregator(request)
    seen += aggregator.follower.poll(PLENTY)

    assert list(node.iterdir()) == []
    for journal in journals:
        found = [row for block in seen if block.journal == journal.journal for row in block.words.tolist()]
        assert found == sent[journal.journal]


WORKER = """
import sys, time
from pathlib import Path
from mppobs.journal.writer import JournalWriter
from mppobs.model import *
writer = JournalWriter(Path(sys.argv[1]), WorkerInfo("w1"))
context = writer.context_id(Context("nightly", "nightly-1", stage="map"))
for number in range(10_000_000):
    place = writer.begin(context, number, start_ns=time.time_ns())
    writer.append(AttemptRecord(context, number, 0, AttemptOutcome.SUCCESS, time.time_ns(), 1, slot=63))
    writer.end(place)
    if number % 64 == 0:
        print(number, flush=True)
"""


def test_a_killed_worker_behind_an_agent(aggregator: Aggregator, node: Path) -> None:
    """SIGKILL while its journal is being shipped: the aggregator has all that was finished, each once, and END."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(node)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    stop = threading.Event()
    client = httpx.Client(transport=httpx.MockTransport(aggregator))
    shipper = Shipper([node], "http://aggregator", "secret", client=client)
    thread = threading.Thread(target=shipper.run, args=(stop, 0.01))
    thread.start()
    said = [int(process.stdout.readline()) for _ in range(60)][-1]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while os.listdir(node) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join()

    assert os.listdir(node) == []
    (journal,) = {
        block.journal for block in aggregator.follower.poll(PLENTY) if aggregator.blocks.append(block) is None
    }
    found = list(decode_all(aggregator.words(journal)))
    finished = [each for each in found if isinstance(each, AttemptRecord) and each.outcome is AttemptOutcome.SUCCESS]
    assert [each.shard_key for each in finished] == list(range(len(finished)))
    assert len(finished) > said
    assert isinstance(found[-1], EndRecord)


def test_a_stop_sends_what_is_left(aggregator: Aggregator, node: Path) -> None:
    """An agent that is told to stop ships what there is before it goes."""
    writer = JournalWriter(node, WorkerInfo("w1"))
    context = writer.context_id(Context("nightly", "nightly-1"))
    for number in range(1000):
        writer.append(AttemptRecord(context, number, 0, AttemptOutcome.SUCCESS, START, 1))
    writer.close()
    stop = threading.Event()
    stop.set()

    agent(node, aggregator).run(stop)

    assert os.listdir(node) == []
