"""`mppobs run --budgets`: a job waits while its tenant's budget is spent, as a sidecar says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mppobs.cli import run_job
from mppobs.cli.main import run
from mppobs.executor.budgets import BudgetWatch
from mppobs.instrument.recorder import RECORDER

SMALL = ("tpch-q1", "--scale", "0.01", "--shards", "4", "--workers", "2")


class Sidecar(HTTPServer):
    """Says of the tenant `media` what is left, one answer after the other, the last one for ever."""

    def __init__(self, *left: float) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.left = list(left)
        self.tokens: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    server: Sidecar

    def do_GET(self) -> None:
        left = self.server.left
        self.server.tokens.append(self.headers["Authorization"])
        budget = left.pop(0) if len(left) > 1 else left[0]
        slo = {"slo": "team/cost", "tenant": "media", "period": {"budget_left_ratio": budget}}
        body = json.dumps({"slos": [slo], "next": None, "problem": ""}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at budgets often, and put the recorder's settings back, which the command changes."""
    monkeypatch.setattr(run_job, "BudgetWatch", partial(BudgetWatch, every=0.2))
    before = RECORDER.reset(None)
    yield
    RECORDER.reset(before)


@pytest.mark.parametrize(("tenant", "waits"), [("media", True), ("ads", False)])
def test_a_job_waits_for_budget(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tenant: str, waits: bool
) -> None:
    """It says why, goes on when there is some again, and is none the worse; another tenant's never waits."""
    monkeypatch.setenv("MPPOBS_SIDECAR_READ_TOKEN", "secret")
    with Sidecar(-0.5, -0.5, -0.5, 0.4) as sidecar:
        threading.Thread(target=sidecar.serve_forever, daemon=True).start()
        status = run(["run", *SMALL, "--data", str(tmp_path), "--tenant", tenant, "--budgets", sidecar.url])
        sidecar.shutdown()
    words = capsys.readouterr().out

    assert status == 0
    assert words.rstrip().endswith("answer    right")
    assert ("budget    of tenant media is spent: the job waits" in words) is waits
    assert ("budget    of tenant media is there again" in words) is waits
    assert set(sidecar.tokens) == {"Bearer secret"}


def test_a_job_does_not_wait_for_a_sidecar_that_is_silent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing is known, which is said once, and the job runs."""
    status = run(["run", *SMALL, "--data", str(tmp_path), "--tenant", "media", "--budgets", "http://127.0.0.1:1"])
    words = capsys.readouterr().out

    assert status == 0
    assert words.count("budget    no ") == 1
    assert words.rstrip().endswith("answer    right")
