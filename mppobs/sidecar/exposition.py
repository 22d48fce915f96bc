"""
/metrics: a view in Prometheus's text format 0.0.4 or in OpenMetrics 1.0, straight from the catalogue.

The text around the numbers is made once and kept, so a sample costs about a microsecond: a scrape of 500 pipelines
must not hold up the fold. Counters are exact decimals of the integers that the aggregates keep.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Final, NamedTuple

from mppobs.catalog.metrics import METRICS, Metric, Type
from mppobs.clock import Clock, SystemClock
from mppobs.sidecar.aggregates import Exemplar, Histogram, Summary
from mppobs.sidecar.families import FAMILIES, Counts, Figure, Labels, Moment
from mppobs.sidecar.view import View

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

MAX_EXEMPLAR: Final = 128
"""Characters that the names and values of an exemplar's labels may have, by OpenMetrics 1.0."""
_EXEMPLAR_ROOM: Final = MAX_EXEMPLAR - len("trace_id") - 32

_DIGITS: Final = {"seconds": 9, "usd": 12}
"""Decimal digits of the integers that are kept: nanoseconds and picodollars."""
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Negotiated(NamedTuple):
    """What a scraper is to be sent."""

    openmetrics: bool
    gzip: bool

    @property
    def content_type(self) -> str:
        """Return the value of the Content-Type header."""
        return OPENMETRICS_TYPE if self.openmetrics else TEXT_TYPE


def negotiate(accept: str, accept_encoding: str = "") -> Negotiated:
    """
    Return the format and the compression that a request's headers ask for; plain text where in doubt.

    >>> negotiate("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "gzip, br")
    Negotiated(openmetrics=True, gzip=True)
    >>> negotiate("*/*").openmetrics, negotiate("application/openmetrics-text;q=0.1, text/plain").openmetrics
    (False, False)
    """
    offers = _weights(accept)
    fallback = offers.get("*/*", 0.0)
    text = max(offers.get("text/plain", fallback), offers.get("text/*", 0.0))
    wanted = offers.get("application/openmetrics-text", 0.0)
    return Negotiated(wanted > 0 and wanted >= text, _weights(accept_encoding).get("gzip", 0.0) > 0)


def _weights(header: str) -> dict[str, float]:
    """Return the highest weight of each value of an Accept header, whatever its other parameters."""
    found: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                weight = _number(parameter[2:])
        if name:
            found[name] = max(found.get(name, 0.0), weight)
    return found


def _number(text: str) -> float:
    """Return a weight; one that is no number counts as 0, so that what it belongs to is not chosen."""
    try:
        return float(text)
    except ValueError:
        return 0.0


class Renderer:
    """
    Renders views, and keeps the text around the numbers between scrapes. Not for use by two threads at a time.

    What is kept grows with the series that exist, which are capped; labels of single jobs and shards are not kept.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._took: float | None = None
        self._families = [_Family(metric) for metric in METRICS]

    def render(self, view: View, now_ns: int, *, openmetrics: bool) -> bytes:
        """Return the whole exposition."""
        began = self._clock.monotonic_ns()
        view = replace(view, tool=replace(view.tool, scrape_seconds=self._took))
        moment = Moment(view, now_ns)
        out: list[str] = []
        for family in self._families:
            name = family.metric.name
            if view.agent and not name.startswith("mppobs_"):
                continue
            _head(out, family.metric, openmetrics=openmetrics)
            for values, figure in FAMILIES[name](moment):
                if figure is not None:
                    family.write(out, values, figure, exemplars=openmetrics)
        if openmetrics:
            out.append("# EOF\n")
        text = "".join(out).encode("utf-8", "replace")
        self._took = (self._clock.monotonic_ns() - began) / 1e9
        return text


class _Family:
    """Writes the samples of one metric; for each label set it keeps a template with a place for each number."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._digits = _DIGITS.get(metric.unit, 0)
        self._last = metric.labels[-1] if metric.labels else ""
        # Counts begin at 0 for every value that the catalogue lists. Quantiles do not: one of nothing is not 0.
        self._listed = dict(metric.values).get(self._last, ()) if self._last != "quantile" else ()
        self._kept: dict[Labels, str] = {}

    def __len__(self) -> int:
        """Return the number of label sets that are kept."""
        return len(self._kept)

    def write(self, out: list[str], values: Labels, figure: Figure, *, exemplars: bool) -> None:
        """Write the samples of one figure."""
        template = self._kept.get(values)
        if template is None:
            template = self._template(values)
            if not self.metric.per_run:
                self._kept[values] = template
        match figure:
            case int() | float():
                out.append(template % _value(figure, self._digits))
            case Histogram():
                out.append(template % _histogram(figure, exemplars=exemplars))
            case Summary():
                out.append(template % (figure.count, decimal(figure.total, self._digits)))
            case None:
                return
            case _:
                self._write_counts(out, template, values, figure)

    def _write_counts(self, out: list[str], template: str, values: Labels, figures: Counts) -> None:
        """Write one sample for each value of the last label: those that are listed by template, others one by one."""
        digits = self._digits
        if self._listed:
            out.append(template % tuple([_value(figures.get(value, 0), digits) for value in self._listed]))
            if figures.keys() <= frozenset(self._listed):
                return
        for value, figure in figures.items():
            if value not in self._listed:
                labels = label_text(self.metric.labels, (*values, value))
                out.append(f"{self.metric.name}{{{labels}}} {_value(figure, digits)}\n")

    def _template(self, values: Labels) -> str:
        """Return the lines of a label set, with `%s` in the place of each number."""
        name, labels = self.metric.name, label_text(self.metric.labels, values).replace("%", "%%")
        match self.metric.type:
            case Type.HISTOGRAM:
                bounds = (*map(str, self.metric.buckets), "+Inf")
                lines = [f'{name}_bucket{{{labels},le="{bound}"}}' for bound in bounds]
                lines += [f"{name}_count{{{labels}}}", f"{name}_sum{{{labels}}}"]
            case Type.SUMMARY:
                lines = [f"{name}_count{{{labels}}}", f"{name}_sum{{{labels}}}"]
            case _ if self._listed:
                start = f"{labels}," if labels else ""
                lines = [f'{name}{{{start}{self._last}="{value}"}}' for value in self._listed]
            case _:
                lines = [f"{name}{{{labels}}}" if labels else name]
        return "".join(f"{line} %s\n" for line in lines)


def render(view: View, now_ns: int, *, openmetrics: bool) -> bytes:
    """
    Return a view as text or OpenMetrics, once. A server keeps a `Renderer` instead.

    >>> b"# TYPE mpp_jobs_total counter" in render(View(), 0, openmetrics=False)
    True
    """
    return Renderer(SystemClock()).render(view, now_ns, openmetrics=openmetrics)


def label_text(names: Labels, values: Labels) -> str:
    r"""
    Return label names and values as they stand between the braces, escaped.

    >>> print(label_text(("pipeline", "stage"), ('say "hi"', "a\\b")))
    pipeline="say \"hi\"",stage="a\\b"
    """
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=False))


def decimal(value: int, digits: int) -> str:
    """
    Return an integer divided by a power of ten, exactly.

    >>> decimal(1_500_000_000, 9), decimal(3, 9), decimal(0, 9), decimal(-25, 1), decimal(7, 0)
    ('1.5', '0.000000003', '0', '-2.5', '7')
    """
    if not digits or not value:
        return str(value)
    if value < 0:
        return "-" + decimal(-value, digits)
    whole, rest = divmod(value, 10**digits)
    return f"{whole}.{str(rest).zfill(digits).rstrip('0')}" if rest else str(whole)


def _head(out: list[str], metric: Metric, *, openmetrics: bool) -> None:
    """Write what a family is. OpenMetrics names a counter without its suffix and knows units."""
    name = metric.name
    if openmetrics and metric.type is Type.COUNTER:
        name = name.removesuffix("_total")
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
    out.append(f"# HELP {name} {text}\n# TYPE {name} {metric.type}\n")
    if openmetrics and metric.unit:
        out.append(f"# UNIT {name} {metric.unit}\n")


def _histogram(histogram: Histogram, *, exemplars: bool) -> tuple[int | str, ...]:
    """Return cumulative buckets, with what each can be traced back to, then count and sum."""
    counts: list[int | str] = list(accumulate(histogram.counts))
    total = counts[-1]
    if exemplars:
        for place, exemplar in enumerate(histogram.exemplars):
            if exemplar is not None:
                counts[place] = f"{counts[place]}{exemplar_text(exemplar)}"
    return (*counts, total, decimal(histogram.sum_ns, 9))


def exemplar_text(exemplar: Exemplar) -> str:
    """
    Return what follows a bucket's count in OpenMetrics: the labels that fit, the value, the time.

    The trace leads to the rest, so long names are left out rather than cut: first the shard's, then the job's.

    >>> exemplar_text(Exemplar("nightly-1", "", 255, 0.5, 1_500_000_000))
    ' # {trace_id="000000000000000000000000000000ff",job_id="nightly-1"} 0.5 1.5'
    """
    labels = f'trace_id="{exemplar.trace_id:032x}"'
    room = _EXEMPLAR_ROOM
    if exemplar.job_id and (size := 6 + len(exemplar.job_id)) <= room:
        labels += f',job_id="{exemplar.job_id.translate(_ESCAPES)}"'
        room -= size
    if exemplar.shard_id and 8 + len(exemplar.shard_id) <= room:
        labels += f',shard_id="{exemplar.shard_id.translate(_ESCAPES)}"'
    return f" # {{{labels}}} {exemplar.value!r} {decimal(exemplar.time_ns, 9)}"


def _value(figure: float, digits: int) -> str:
    """Return a number: an integer exactly, scaled by its unit; a float as the shortest text that reads back."""
    return decimal(figure, digits) if isinstance(figure, int) else repr(float(figure))
