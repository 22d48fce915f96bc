"""Spans of decided jobs: which are kept, that the tree is whole, and that a real OTLP receiver gets them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter as Backend
from opentelemetry.sdk.trace.export import SpanExportResult

from mppobs.model import AttemptOutcome, CommitRecord, DispatchRecord, JobOutcome, Reason, ShardOutcome
from mppobs.sidecar.fold_labels import FoldSettings
from mppobs.sidecar.kept import KeepSettings
from mppobs.sidecar.running import DecidedJob
from mppobs.sidecar.span_choice import SpanSettings, slow_threshold
from mppobs.sidecar.span_tree import SpanTree, grow, incoming
from mppobs.sidecar.spans import SpanExporter, otlp_backend
from mppobs.trace_ids import span_id, trace_id
from tests.sidecar.journals import NOW, SECOND
from tests.sidecar.scenario import BEGAN, PARENT, Scenario


def large_job() -> DecidedJob:
    """Ten thousand shards, of which 20 failed for good and 30 took ten times as long as the others."""
    scenario = Scenario(outcome=JobOutcome.FAILURE)
    scenario.start(map=10_000)
    lengths = np.random.default_rng(1).uniform(0.9, 1.1, 10_000)
    for shard, seconds in enumerate(lengths.tolist()):
        if shard % 500 == 7:
            scenario.attempt("map", shard, outcome=AttemptOutcome.FAILURE, error_type="ValueError", seconds=seconds)
            scenario.journal.append(
                CommitRecord(scenario.stage("map"), shard, 0, ShardOutcome.FAILED, NOW, error_type="ValueError")
            )
        else:
            scenario.done("map", shard, 10.0 if shard % 333 == 5 and shard < 333 * 30 else seconds)
    return scenario.decided()


FAILED = {shard for shard in range(10_000) if shard % 500 == 7}
SLOW = {shard for shard in range(333 * 30) if shard % 333 == 5}


def check_tree(tree: SpanTree, job: DecidedJob) -> None:
    """Every span once, in the job's trace, below a span that is there, and within its time."""
    nodes = {node.span_id: node for node in tree.nodes}
    assert len(nodes) == len(tree.nodes)
    assert {node.trace_id for node in tree.nodes} == {trace_id(job.key)}
    assert [node.span_id for node in tree.nodes if not node.parent_id] == [span_id(job.key)]
    for node in tree.nodes:
        if node.parent_id:
            parent = nodes[node.parent_id]
            assert parent.start_ns <= node.start_ns <= node.end_ns <= parent.end_ns


def attempts_of(tree: SpanTree) -> Counter[tuple[object, object, object]]:
    """Stage, shard and number of every attempt's span."""
    found = [node.attributes for node in tree.nodes if "mpp.attempt" in node.attributes]
    return Counter((each["mpp.stage"], each["mpp.shard.id"], each["mpp.attempt"]) for each in found)


@contextmanager
def receiver(status: Sequence[int] = ()) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP/HTTP receiver on loopback; it answers the first requests with `status`, and takes all others."""
    taken: list[ExportTraceServiceRequest] = []
    answers = list(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            code = answers.pop(0) if answers else 200
            if code == 200:
                taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def received(requests: Sequence[ExportTraceServiceRequest]) -> list[Span]:
    """All spans of some requests."""
    return [
        span for request in requests for resource in request.resource_spans
        for scope in resource.scope_spans for span in scope.spans
    ]  # fmt: skip


def plain(span: Span) -> dict[str, object]:
    """The attributes of a received span."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_of_ten_thousand_shards_all_failed_and_slow_ones_arrive_and_the_rest_is_sampled() -> None:
    """The 50 are all there, the tree is complete, nothing is there twice, and what is left out is counted."""
    job = large_job()
    with receiver() as (url, requests):
        exporter = SpanExporter(otlp_backend(url))
        exporter.offer([job])
        assert exporter.flush(30)
        exporter.close()

    spans = received(requests)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    assert {span.trace_id for span in spans} == {trace_id(job.key).to_bytes(16, "big")}
    assert [span.name for span in spans if not span.parent_span_id] == ["nightly"]
    assert all(span.parent_span_id in by_id for span in spans if span.parent_span_id)

    attempts = [plain(span) for span in spans if "mpp.attempt" in plain(span)]
    why = {kept: {int(str(each["mpp.shard.id"])) for each in attempts if each["mpp.kept"] == kept} for kept in
           ("failed", "slow", "sampled")}  # fmt: skip
    assert why["failed"] == FAILED
    assert why["slow"] == SLOW
    assert len(why["sampled"]) == 100
    assert len(attempts) == 150
    assert len(spans) == 1 + 1 + 2 * 150
    figures = exporter.figures()
    assert figures.exported == len(spans)
    assert figures.dropped == {"sampled": 1 + 1 + 20_000 - len(spans), "cap": 0, "export": 0}


def test_received_spans_say_what_they_are_of() -> None:
    """Names, IDs, times, status, resource and attributes of all four levels, and the link to what started the job."""
    scenario = Scenario(outcome=JobOutcome.FAILURE)
    scenario.start(map=1)
    scenario.attempt("map", "part-7", outcome=AttemptOutcome.ERROR, reason=Reason.OOM_KILLED, seconds=2)
    job = scenario.decided()
    with receiver() as (url, requests):
        exporter = SpanExporter(otlp_backend(url + "/"))
        exporter.offer([job])
        exporter.close()

    [resource] = requests[0].resource_spans
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
        "service.name": "nightly", "service.namespace": "default", "mpp.cluster": "default",
    }  # fmt: skip
    root, stage, shard, attempt = received(requests)
    assert [span.name for span in (root, stage, shard, attempt)] == [
        "nightly",
        "map",
        "map part-7",
        "map part-7 attempt 0",
    ]
    assert attempt.span_id == span_id(job.key, "map", "part-7", 0).to_bytes(8, "big")
    assert shard.span_id == attempt.parent_span_id == span_id(job.key, "map", "part-7").to_bytes(8, "big")
    assert stage.span_id == shard.parent_span_id == span_id(job.key, "map").to_bytes(8, "big")
    assert (attempt.start_time_unix_nano, attempt.end_time_unix_nano) == (BEGAN, BEGAN + 2 * SECOND)
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (BEGAN, NOW)
    assert (attempt.status.code, attempt.status.message) == (Status.STATUS_CODE_ERROR, "oom_killed")
    assert (root.status.code, shard.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_ERROR)
    [link] = root.links
    assert (int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big")) == incoming(PARENT)
    assert plain(attempt) == {
        "mpp.pipeline": "nightly", "mpp.job.id": "job-1", "mpp.tenant": "default", "mpp.stage": "map",
        "mpp.shard.id": "part-7", "mpp.attempt": 0, "mpp.outcome": "error", "mpp.reason": "oom_killed",
        "mpp.kept": "failed", "mpp.speculative": False, "mpp.rows": 5, "mpp.shuffle.read_bytes": 0,
        "mpp.shuffle.written_bytes": 0, "mpp.network_errors": 0, "mpp.storage_throttled": 0,
        "cicd.pipeline.name": "nightly", "cicd.pipeline.run.id": "job-1", "cicd.pipeline.task.name": "map",
        "cicd.pipeline.task.run.id": "map/part-7/0", "cicd.pipeline.task.run.result": "error",
        "cicd.worker.name": "worker-1", "process.pid": 7, "error.type": "oom_killed",
        "host.name": "node-1", "cloud.availability_zone": "zone-1",
    }  # fmt: skip
    assert plain(root)["cicd.pipeline.result"] == "failure"


def test_every_attempt_of_a_retried_shard_is_kept() -> None:
    """The one that failed and the one that won hang below one shard."""
    scenario = Scenario()
    scenario.start(map=3)
    scenario.done("map", 0)
    scenario.attempt("map", 1, 0, AttemptOutcome.TIMEOUT)
    scenario.attempt("map", 1, 1, start=BEGAN + 2 * SECOND)
    scenario.commit("map", 1, 1, end=BEGAN + 3 * SECOND)
    scenario.attempt("map", 2, 0, AttemptOutcome.SUPERSEDED, seconds=4)
    scenario.attempt("map", 2, 1, start=BEGAN + 2 * SECOND)
    scenario.commit("map", 2, 1, end=BEGAN + 3 * SECOND)
    job = scenario.decided()

    tree = grow(job, SpanSettings(sample=0))
    check_tree(tree, job)
    assert attempts_of(tree) == Counter(("map", shard, number) for shard in "12" for number in (0, 1))
    assert tree.sampled == 2  # shard 0 and its attempt


def test_an_attempt_that_vanished_with_its_node_has_a_span() -> None:
    """It was dispatched and never recorded: an error, at the time at which it was given up."""
    scenario = Scenario(outcome=JobOutcome.FAILURE)
    scenario.start(map=2)
    for shard in (0, 1):
        scenario.journal.append(DispatchRecord(scenario.stage("map"), shard, 0, BEGAN, worker="worker-1"))
    scenario.attempt("map", 1, 1)
    scenario.commit("map", 1, 1, end=BEGAN + SECOND)
    job = scenario.decided()

    tree = grow(job, SpanSettings(sample=0))
    check_tree(tree, job)
    assert attempts_of(tree) == Counter([("map", "0", 0), ("map", "1", 0), ("map", "1", 1)])
    vanished = [node for node in tree.nodes if node.attributes.get("mpp.reason") == "node_lost"]
    assert [(node.error, node.start_ns) for node in vanished if "mpp.attempt" in node.attributes] == [
        ("node_lost", NOW), ("node_lost", BEGAN + SECOND),
    ]  # fmt: skip


def mixed_scenario() -> Scenario:
    """Shards that went well, one that was retried, one that was slow, and one that failed for good."""
    scenario = Scenario(outcome=JobOutcome.FAILURE)
    scenario.start(map=12)
    for shard in range(9):
        scenario.done("map", shard)
    scenario.done("map", 9, 8.0)
    scenario.attempt("map", 10, 0, AttemptOutcome.TIMEOUT)
    scenario.attempt("map", 10, 1, start=BEGAN + 2 * SECOND)
    scenario.commit("map", 10, 1, end=BEGAN + 3 * SECOND)
    scenario.attempt("map", 11, 0, AttemptOutcome.FAILURE, error_type="KeyError", seconds=2.0)
    return scenario


def test_what_the_fold_had_no_room_for_comes_from_the_table_of_shards() -> None:
    """Identity, times, outcome and worker are the same; only the tries that did not decide their shard are lost."""
    full = grow(mixed_scenario().decided(), SpanSettings(sample=4))
    little = FoldSettings(keep=KeepSettings(notable=0, slowest=1, sample=1))
    bare = grow(mixed_scenario().decided(little), SpanSettings(sample=4))

    def shown(tree: SpanTree) -> dict[str, tuple[object, ...]]:
        names = ("mpp.outcome", "error.type", "host.name", "process.pid", "mpp.kept")
        return {
            node.name: (node.span_id, node.start_ns, node.end_ns, node.error, *map(node.attributes.get, names))
            for node in tree.nodes
            if "mpp.attempt" in node.attributes
        }

    lost = shown(full).keys() - shown(bare).keys()
    assert lost == {"map 10 attempt 0"}
    assert shown(full) == shown(bare) | {name: shown(full)[name] for name in lost}
    why = Counter(each[-1] for each in shown(bare).values())
    assert why == {"failed": 1, "repeated": 1, "slow": 1, "sampled": 4}


def test_the_cap_keeps_failures_first_and_the_tree_whole() -> None:
    """With room for few spans, failures win over slow ones and slow ones over the sample; the rest is counted."""
    job = large_job()
    for most in (1, 2, 3, 4, 30, 60, 100, 200):
        tree = grow(job, SpanSettings(max_spans=most))
        check_tree(tree, job)
        assert len(tree.nodes) <= most
        kept = Counter(str(node.attributes["mpp.kept"]) for node in tree.nodes if "mpp.kept" in node.attributes)
        room = (most - 2) // 2 if most > 3 else 0
        assert kept["failed"] == min(20, room)
        assert kept["slow"] == min(30, max(0, room - 20))
        assert tree.capped + tree.sampled + len(tree.nodes) == 20_002
        assert tree.capped >= 150 - sum(kept.values())


def test_the_same_shards_are_sampled_in_every_run() -> None:
    """The sample hangs on what the shards are called, not on when or in what order they came."""
    forward, backward = Scenario(), Scenario()
    for scenario, order in ((forward, range(2000)), (backward, range(1999, -1, -1))):
        scenario.start(map=2000)
        for shard in order:
            scenario.done("map", shard)

    kept = [attempts_of(grow(each.decided(), SpanSettings(sample=50))) for each in (forward, backward)]
    assert kept[0] == kept[1]
    assert sum(kept[0].values()) == 50


def test_stages_without_a_kept_attempt_have_their_span() -> None:
    """The shape of the job shows even where nothing below is kept."""
    scenario = Scenario()
    scenario.start(map=1, reduce=1)
    scenario.done("map", 0)
    scenario.done("reduce", 0)

    tree = grow(scenario.decided(), SpanSettings(sample=0))
    assert [node.name for node in tree.nodes] == ["nightly", "map", "reduce"]


def test_a_stage_without_a_tail_has_no_slow_shards() -> None:
    """One in a hundred is past the p99; that alone is nothing."""
    even = np.random.default_rng(2).uniform(0.9, 1.1, 1000) * SECOND
    assert not (even > slow_threshold(even.astype(np.int64))).any()


class Refusing(Backend):
    """A backend that takes nothing, or raises, so many times."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.times = times
        self.error = error
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Refuse, or take."""
        self.times -= 1
        if self.times < 0:
            self.spans += spans
            return SpanExportResult.SUCCESS
        if self.error is not None:
            raise self.error
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Nothing is held."""


def small_job() -> DecidedJob:
    """One shard, done."""
    scenario = Scenario()
    scenario.start(map=1)
    scenario.done("map", 0)
    return scenario.decided()


@pytest.mark.parametrize("error", [None, RuntimeError("no")])
def test_a_backend_that_comes_back_gets_the_spans(error: Exception | None) -> None:
    """Refusals and errors are tried again."""
    backend = Refusing(3, error)
    exporter = SpanExporter(backend, first_pause_seconds=0.001)
    exporter.offer([small_job()])
    assert exporter.flush(10)
    exporter.close()

    assert len(backend.spans) == exporter.figures().exported == 4
    assert exporter.figures().dropped["export"] == 0


def test_a_backend_that_stays_away_costs_spans_and_nothing_else() -> None:
    """After its tries the batch is dropped and counted, and the next one is sent."""
    backend = Refusing(5)
    exporter = SpanExporter(backend, first_pause_seconds=0.001)
    exporter.offer([small_job(), small_job()])
    assert exporter.flush(10)
    exporter.close()

    assert exporter.figures().exported == 4
    assert exporter.figures().dropped["export"] == 4


def test_a_full_queue_drops_whole_jobs_and_counts_them() -> None:
    """Offering never waits, and what is offered after closing is counted too."""
    backend = Refusing(10**9)
    exporter = SpanExporter(backend, queued_spans=5, first_pause_seconds=30)
    exporter.offer([small_job(), small_job()])
    assert exporter.figures().dropped["export"] == 4

    exporter.close(0.01)
    exporter.offer([small_job()])
    assert exporter.figures().dropped["export"] == 12


def test_a_collector_that_is_busy_is_asked_again() -> None:
    """A 503 over real HTTP loses nothing."""
    with receiver([503]) as (url, requests):
        exporter = SpanExporter(otlp_backend(url), first_pause_seconds=0.01)
        exporter.offer([small_job()])
        assert exporter.flush(30)
        exporter.close()

    assert len(received(requests)) == 4
