"""The sidecar as a process: what workers write is judged, shown, kept over a restart, and shipped by agents."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mppobs.journal.format import shard_key
from mppobs.journal.writer import JournalWriter
from mppobs.model import (
    AttemptOutcome,
    AttemptRecord,
    CommitRecord,
    Context,
    DispatchRecord,
    JobEvent,
    JobOutcome,
    JobRecord,
    PlanRecord,
    Shard,
    ShardOutcome,
    WorkerInfo,
)  # fmt: skip

SECOND = 10**9


def write_job(
    directory: Path, job_id: str, shards: list[Shard], *, end: bool = True, pipeline: str = "nightly"
) -> None:
    """Write the journal of a coordinated job whose every shard is retried once and takes 2 s, and close it."""
    writer = JournalWriter(directory, WorkerInfo("w-1", node="node-1"))
    now = time.time_ns()
    start = now - 10 * SECOND
    job = writer.context_id(Context(pipeline, job_id, start, owner="team"))
    stage = writer.context_id(Context(pipeline, job_id, start, "map", owner="team"))
    writer.append(
        JobRecord(JobEvent.START, job, start, submit_ns=start - SECOND, coordinated=True, lease_ns=60 * SECOND)
    )
    writer.append(PlanRecord(stage, start, len(shards), final=True))
    for shard in shards:
        key = writer.name_shard(shard)
        assert key == shard_key(shard)
        for number, outcome in enumerate((AttemptOutcome.FAILURE, AttemptOutcome.SUCCESS)):
            began = start + number * SECOND
            writer.append(DispatchRecord(stage, key, number, began, worker="w-1"))
            writer.append(
                AttemptRecord(stage, key, number, outcome, began, SECOND, error_type="" if number else "Oops")
            )
        writer.append(CommitRecord(stage, key, 1, ShardOutcome.COMMITTED, start + 2 * SECOND, first_start_ns=start))
    if end:
        writer.append(JobRecord(JobEvent.END, job, now, JobOutcome.SUCCESS))
    writer.close()


class Process:
    """A sidecar in a process of its own."""

    def __init__(self, directory: Path, *flags: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port_file = directory / "port"
        self.port_file.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "mppobs.cli.main",
            "sidecar",
            "--port",
            "0",
            "--port-file",
            str(self.port_file),
        ]
        command += ["--state-directory", str(directory / "state"), "--poll-seconds", "0.05", "--settle-seconds", "0.2"]
        self.child = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port_file.read_text().strip()}"

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and return the exit status and what was printed."""
        self.child.send_signal(number)
        output, _ = self.child.communicate(timeout=90)
        return self.child.returncode, output


@contextmanager
def sidecar(directory: Path, *flags: str) -> Iterator[Process]:
    """Run a sidecar until it is ready; afterwards it must end well when told to."""
    process = Process(directory, *flags)
    try:
        eventually(process.port_file.exists)
        yield process
        if process.child.poll() is None:
            status, output = process.stop()
            assert status == 0, output
    finally:
        process.child.kill()
        process.child.communicate()


def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.05)
    return found


def finished(url: str, job_id: str, headers: dict[str, str] | None = None) -> dict[str, Any] | None:
    """Return a job once it has been judged."""
    answer = httpx.get(f"{url}/api/v1/jobs/{job_id}", headers=headers)
    return answer.json() if answer.status_code == 200 and answer.json()["state"] == "finished" else None


def test_what_a_worker_wrote_is_judged_shown_and_kept_over_a_restart(tmp_path: Path) -> None:
    """From a journal to the API, to Prometheus and to the archive; the same figures after a restart."""
    journals = tmp_path / "journals"
    write_job(journals, "night/1", [*range(5), "odd one"])
    shown = []
    for _ in range(2):
        with sidecar(tmp_path, "--directory", str(journals)) as process:
            job = eventually(lambda url=process.url: finished(url, "night/1"))
            shards = httpx.get(f"{process.url}/api/v1/jobs/night/1/shards?limit=4").json()
            rest = httpx.get(f"{process.url}/api/v1/jobs/night/1/shards?cursor={shards['next']}").json()
            slis = httpx.get(f"{process.url}/api/v1/slis?pipeline=nightly").json()["pipelines"][0]["indicators"]
            metrics = httpx.get(f"{process.url}/metrics").text
            shown.append((job, shards, rest, {key: slis[key]["value"] for key in slis}))
            assert httpx.get(f"{process.url}/readyz").json()["ready"]
    assert shown[0] == shown[1]
    assert (job["outcome"], job["shards"]["committed"], job["retries"], job["completeness_ratio"]) == (
        "success",
        6,
        6,
        1,
    )
    assert job["stages"][0]["median_seconds"] == 2
    assert [row["shard"] for row in shards["shards"] + rest["shards"]] == [0, 1, 2, 3, 4, "odd one"]
    assert {(row["attempts"], row["worker"], row["node"]) for row in shards["shards"]} == {(2, "w-1", "node-1")}
    assert (slis["M2"]["value"], slis["M8"]["value"], slis["M12"]["value"]) == (1, 1, 0)
    assert (
        'mpp_shards_total{cluster="default",tenant="default",pipeline="nightly",stage="map",outcome="committed"} 6'
        in metrics
    )


def test_shards_of_a_running_job_come_from_memory(tmp_path: Path) -> None:
    """The same rows before and after the job is judged, as far as they are decided."""
    journals = tmp_path / "journals"
    write_job(journals, "running", [3, 1, 2], end=False)
    with sidecar(tmp_path, "--directory", str(journals)) as process:
        rows = eventually(lambda: httpx.get(f"{process.url}/api/v1/jobs/running/shards").json().get("shards"))
        assert [(row["shard"], row["outcome"], row["duration_seconds"]) for row in rows] == [
            (number, "committed", 2) for number in (1, 2, 3)
        ]
        listed = httpx.get(f"{process.url}/api/v1/jobs?state=running").json()["jobs"]
        assert [(job["job_id"], job["progress_ratio"]) for job in listed] == [("running", 1)]


def test_an_agent_ships_to_an_aggregator_and_shows_only_itself(tmp_path: Path) -> None:
    """Two processes with a token between them; what is durable there is deleted here."""
    journals = tmp_path / "journals"
    write_job(journals, "far-away", list(range(100)))
    (tmp_path / "w").write_text("write-me\n")
    (tmp_path / "r").write_text("read-me\n")
    tokens = ["--write-token-file", str(tmp_path / "w"), "--read-token-file", str(tmp_path / "r")]
    headers = {"Authorization": "Bearer read-me"}
    with sidecar(tmp_path / "there", "--directory", str(tmp_path / "empty"), *tokens) as there:
        ship = ["--forward", there.url, "--forward-token-file", str(tmp_path / "w"), "--directory", str(journals)]
        with sidecar(tmp_path / "here", *ship) as here:
            job = eventually(lambda: finished(there.url, "far-away", headers))
            assert job["shards"]["committed"] == 100
            eventually(lambda: not list(journals.glob("*.segment")))
            metrics = httpx.get(f"{here.url}/metrics").text
            assert httpx.get(f"{here.url}/readyz").json()["checks"][0]["name"] == "aggregator"
            assert httpx.get(f"{here.url}/api/v1/jobs").status_code == 404
        received = httpx.get(f"{there.url}/metrics", headers=headers).text
    assert {line.split("_")[0] for line in metrics.splitlines() if not line.startswith("#")} == {"mppobs"}
    assert "mppobs_shipped_bytes_total 0" not in metrics
    assert "mppobs_received_bytes_total 0" not in received


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(tmp_path: Path, number: int) -> None:
    """It says where it listens, and leaves with 0."""
    with sidecar(tmp_path, "--directory", str(tmp_path / "journals")) as process:
        url = process.url
        status, output = process.stop(number)
    assert (status, f"listens on {url}" in output) == (0, True)
    assert "Traceback" not in output


def test_what_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    """A port that is taken, a state directory that is in use, prices that are none."""
    with sidecar(tmp_path, "--directory", str(tmp_path / "journals")) as process:
        port = process.port_file.read_text().strip()
        bad = tmp_path / "prices.yaml"
        bad.write_text("defualt: {on_demand: 1}\n")
        cases = [
            (["--port", port], "Address already in use"),
            (["--state-directory", str(tmp_path / "state")], "another sidecar is using this state directory"),
            (["--price-file", str(bad)], "did you mean 'default'?"),
            (["--host", "0.0.0.0"], "write_token and read_token must be set"),
        ]
        others = [Process(tmp_path / str(at), *flags) for at, (flags, _) in enumerate(cases)]
        endings = [other.child.communicate(timeout=90)[0] for other in others]
        for other, output, (_, message) in zip(others, endings, cases, strict=True):
            assert other.child.returncode == 2, output
            assert message in output
            assert "Traceback" not in output
