"""What the tests of the instrumentation share: a journal of their own, and an environment without the machine's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mppobs.instrument.identity import PLATFORMS
from mppobs.testing import Captured, capture


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away whatever the platform that runs the tests says of its own jobs."""
    for name in list(os.environ):
        if name.startswith("MPPOBS_") or any(name == platform.shard for platform in PLATFORMS):
            monkeypatch.delenv(name)


@pytest.fixture
def captured(clean_environment: None) -> Iterator[Captured]:
    """Record into a directory of the test's own."""
    with capture() as found:
        yield found
