"""
The totals that the fold adds to, by label, with their caps, and which of them have changed.

A label set that is beyond its cap counts under `__other__` and stays there: what is known only ever grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mppobs.catalog.metrics import OTHER
from mppobs.model import Context
from mppobs.sidecar.aggregates import (
    ClusterTotals,
    PipelineKey,
    PipelineTotals,
    SelfTotals,
    StageKey,
    StageTotals,
)
from mppobs.sidecar.kept import KeepSettings

OTHER_PIPELINE: Final = PipelineKey(OTHER, OTHER, OTHER)


@dataclass(frozen=True, slots=True)
class FoldSettings:
    """What the fold may hold."""

    max_pipelines: int = 1000
    max_stages: int = 30
    """Of a pipeline."""
    max_kinds: int = 20
    """Of activities of a stage, and of network errors and throttled requests of a pipeline."""
    max_clusters: int = 100
    max_ended: int = 10_000
    """Judged jobs that are remembered, so that what still comes of them is known to be late."""
    max_unexplained: int = 10_000
    """Attempts of a job that reported errors by kind and have no record of their own yet."""
    lease_ns: int = 60 * 10**9
    """How long a job whose coordinator died can be resumed, where it names no lease of its own."""
    keep: KeepSettings = field(default_factory=KeepSettings)


@dataclass(slots=True)
class Dirty:
    """Which totals have changed."""

    pipelines: set[PipelineKey] = field(default_factory=set)
    stages: set[StageKey] = field(default_factory=set)
    clusters: set[str] = field(default_factory=set)


class Labels:
    """All totals by their labels. Whoever changes one asks for it here, which marks it as changed."""

    def __init__(self, settings: FoldSettings) -> None:
        self.settings = settings
        self.pipelines: dict[PipelineKey, PipelineTotals] = {}
        self.stages: dict[StageKey, StageTotals] = {}
        self.clusters: dict[str, ClusterTotals] = {}
        self.own = SelfTotals()
        self.dirty = Dirty()
        self._stages_of: dict[PipelineKey, int] = {}

    def load(
        self,
        pipelines: Mapping[PipelineKey, PipelineTotals],
        stages: Mapping[StageKey, StageTotals],
        clusters: Mapping[str, ClusterTotals],
        own: SelfTotals,
    ) -> None:
        """Take these totals in the place of all that are there."""
        self.pipelines, self.stages, self.clusters, self.own = dict(pipelines), dict(stages), dict(clusters), own
        self._stages_of = {}
        for key in self.stages:
            self._stages_of[key.of_pipeline] = self._stages_of.get(key.of_pipeline, 0) + (key.stage != OTHER)

    def take_dirty(self) -> Dirty:
        """Return what has changed since the last call."""
        dirty, self.dirty = self.dirty, Dirty()
        return dirty

    def pipeline_key(self, context: Context) -> PipelineKey:
        """Return under which labels a pipeline counts, and make its totals where they are new."""
        key = PipelineKey(context.cluster, context.tenant, context.pipeline)
        known = len(self.pipelines) - (OTHER_PIPELINE in self.pipelines)
        if key not in self.pipelines and known >= self.settings.max_pipelines:
            self._folded("pipeline")
            key = OTHER_PIPELINE
        totals = self.pipeline(key)
        if key != OTHER_PIPELINE:
            totals.owner, totals.tier = context.owner, context.tier
        return key

    def known_pipeline(self, context: Context) -> PipelineKey:
        """Return under which labels a pipeline counts, without counting or making anything."""
        key = PipelineKey(context.cluster, context.tenant, context.pipeline)
        return key if key in self.pipelines or OTHER_PIPELINE not in self.pipelines else OTHER_PIPELINE

    def stage_key(self, pipeline: PipelineKey, stage: str) -> StageKey:
        """Return under which labels a stage counts, and make its totals where they are new."""
        key = StageKey(*pipeline, stage)
        if pipeline == OTHER_PIPELINE:
            key = StageKey(*pipeline, OTHER)
        elif key not in self.stages and stage != OTHER:
            known = self._stages_of.get(pipeline, 0)
            if known >= self.settings.max_stages:
                self._folded("stage")
                key = StageKey(*pipeline, OTHER)
            else:
                self._stages_of[pipeline] = known + 1
        self.stage(key)
        return key

    def pipeline(self, key: PipelineKey) -> PipelineTotals:
        """Return the totals of a pipeline, to be changed."""
        self.dirty.pipelines.add(key)
        totals = self.pipelines.get(key)
        if totals is None:
            totals = self.pipelines[key] = PipelineTotals(key)
        return totals

    def stage(self, key: StageKey) -> StageTotals:
        """Return the totals of a stage, to be changed."""
        self.dirty.stages.add(key)
        totals = self.stages.get(key)
        if totals is None:
            totals = self.stages[key] = StageTotals(key)
        return totals

    def cluster(self, name: str) -> ClusterTotals:
        """Return the totals of a cluster, to be changed."""
        if name not in self.clusters and len(self.clusters) >= self.settings.max_clusters:
            self._folded("cluster")
            name = OTHER
        self.dirty.clusters.add(name)
        totals = self.clusters.get(name)
        if totals is None:
            totals = self.clusters[name] = ClusterTotals(name)
        return totals

    def add_kind(self, counts: dict[str, int], kind: str, amount: int, family: str) -> None:
        """Add to the count of a kind that writers name, or to `__other__` where there are too many kinds."""
        if kind not in counts and len(counts) >= self.settings.max_kinds:
            self._folded(family)
            kind = OTHER
        counts[kind] = counts.get(kind, 0) + amount

    def late(self, kind: str, count: int = 1) -> None:
        """Count records that came after their decision."""
        self.own.late[kind] = self.own.late.get(kind, 0) + count

    def invalid(self, reason: str, count: int = 1) -> None:
        """Count records that made no sense."""
        self.own.invalid[reason] = self.own.invalid.get(reason, 0) + count

    def folded(self, kind: str, count: int = 1) -> None:
        """Count records that were folded."""
        if count:
            self.own.records[kind] = self.own.records.get(kind, 0) + count

    def _folded(self, family: str) -> None:
        self.own.series_folded[family] = self.own.series_folded.get(family, 0) + 1
