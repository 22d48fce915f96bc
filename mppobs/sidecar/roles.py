"""
The two roles of a sidecar: an aggregator, which folds and judges, and an agent, which only ships.

Each owns what it is made of: it starts with the object, works in `run`, and lets go in `close`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from mppobs.clock import Clock
from mppobs.cost.prices import load_prices
from mppobs.errors import ConfigError
from mppobs.model import JobKey
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.decide import DecideSettings
from mppobs.sidecar.engine import Engine, Hook
from mppobs.sidecar.fold_labels import FoldSettings
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.live import LiveSettings, RecentRuns, live_view
from mppobs.sidecar.middleware import Refusals
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.reading import Check, ShardQuery, ShardRow
from mppobs.sidecar.running import DecidedJob
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.ship import Shipper
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.span_choice import SpanSettings
from mppobs.sidecar.spans import SpanExporter, SpanFigures, otlp_backend
from mppobs.sidecar.spool import Spool, SpoolLimits
from mppobs.sidecar.store_jobs import JobPage, JobQuery, JobSummary
from mppobs.sidecar.view import Live, LiveRun, ToolFigures, View

MAX_LAG_SECONDS: Final = 30.0
"""Older figures than this are not ready to be relied on."""
MAX_SILENCE_SECONDS: Final = 15.0
"""An agent whose aggregator answered nothing for so long is not ready."""

_BUSY_SECONDS: Final = 0.05
"""Pause between rounds while there is more to read."""


class SharedRecentRuns(RecentRuns):
    """The jobs that were judged a moment ago, taken in by the engine's thread and shown by others."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def add(self, jobs: Iterable[DecidedJob]) -> None:
        """Take in jobs as they are judged."""
        with self._lock:
            super().add(jobs)

    def runs(self, now_ns: int) -> list[LiveRun]:
        """Return those that are recent enough."""
        with self._lock:
            return super().runs(now_ns)


class EngineReading:
    """An engine as its readers see it; see `mppobs.sidecar.reading.Reading`."""

    def __init__(
        self,
        engine: Engine,
        settings: SidecarSettings,
        refusals: Refusals,
        *,
        spool: Spool | None = None,
        spans: SpanExporter | None = None,
        recent: SharedRecentRuns | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._refusals = refusals
        self._spool = spool
        self._spans = spans
        self._recent = recent or SharedRecentRuns()

    @contextmanager
    def view(self, now_ns: int) -> Iterator[View]:
        """Hold the engine still and hand out what is committed."""
        engine = self._engine
        with engine.lock:
            fold = engine.fold
            live = live_view(
                fold, engine.live, now_ns, LiveSettings(),
                recent=self._recent.runs(now_ns), foreseen=engine.slos.foreseen,
            )  # fmt: skip
            slos = engine.slos.figures(now_ns)
            yield View(
                pipelines=fold.pipelines, stages=fold.stages, clusters=fold.clusters, own=fold.own, live=live,
                slos=slos, queried_slos=engine.slos.queried, slo_problem=engine.slos.files.problem, tool=self._tool(),
                max_runs=self._settings.max_running_jobs_exposed, worst_k=self._settings.worst_k,
            )  # fmt: skip

    def _tool(self) -> ToolFigures:
        figures = self._engine.figures
        spans = self._spans.figures() if self._spans is not None else SpanFigures()
        return ToolFigures(
            lag_seconds=self._engine.lag_seconds(),
            fold_ns=figures.fold_ns,
            commits=figures.commits,
            received_bytes=self._spool.figures.received_bytes if self._spool is not None else 0,
            rejected=self._refusals.totals(),
            spans_exported=spans.exported,
            spans_dropped=spans.dropped,
            archived_shards=figures.archived_shards,
            unarchived_jobs=figures.unarchived,
            refused_rounds=figures.refused,
            lost_records=figures.unreadable,
            quarantined_journals=figures.quarantined,
            unreadable_files=self._engine.follow_figures.unreadable,
            failed_predictions=self._engine.failed_predictions,
            slo_reload_errors=self._engine.slos.files.errors,
        )

    def jobs(self, query: JobQuery, *, running: bool, finished: bool) -> JobPage:
        """Return a page of jobs."""
        return self._engine.jobs(query, running=running, finished=finished)

    def runs(self, job_id: str) -> Sequence[JobSummary]:
        """Return the runs that used a job ID, newest first."""
        return self._engine.runs(job_id)

    def shards(self, job: JobKey, query: ShardQuery) -> Sequence[ShardRow]:
        """Return shards of a job."""
        return self._engine.shards(job, query)

    def checks(self, now_ns: int) -> list[Check]:
        """Say whether rounds are committed, and whether they keep up. Waits for no round: a probe is in a hurry."""
        health, lag = self._engine.health, self._engine.lag_seconds()
        return [
            Check("store", health.ok, health.message or "rounds are committed"),
            Check("prices", ok=True, detail=_unpriced(self._engine.fold.unpriced)),
            Check("slos", ok=True, detail=self._engine.slos.files.status),
            Check("lag", lag <= MAX_LAG_SECONDS, f"figures are {lag:.1f} s old; {MAX_LAG_SECONDS:.0f} s are allowed"),
        ]


class Aggregator:
    """An engine on its state directory, with a spool for what agents ship and an exporter for spans."""

    def __init__(self, settings: SidecarSettings, refusals: Refusals, clock: Clock) -> None:
        with ExitStack() as undo:
            state = settings.state_directory
            limits = SpoolLimits(spool_bytes=settings.spool_bytes, journals=settings.max_journals)
            self.spool = Spool(_made(state / "spool"), limits, clock=clock)
            self._spans = _span_exporter(settings)
            if self._spans is not None:
                undo.callback(self._spans.close)
            recent = SharedRecentRuns()
            hooks: list[Hook] = [recent.add] if self._spans is None else [recent.add, self._spans.offer]
            self.engine = _engine(settings, self.spool, hooks, clock)
            self.reading = EngineReading(
                self.engine, settings, refusals, spool=self.spool, spans=self._spans, recent=recent
            )
            undo.pop_all()

    def run(self, stop: threading.Event) -> None:
        """Fold round after round until told to stop. Raises `StoreError` where the store can no longer be trusted."""
        self.engine.run(stop)

    def close(self) -> None:
        """Let the state directory go, and send the spans that wait."""
        self.engine.close()
        if self._spans is not None:
            self._spans.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Agent:
    """Ships the journals of this machine; shows nothing but its own figures."""

    def __init__(self, settings: SidecarSettings, refusals: Refusals, clock: Clock) -> None:
        directories = [_made(directory) for directory in settings.directories]
        self._shipper = Shipper(directories, settings.forward or "", settings.token("forward"), clock=clock)
        self._poll_seconds = settings.poll_seconds
        self._refusals = refusals
        self._answered = 0
        self._answered_ns = clock.time_ns()

    def run(self, stop: threading.Event) -> None:
        """Ship until told to stop."""
        self._shipper.run(stop, self._poll_seconds)

    @contextmanager
    def view(self, now_ns: int) -> Iterator[View]:
        """Hand out the agent's own figures."""
        figures = self._shipper.figures
        tool = ToolFigures(
            shipped_bytes=figures.shipped_bytes,
            ship_errors=figures.errors,
            rejected=self._refusals.totals(),
            unreadable_files=self._shipper.follower.figures.unreadable,
        )
        yield View(live=Live(journals=_by_state(self._shipper.live)), tool=tool, agent=True)

    def checks(self, now_ns: int) -> list[Check]:
        """Say whether the aggregator answers; while it does not, nothing is lost, but nothing is seen either."""
        figures = self._shipper.figures
        if figures.requests - figures.errors != self._answered:
            self._answered, self._answered_ns = figures.requests - figures.errors, now_ns
        silent = (now_ns - self._answered_ns) / 1e9
        return [Check("aggregator", silent <= MAX_SILENCE_SECONDS, f"answered {silent:.0f} s ago or later")]

    def close(self) -> None:
        """Close the connection to the aggregator."""
        self._shipper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _engine(settings: SidecarSettings, spool: Spool, hooks: Sequence[Hook], clock: Clock) -> Engine:
    """Return the engine as the settings want it, in the state of its last commit."""
    pace = EngineSettings(
        decide=DecideSettings(settings.settle_seconds, settings.lease_seconds, settings.idle_seconds),
        busy_seconds=min(_BUSY_SECONDS, settings.poll_seconds),
        idle_seconds=settings.poll_seconds,
        retention_days=settings.retention_days,
    )
    return open_engine(
        settings.state_directory,
        [*map(_made, settings.directories), settings.state_directory / "spool"],
        pace,
        fold=FoldSettings(max_pipelines=settings.max_pipelines, max_stages=settings.max_stages),
        prices=load_prices(settings.price_file) if settings.price_file is not None else None,
        clock=clock,
        shipped_live=spool.running,
        hooks=hooks,
        slos=SloBook(SloFiles(settings.slo_files, most=settings.max_slos), prometheus_days=settings.prometheus_days),
    )


def _unpriced(node_types: Iterable[str]) -> str:
    """Return in words what has run and costs nothing because nobody said what it costs."""
    names = ", ".join(name or "workers that name no type" for name in sorted(node_types)[:5])
    return f"not priced, so billed nothing: {names}" if names else "all workers seen so far have a price"


def _span_exporter(settings: SidecarSettings) -> SpanExporter | None:
    if settings.otlp_endpoint is None:
        return None
    chosen = SpanSettings(max_spans=settings.max_spans_per_job, sample=settings.span_sample)
    return SpanExporter(otlp_backend(settings.otlp_endpoint), chosen)


def _made(directory: Path) -> Path:
    """Return a directory that is there, made for this user alone where it was not."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be used: {error.strerror or error}") from error
    return directory


def _by_state(journals: Sequence[LiveJournal]) -> dict[str, int]:
    alive = sum(journal.alive for journal in journals)
    return {"live": alive, "dead": len(journals) - alive}
