"""What may be asked of the API: the query parameters of each path, checked, with their documentation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mppobs.errors import nearest
from mppobs.model import JobOutcome, ShardOutcome
from mppobs.sidecar.problems import short
from mppobs.sidecar.schemas import JobState

MAX_LIMIT = 500
MAX_NAME = 512

Name = Annotated[str, Field(max_length=MAX_NAME)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


def _rfc3339(value: object) -> object:
    """Refuse what pydantic would take for seconds since the epoch: it is more often a mistake."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", value, re.ASCII):
        raise ValueError("write a time as 2026-01-31T08:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]

_PLACE = "^([0-8]?[0-9]{1,18}|9[01][0-9]{17}|92[01][0-9]{16})-[0-9a-f]{32}$"
"""A start in nanoseconds, below 2^63, and a job's trace ID: see `mppobs.sidecar.store_jobs.PagePlace`."""


class Filters(BaseModel):
    """The base of what may be asked for. A misspelt filter is refused: it must not silently select everything."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_only(cls, values: Any) -> Any:
        """Name the nearest right word for a parameter that there is none of."""
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(f"unknown parameter {short(name)}; {nearest(name[:200], cls.model_fields)}")
        return values


class JobFilters(Filters):
    """Which jobs to list."""

    pipeline: Name | None = None
    """Only this pipeline."""
    tenant: Name | None = None
    """Only this tenant."""
    cluster: Name | None = None
    """Only this cluster."""
    outcome: JobOutcome | None = None
    """Only jobs that ended so."""
    state: JobState | None = None
    """Only jobs that run, or that have been judged."""
    since: Moment | None = None
    """Only jobs that started at this time or later."""
    until: Moment | None = None
    """Only jobs that started before this time."""
    cursor: Annotated[str, Field(pattern=_PLACE)] | None = None
    """`next` of the page before."""
    limit: Limit = 100
    """How many to return at the most."""


class RunFilters(Filters):
    """Which run, where several used one `job_id`."""

    incarnation: Annotated[str, Field(pattern="^[0-9]{1,20}$")] | None = None
    """The newest where it is not given."""


class ShardFilters(RunFilters):
    """Which shards of a job to list."""

    stage: Name | None = None
    """Only this stage."""
    outcome: ShardOutcome | None = None
    """Only shards that were decided so."""
    order: Literal["shard", "slowest", "worst"] = "shard"
    """By stage and shard; longest first; or, of those that failed, were lost, or are undecided after an attempt that
    did not succeed, in this order, those with most attempts first."""
    cursor: Annotated[str, Field(pattern="^[0-9]{1,12}$")] | None = None
    """`next` of the page before."""
    limit: Limit = 100
    """How many to return at the most."""


class SloFilters(Filters):
    """Which SLOs, and of what time."""

    slo: Name | None = None
    """Only the one of this name, `team/name`."""
    pipeline: Name | None = None
    """Only those on this pipeline."""
    owner: Name | None = None
    """Only those of this owner."""
    month: Annotated[str, Field(pattern="^[12][0-9]{3}-(0[1-9]|1[0-2])$")] | None = None
    """Report this month of the calendar (UTC), `YYYY-MM`, as the period."""
    cursor: Name | None = None
    """`next` of the page before."""
    limit: Limit = 100
    """How many to return at the most."""


class PipelineFilters(Filters):
    """Which pipelines."""

    pipeline: Name | None = None
    """Only this pipeline."""
    tenant: Name | None = None
    """Only this tenant."""
    cluster: Name | None = None
    """Only this cluster."""
