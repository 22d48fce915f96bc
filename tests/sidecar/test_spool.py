"""A spool keeps what agents ship, byte for byte, whatever is sent, and lets nobody write elsewhere."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.clock import ManualClock
from mppobs.errors import ConfigError
from mppobs.journal import format as fmt
from mppobs.sidecar import spool as spooling
from mppobs.sidecar.follow import Follower
from mppobs.sidecar.groupsync import GroupSync
from mppobs.sidecar.removal import ALL_SEGMENTS, mark_done
from mppobs.sidecar.schemas import JournalState, LiveReport, SlotState
from mppobs.sidecar.spool import Spool, SpoolLimits, SpoolReply
from tests.journal.journals import START, HandWritten, attempts, end, opening

CLOCK = ManualClock(START)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Return an empty spool."""
    return Spool(tmp_path / "spool", SpoolLimits(), clock=CLOCK)


@pytest.fixture
def sent(tmp_path: Path) -> HandWritten:
    """Return a journal to be shipped, on the agent's side."""
    (tmp_path / "agent").mkdir()
    made = HandWritten(tmp_path / "agent")
    made.write_segment(0, [*opening(), *attempts(20)])
    return made


def received(tmp_path: Path, journal: HandWritten, segment: int = 0) -> bytes:
    """Return the bytes that a spool has of a segment."""
    return (tmp_path / "spool" / fmt.segment_name(journal.journal, segment)).read_bytes()


def test_bytes_are_appended_at_their_offset(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """Each request goes on where the last ended; the answer says how far it is."""
    data = sent.path(0).read_bytes()[: 20 * 96]

    assert spool.append(sent.journal, 0, 0, data[:960]) == SpoolReply("ok", 960)
    assert spool.append(sent.journal, 0, 960, data[960:]) == SpoolReply("ok", len(data))

    assert received(tmp_path, sent) == data
    assert spool.figures.received_bytes == len(data)


def test_repeats_change_nothing(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """Bytes that are there are not written again, even if they differ; what goes beyond them is taken."""
    data = sent.path(0).read_bytes()[: 20 * 96]
    spool.append(sent.journal, 0, 0, data[:960])

    assert spool.append(sent.journal, 0, 0, data[:960]) == SpoolReply("ok", 960)
    assert spool.append(sent.journal, 0, 96, b"\xff" * 96) == SpoolReply("ok", 960)
    assert spool.append(sent.journal, 0, 480, data[480:]) == SpoolReply("ok", len(data))
    assert spool.append(sent.journal, 0, 0, b"") == SpoolReply("ok", len(data))

    assert received(tmp_path, sent) == data


def test_a_gap_is_a_conflict(spool: Spool, sent: HandWritten) -> None:
    """Bytes that do not begin where the segment ends are not taken; the answer says where that is."""
    data = sent.path(0).read_bytes()
    assert spool.append(sent.journal, 0, 96, data[96:192]) == SpoolReply("conflict", 0)
    spool.append(sent.journal, 0, 0, data[:960])

    assert spool.append(sent.journal, 0, 1056, data[1056:1152]) == SpoolReply("conflict", 960)
    assert spool.append(sent.journal, 3, 960, data[:96]) == SpoolReply("conflict", 0)


def test_the_sealer_s_places_may_follow_at_once(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """What lies between a dead owner's last record and the sealer's is not sent; a follower reads both."""
    data = sent.path(0).read_bytes()
    count = len(sent.encode([*opening(), *attempts(20)])) + 96
    spool.append(sent.journal, 0, 0, data[:count])
    seal = sent.encode([end(sealed=True)])

    assert spool.append(sent.journal, 0, 617 * 96, seal) == SpoolReply("conflict", count)
    assert spool.append(sent.journal, 0, 619 * 96, seal) == SpoolReply("ok", 620 * 96)
    assert spool.append(sent.journal, 0, count, seal) == SpoolReply("ok", 620 * 96)

    blocks = Follower([tmp_path / "spool"], {}, clock=CLOCK, seal=True).poll(1 << 30)
    assert [block.first for block in blocks] == [0, 618]
    assert b"".join(block.words.tobytes() for block in blocks) == data[96:count] + seal


NAMES = ["", "a" * 31, "A" * 32, "g" * 32, "../" + "a" * 29, "a" * 32 + "\n", "/" + "a" * 31, "é" * 32]


@pytest.mark.parametrize("journal", NAMES)
def test_names_that_are_no_uuid_are_refused(tmp_path: Path, spool: Spool, sent: HandWritten, journal: str) -> None:
    """Nothing is written under a name that was not checked."""
    assert spool.append(journal, 0, 0, sent.path(0).read_bytes()) == SpoolReply("invalid", 0)
    assert os.listdir(tmp_path / "spool") == []


BAD: list[tuple[str, int, int, Callable[[bytes], bytes]]] = [
    ("a negative segment", -1, 0, lambda data: data),
    ("a huge segment", 10**9, 0, lambda data: data),
    ("a negative offset", 0, -8, lambda data: data),
    ("an odd offset", 0, 4, lambda data: data),
    ("an odd length", 0, 0, lambda data: data[:99]),
    ("no header", 0, 0, lambda data: data[96:192]),
    ("part of a header", 0, 0, lambda data: data[:88]),
    ("another segment's header", 1, 0, lambda data: data),
    ("an absurd size", 0, 0, lambda data: data[:40] + (2**50).to_bytes(8, "little") + data[48:]),
]


@pytest.mark.parametrize(("what", "segment", "offset", "change"), BAD, ids=[what for what, *_ in BAD])
def test_what_is_no_segment_is_refused(
    tmp_path: Path,
    spool: Spool,
    sent: HandWritten,
    what: str,
    segment: int,
    offset: int,
    change: Callable[[bytes], bytes],
) -> None:
    """Bytes that cannot be a segment's leave nothing behind."""
    assert spool.append(sent.journal, segment, offset, change(sent.path(0).read_bytes())).status == "invalid"
    assert os.listdir(tmp_path / "spool") == []


def test_a_link_in_the_spool_is_not_followed(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """Even who can make links in the spool does not get it to write elsewhere."""
    target = tmp_path / "target"
    target.write_bytes(sent.path(0).read_bytes()[:960])
    (tmp_path / "spool" / fmt.segment_name(sent.journal, 0)).symlink_to(target)

    with pytest.raises(OSError, match="symbolic"):
        spool.append(sent.journal, 0, 960, bytes(96))
    assert target.stat().st_size == 960


def test_a_segment_ends_where_its_header_says(spool: Spool, sent: HandWritten) -> None:
    """No request makes a segment larger than it says it is."""
    data = sent.path(0).read_bytes()
    assert spool.append(sent.journal, 0, 0, data + bytes(8)).status == "too_large"
    spool.append(sent.journal, 0, 0, data)
    assert spool.append(sent.journal, 0, len(data), bytes(8)) == SpoolReply("too_large", len(data))


def test_a_full_spool_says_so_and_takes_more_when_there_is_room(tmp_path: Path, sent: HandWritten) -> None:
    """Beyond its limit a spool takes nothing, keeps what it has, and looks again later."""
    clock = ManualClock(START)
    spool = Spool(tmp_path / "spool", SpoolLimits(spool_bytes=100_000), clock=clock)
    other = HandWritten(sent.directory)
    other.write_segment(0, [*opening(), *attempts(20)])
    data = sent.path(0).read_bytes()
    assert spool.append(sent.journal, 0, 0, data).status == "ok"

    assert spool.append(other.journal, 0, 0, other.path(0).read_bytes()) == SpoolReply("full", 0)
    (tmp_path / "spool" / fmt.segment_name(sent.journal, 0)).unlink()
    clock.advance(seconds=3)

    assert spool.append(other.journal, 0, 0, other.path(0).read_bytes()).status == "ok"


def test_a_full_disk_is_a_full_spool(
    tmp_path: Path, spool: Spool, sent: HandWritten, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk has no room, what was there before stays as it was, and nothing was acknowledged."""
    data = sent.path(0).read_bytes()
    spool.append(sent.journal, 0, 0, data[:960])

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spooling.os, "fdatasync", full)  # type: ignore[attr-defined]
        assert spool.append(sent.journal, 0, 960, data[960:1920]) == SpoolReply("full", 960)
        assert spool.append("a" * 32, 0, 0, HandWritten(sent.directory, "a" * 32).header(0, 65536)).status == "full"

    assert received(tmp_path, sent) == data[:960]
    assert len(os.listdir(tmp_path / "spool")) == 1
    assert spool.append(sent.journal, 0, 960, data[960:]).status == "ok"


def test_journals_are_limited(tmp_path: Path, sent: HandWritten) -> None:
    """One journal too many is refused; those that are there go on."""
    spool = Spool(tmp_path / "spool", SpoolLimits(journals=1), clock=CLOCK)
    data = sent.path(0).read_bytes()
    spool.append(sent.journal, 0, 0, data[:960])
    other = HandWritten(sent.directory).header(0, 65536)

    assert spool.append(HandWritten(sent.directory).journal, 0, 0, other).status == "invalid"
    more = HandWritten(sent.directory)
    assert spool.append(more.journal, 0, 0, more.header(0, 65536)) == SpoolReply("refused", 0)
    assert spool.append(sent.journal, 0, 960, data[960:]).status == "ok"


def test_what_is_done_with_is_acknowledged(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """Segments that were folded and deleted are not taken a second time, and the agent learns that they arrived."""
    data = sent.path(0).read_bytes()
    mark_done(tmp_path / "spool", sent.journal, 1)

    assert spool.append(sent.journal, 0, 960, data[960:1920]) == SpoolReply("ok", 1920)
    assert os.listdir(tmp_path / "spool") == [f"{sent.journal}.done"]
    sent.write_segment(1, opening())
    assert spool.append(sent.journal, 1, 0, sent.path(1).read_bytes()).status == "ok"

    mark_done(tmp_path / "spool", sent.journal, ALL_SEGMENTS)
    assert spool.append(sent.journal, 7, 96, data[96:192]) == SpoolReply("ok", 192)


def test_a_restart_goes_on(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """A new spool over the same directory knows what is there, less half a word that a crash left."""
    data = sent.path(0).read_bytes()
    spool.append(sent.journal, 0, 0, data[:960])
    with (tmp_path / "spool" / fmt.segment_name(sent.journal, 0)).open("ab") as file:
        file.write(data[960:963])

    again = Spool(tmp_path / "spool", SpoolLimits(), clock=CLOCK)

    assert again.append(sent.journal, 0, 0, b"") == SpoolReply("ok", 960)
    assert again.append(sent.journal, 0, 960, data[960:1920]) == SpoolReply("ok", 1920)
    assert received(tmp_path, sent) == data[:1920]


def test_leftovers_are_swept(tmp_path: Path, spool: Spool) -> None:
    """Old marks and files that never came into view are removed; young ones stay."""
    directory = tmp_path / "spool"
    names = [f".{'a' * 32}.000000.segment", f"{'a' * 32}.done"]
    for name in names:
        (directory / name).write_text("1\n")
    os.utime(directory / names[0], (0, START / 1e9 - 4000))
    os.utime(directory / names[1], (0, START / 1e9 - 4000))
    Spool(directory, SpoolLimits(), clock=CLOCK)
    assert os.listdir(directory) == [names[1]]

    os.utime(directory / names[1], (0, START / 1e9 - 8 * 86400))
    Spool(directory, SpoolLimits(), clock=CLOCK)
    assert os.listdir(directory) == []


def test_a_spool_that_cannot_be(tmp_path: Path) -> None:
    """A directory that cannot be made is an error of configuration that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        Spool(tmp_path / "file" / "spool", SpoolLimits())


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 100), min_size=1, max_size=12), order=st.randoms(use_true_random=False))
def test_any_order_of_requests_ends_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], order: object
) -> None:
    """Dropped, doubled and reordered requests never leave anything but a prefix, and retrying completes it."""
    directory = tmp_path_factory.mktemp("spool")
    made = HandWritten(tmp_path_factory.mktemp("agent"))
    data = made.header(0, 65536) + made.write_segment(0, [*opening(), *attempts(90)])
    edges = sorted({0, len(data), *(cut * 96 for cut in cuts if cut * 96 < len(data))})
    pieces = [(first, data[first:last]) for first, last in pairwise(edges)]
    spool = Spool(directory, SpoolLimits(), clock=CLOCK)
    requests = pieces * 2
    order.shuffle(requests)  # type: ignore[attr-defined]
    size = 0
    for offset, piece in requests:
        reply = spool.append(made.journal, 0, offset, piece)
        assert reply.size >= size
        size = reply.size
        if size:
            assert (directory / fmt.segment_name(made.journal, 0)).read_bytes() == data[:size]
    while size < len(data):
        size = spool.append(made.journal, 0, size, data[size : size + 960]).size
    assert (directory / fmt.segment_name(made.journal, 0)).read_bytes() == data


def test_many_threads_at_once(tmp_path: Path, spool: Spool, sent: HandWritten) -> None:
    """Agents that ship side by side, some of them the same bytes, get what they sent into the files."""
    journals = [HandWritten(sent.directory) for _ in range(8)]
    for each in journals:
        each.write_segment(0, [*opening(), *attempts(50)])
    errors: list[BaseException] = []

    def ship(journal: HandWritten) -> None:
        try:
            data = journal.path(0).read_bytes()
            for offset in range(0, len(data), 4096):
                assert spool.append(journal.journal, 0, offset, data[offset : offset + 4096]).status == "ok"
        except BaseException as error:  # a thread's failure is the test's
            errors.append(error)

    threads = [threading.Thread(target=ship, args=(each,)) for each in journals * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    for each in journals:
        assert received(tmp_path, each) == each.path(0).read_bytes()
    assert spool.figures.received_bytes == 8 * 65536


def test_names_are_synced_for_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one sync runs the others gather, and one more serves them all."""
    sync = GroupSync(tmp_path)
    gate, count = threading.Event(), 0

    def slow(file: int) -> None:
        nonlocal count
        count += 1
        gate.wait(5)

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=sync.sync) for _ in range(10)]
    for thread in threads:
        thread.start()
    while sync._asked < 10:
        gate.wait(0.001)
    gate.set()
    for thread in threads:
        thread.join()

    assert 1 <= count <= 2


def test_a_failed_sync_is_nobody_s_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk reaches who asked, and the next who asks tries again."""
    sync = GroupSync(tmp_path)

    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                sync.sync()
    sync.sync()


# What runs, as agents say.


def report(agent: str, journal: str, *, pid: int = 1, slots: int = 0) -> LiveReport:
    """Return a report of one journal."""
    states = [SlotState(index=i, context_id=1, start_ns=START, shard_key=i) for i in range(slots)]
    return LiveReport(agent=agent, journals=[JournalState(journal=journal, alive=True, pid=pid, slots=states)])


def test_the_newest_report_of_an_agent_counts(tmp_path: Path) -> None:
    """A report replaces the one before; of two agents that name a journal the later one counts."""
    clock = ManualClock(START)
    spool = Spool(tmp_path, SpoolLimits(), clock=clock)
    spool.report(report("a", "a" * 32, slots=2))
    clock.advance(seconds=1)
    spool.report(report("b", "b" * 32))
    assert [len(each.slots) for each in spool.running()] == [2, 0]
    assert spool.running()[0].slots[1].shard_key == 1

    spool.report(report("a", "b" * 32, pid=9))
    assert [(each.journal, each.pid) for each in spool.running()] == [("b" * 32, 9)]

    clock.advance(seconds=11)
    assert spool.running() == []


def test_reports_are_limited(tmp_path: Path) -> None:
    """More journals than the spool takes are not kept in memory either."""
    spool = Spool(tmp_path, SpoolLimits(journals=5), clock=CLOCK)
    for number in range(10):
        spool.report(report(f"agent{number}", f"{number:032x}"))

    assert len(spool.running()) < 5
    assert spool.live.refused > 0
