"""
The agent: journals of this machine to the aggregator, byte for byte, until it says that they are durable.

What is sent is remembered nowhere but in the journals themselves. The aggregator's answers say how far it is, so a
request that was lost, repeated or answered twice, a new agent and an aggregator that lost its disk all come to the
same: the agent goes on from where the aggregator is. A segment is deleted when all of it is acknowledged.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx

from mppobs.clock import Clock, SystemClock
from mppobs.errors import JournalError
from mppobs.journal import format as fmt
from mppobs.sidecar.blocks import Block, Cursor, read_header
from mppobs.sidecar.follow import Follower, LiveJournal

_log = logging.getLogger(__name__)

BODY_BYTES: Final = 2 * 2**20
"""Size of a request: large enough that its cost does not matter, small enough to be repeated."""
MIN_BODY_BYTES: Final = 64 * fmt.RECORD_BYTES
LIVE_SECONDS: Final = 1.0
MAX_LIVE_JOURNALS: Final = 10_000
FIRST_BACKOFF_SECONDS: Final = 0.25
MAX_BACKOFF_SECONDS: Final = 30.0
ASIDE_NS: Final = 60_000_000_000
"""How long a journal is left alone whose bytes the aggregator will not have."""
LAST_STEPS: Final = 200
"""Steps that a stop takes at the most to send what is left."""


@dataclass(slots=True)
class ShipFigures:
    """What an agent counts of itself."""

    shipped_bytes: int = 0
    """Bytes that were acknowledged. A new agent's first request repeats some, which count again."""
    requests: int = 0
    errors: int = 0
    """Requests that failed or were refused."""
    refused_blocks: int = 0
    """Blocks that the aggregator will not have as they are."""


class Backoff:
    """
    How long to wait after each failure in a row: longer each time, and never for as long as the others.

    >>> backoff = Backoff(random.Random(1))
    >>> waits = [backoff.next() for _ in range(20)]
    >>> all(0 < wait <= MAX_BACKOFF_SECONDS for wait in waits), waits[0] < FIRST_BACKOFF_SECONDS
    (True, True)
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._failures = 0

    def next(self) -> float:
        """Return how many seconds to wait after one more failure."""
        most = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(self._failures, 16))
        self._failures += 1
        return float(most * self._chance.uniform(0.5, 1.0))

    def reset(self) -> None:
        """Forget the failures: something worked."""
        self._failures = 0


class Shipper:
    """
    Ships the journals of some directories, seals those whose owner died, and reports what runs.

    For one thread: call `step` again and again, or `run`. It holds no more than one poll's bytes, and what cannot
    be sent stays in the journals. Bring your own `client` to test or to tune; it is closed with the shipper.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        url: str,
        token: str | None,
        *,
        clock: Clock | None = None,
        name: str | None = None,
        client: httpx.Client | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.figures = ShipFigures()
        self.live: list[LiveJournal] = []
        """What ran at the last report."""
        self._clock = clock or SystemClock()
        self.follower = Follower(directories, {}, clock=self._clock, seal=True)
        self._directories = tuple(directories)
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        # Nothing from the environment: a proxy or a .netrc must not get to see the token.
        self._client = client or httpx.Client(timeout=httpx.Timeout(30.0, connect=5.0), trust_env=False)
        self._backoff = Backoff(chance or random.Random())
        self._pending: deque[Block] = deque()
        self._body_bytes = BODY_BYTES
        self._reported_ns = self._clock.monotonic_ns() - round(LIVE_SECONDS * 1e9)
        self._not_before_ns = 0

    def run(self, stop: threading.Event, poll_seconds: float = 0.25) -> None:
        """Ship until told to stop, then send what is left as far as the aggregator takes it, and close."""
        while not stop.is_set():
            stop.wait(poll_seconds if not self.step() else 0.0)
        for _ in range(LAST_STEPS):
            if not self.step():
                break
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def step(self) -> bool:
        """
        Look after the journals, send what is new, delete what is safe. Returns whether there is more to do at once.

        While the aggregator cannot be reached, the dead are sealed all the same.
        """
        if self._clock.monotonic_ns() < self._not_before_ns:
            self.follower.poll(0)
            return False
        if not self._pending:
            self._pending.extend(self.follower.poll(self._body_bytes))
        sent = bool(self._pending)
        try:
            while self._pending:
                self._ship(self._pending[0])
            self._report()
        except _RetryLater as error:
            self._fail(error)
            return False
        self._backoff.reset()
        if sent:
            self.follower.release(self.follower.cursors)
        return sent

    def _ship(self, block: Block) -> None:
        """Send the first of the pending blocks, and take it from them when its fate is known."""
        offset, data = _offset(block), block.words.tobytes()
        if block.first == 0:
            offset, data = 0, self._header(block) + data
        status, acknowledged = self._post(block, offset, data)
        if status in (HTTPStatus.OK, HTTPStatus.CONFLICT):
            self._acknowledged(block, offset, offset + len(data), acknowledged)
            return
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and self._body_bytes > MIN_BODY_BYTES:
            self._body_bytes = max(MIN_BODY_BYTES, self._body_bytes // 2)
            self._go_on_from(block, block.first)
            return
        self._set_aside(block, f"answered {status}")

    def _acknowledged(self, block: Block, start: int, end: int, size: int) -> None:
        """Go on from where the aggregator is: past the block, or elsewhere."""
        self.figures.shipped_bytes += max(0, min(size, end) - start)
        if size == end:
            self._pending.popleft()
            return
        if size < fmt.RECORD_BYTES and block.first > 0:
            # It does not know the segment, whose first records are not there to be sent: its header is.
            status, size = self._post(block, 0, self._header(block))
            if status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
                raise _RetryLater(f"answered {status} to the header of a segment")
        record = max(0, size // fmt.RECORD_BYTES - 1)
        if record == block.first:
            self._set_aside(block, f"has {size} bytes and takes none at {start}")
            return
        self._go_on_from(block, record)

    def _set_aside(self, block: Block, why: str) -> None:
        """Leave a journal alone for a while whose bytes the aggregator will not have; the others go on."""
        self.figures.refused_blocks += 1
        _log.error("journal %s, segment %d: %s %s", block.journal, block.segment, self._url, why)
        self._go_on_from(block, block.first)
        self.follower.pause(block.journal, ASIDE_NS)

    def _go_on_from(self, block: Block, record: int) -> None:
        """Read a journal again from a record of the block's segment; what is pending of it comes again then."""
        self._pending = deque(each for each in self._pending if each.journal != block.journal)
        self.follower.rewind(block.journal, Cursor(block.segment, record))

    def _header(self, block: Block) -> bytes:
        try:
            return read_header(self._directories, block.journal, block.segment)
        except (JournalError, OSError) as error:
            raise _RetryLater(f"a segment's header cannot be read: {error}") from error

    def _post(self, block: Block, offset: int, data: bytes) -> tuple[int, int]:
        """Send bytes; return the answer's status and how many bytes of the segment are durable."""
        path = f"/api/v1/journals/{block.journal}/segments/{block.segment}?offset={offset}"
        response = self._request(path, data, "application/octet-stream")
        if response.status_code in (HTTPStatus.OK, HTTPStatus.CONFLICT):
            try:
                return response.status_code, int(response.json()["acknowledged"])
            except (ValueError, KeyError, TypeError) as error:
                raise _RetryLater("the answer is not an aggregator's") from error
        if response.status_code in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
            self.figures.errors += 1
            return response.status_code, 0
        raise _RetryLater(f"answered {response.status_code}")

    def _report(self) -> None:
        """Say what runs, once a second."""
        now = self._clock.monotonic_ns()
        if now - self._reported_ns < LIVE_SECONDS * 1e9:
            return
        self.live = self.follower.live()
        report = {"agent": self._name, "journals": [asdict(each) for each in self.live[:MAX_LIVE_JOURNALS]]}
        response = self._request("/api/v1/live", json.dumps(report).encode(), "application/json")
        if response.status_code == HTTPStatus.OK:
            self._reported_ns = now
        elif response.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise _RetryLater(f"answered {response.status_code} to a report")
        else:
            self.figures.errors += 1
            self._reported_ns = now  # this one will not be taken; the next may
            _log.warning("the aggregator does not take the report of what runs")

    def _request(self, path: str, body: bytes, content_type: str) -> httpx.Response:
        self.figures.requests += 1
        headers = {**self._headers, "Content-Type": content_type}
        try:
            return self._client.post(self._url + path, headers=headers, content=body)
        except httpx.HTTPError as error:
            raise _RetryLater(f"cannot be reached: {error or type(error).__name__}") from error

    def _fail(self, error: Exception) -> None:
        """Wait before the next request."""
        self.figures.errors += 1
        wait = self._backoff.next()
        self._not_before_ns = self._clock.monotonic_ns() + round(wait * 1e9)
        _log.warning("%s: %s; again in %.1f s", self._url, error, wait)


class _RetryLater(Exception):
    """Raised inside when the aggregator did not do what was asked, and may do it later."""


def _offset(block: Block) -> int:
    return (block.first + 1) * fmt.RECORD_BYTES
