"""
The peer of the ingest benchmark: attempts as JSON, checked by pydantic, as rows into SQLite, with totals by a query.

It is written the way such services are: batches, one transaction each, WAL, prepared statements, uvloop.
"""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, NonNegativeInt

BATCH = 1000


class Attempt(BaseModel):
    """One attempt as a worker would post it."""

    pipeline: str
    job_id: str
    stage: str
    shard: int | str
    attempt: NonNegativeInt
    outcome: Literal["success", "failure", "error", "timeout", "cancelled", "preempted", "superseded"]
    start_ns: NonNegativeInt
    duration_ns: NonNegativeInt
    cpu_ns: NonNegativeInt
    shuffle_read: NonNegativeInt
    shuffle_written: NonNegativeInt


def make_app(path: Path) -> FastAPI:
    """Return the service, over a database that it makes."""
    app = FastAPI()
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(
        "CREATE TABLE attempts (pipeline, job_id, stage, shard, attempt, outcome, start_ns, duration_ns, cpu_ns, "
        "shuffle_read, shuffle_written, UNIQUE (job_id, stage, shard, attempt) ON CONFLICT IGNORE)"
    )

    @app.post("/attempts")
    def post(batch: list[Attempt]) -> int:
        with database:
            database.executemany(
                "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                [tuple(each.model_dump().values()) for each in batch],
            )
        return len(batch)

    @app.get("/totals")
    def totals() -> dict[str, int]:
        sql = "SELECT pipeline || '/' || stage || '/' || outcome, count(*) FROM attempts GROUP BY 1"
        return dict(database.execute(sql).fetchall())

    return app


def rate(directory: Path, records: int) -> float:
    """Return the attempts per second that the service takes from one client on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(directory / "peer.db"), str(port)]
    batches = [
        [
            Attempt(
                pipeline="bench", job_id="job-1", stage="map", shard=shard, attempt=0, outcome="success",
                start_ns=time.time_ns(), duration_ns=10**9, cpu_ns=10**8, shuffle_read=4096, shuffle_written=4096,
            ).model_dump()
            for shard in range(at, at + BATCH)
        ]
        for at in range(0, records, BATCH)
    ]  # fmt: skip
    with subprocess.Popen(command) as service, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        try:
            _wait(client)
            began = time.perf_counter()
            for batch in batches:
                client.post("/attempts", json=batch).raise_for_status()
            found = sum(client.get("/totals").json().values())
            elapsed = time.perf_counter() - began
        finally:
            service.terminate()
    if found != records:
        raise RuntimeError(f"the peer counted {found} of {records}")
    return records / elapsed


def _wait(client: httpx.Client) -> None:
    for _ in range(200):
        try:
            client.get("/totals").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the peer did not start")


if __name__ == "__main__":
    uvicorn.run(make_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="error")
