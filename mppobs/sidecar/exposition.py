"""
/metrics: a view in Prometheus's text format 0.0.4 or in OpenMetrics 1.0, straight from the catalogue.

Label sets are escaped once and kept, so a sample costs a microsecond or two: a scrape of 500 pipelines must
not hold up the fold. Counters are exact decimals of the integers that the aggregates keep.
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
    Renders views, and keeps the escaped label sets between scrapes. Not for use by two threads at a time.

    The caches grow with the series that exist, which are capped; labels of single jobs and shards are not kept.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._took: float | None = None
        self._cache: dict[Labels, dict[Labels, str]] = {}

    def render(self, view: View, now_ns: int, *, openmetrics: bool) -> bytes:
        """Return the whole exposition."""
        began = self._clock.monotonic_ns()
        view = replace(view, tool=replace(view.tool, scrape_seconds=self._took))
        moment = Moment(view, now_ns)
        out: list[str] = []
        for metric in METRICS:
            if view.agent and not metric.name.startswith("mppobs_"):
                continue
            _head(out, metric, openmetrics=openmetrics)
            for values, figure in FAMILIES[metric.name](moment):
                if figure is not None:
                    _samples(out, metric, self._labels(metric, values), figure, exemplars=openmetrics)
        if openmetrics:
            out.append("# EOF\n")
        text = "".join(out).encode("utf-8", "replace")
        self._took = (self._clock.monotonic_ns() - began) / 1e9
        return text

    def _labels(self, metric: Metric, values: Labels) -> str:
        """Return a label set as text, without its braces."""
        if metric.per_run:
            return label_text(metric.labels, values)
        known = self._cache.setdefault(metric.labels[: len(values)], {})
        text = known.get(values)
        if text is None:
            text = known[values] = label_text(metric.labels, values)
        return text


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
    text = f"{value:0{digits + 1}d}"
    return f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".")


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


def _samples(out: list[str], metric: Metric, labels: str, figure: Figure, *, exemplars: bool) -> None:
    """Write the samples of one figure."""
    match figure:
        case int() | float():
            braced = f"{{{labels}}}" if labels else ""
            out.append(f"{metric.name}{braced} {_value(figure, _DIGITS.get(metric.unit, 0))}\n")
        case Histogram():
            _histogram(out, metric.name, labels, figure, exemplars=exemplars)
        case Summary():
            total = decimal(figure.total, _DIGITS.get(metric.unit, 0))
            out.append(f"{metric.name}_count{{{labels}}} {figure.count}\n{metric.name}_sum{{{labels}}} {total}\n")
        case None:
            return
        case _:
            _by_label(out, metric, labels, figure)


def _by_label(out: list[str], metric: Metric, labels: str, figures: Counts) -> None:
    """
    Write one sample for each value of the family's last label.

    Counts start at 0 for every value that the catalogue lists. Quantiles do not: one of nothing is not 0.
    """
    last = metric.labels[-1]
    digits = _DIGITS.get(metric.unit, 0)
    start = f"{metric.name}{{{labels},{last}=" if labels else f"{metric.name}{{{last}="
    listed = dict(metric.values).get(last, ()) if last != "quantile" else ()
    out.extend(f'{start}"{value}"}} 0\n' for value in listed if value not in figures)
    out.extend(
        f'{start}"{value.translate(_ESCAPES)}"}} {_value(figure, digits)}\n' for value, figure in figures.items()
    )


def _histogram(out: list[str], name: str, labels: str, histogram: Histogram, *, exemplars: bool) -> None:
    """Write cumulative buckets, count and sum, with what each bucket can be traced back to."""
    start = f"{name}_bucket{{{labels},le="
    bounds = (*map(str, histogram.bounds), "+Inf")
    total = 0
    for bound, total, exemplar in zip(bounds, accumulate(histogram.counts), histogram.exemplars, strict=True):
        trace = exemplar_text(exemplar) if exemplars and exemplar is not None else ""
        out.append(f'{start}"{bound}"}} {total}{trace}\n')
    out.append(f"{name}_count{{{labels}}} {total}\n{name}_sum{{{labels}}} {decimal(histogram.sum_ns, 9)}\n")


def exemplar_text(exemplar: Exemplar) -> str:
    """
    Return what follows a bucket's count in OpenMetrics: the labels that fit, the value, the time.

    The trace leads to the rest, so long names are left out rather than cut: first the shard's, then the job's.

    >>> exemplar_text(Exemplar("nightly-1", "", 255, 0.5, 1_500_000_000))
    ' # {trace_id="000000000000000000000000000000ff",job_id="nightly-1"} 0.5 1.5'
    """
    pairs = [("trace_id", f"{exemplar.trace_id:032x}")]
    room = MAX_EXEMPLAR - len("trace_id") - 32
    for name, value in (("job_id", exemplar.job_id), ("shard_id", exemplar.shard_id)):
        if value and len(name) + len(value) <= room:
            pairs.append((name, value))
            room -= len(name) + len(value)
    labels = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)
    return f" # {{{labels}}} {exemplar.value!r} {decimal(exemplar.time_ns, 9)}"


def _value(figure: float, digits: int) -> str:
    """Return a number: an integer exactly, scaled by its unit; a float as the shortest text that reads back."""
    return decimal(figure, digits) if isinstance(figure, int) else repr(float(figure))
