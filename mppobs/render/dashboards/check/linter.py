"""
The seventeen rules of Grafana's dashboard-linter, under its own names.

The original is a Go program; these follow its documentation, and apply the rules about queries to every kind of panel,
where it leaves out heatmaps and bar gauges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

import grafanalib.formatunits as formatunits
import promql_parser as promql

from mppobs.render.dashboards.check.findings import Problem, Rule, Target, panels, targets, variables
from mppobs.render.dashboards.fields import Json
from mppobs.render.dashboards.interpolate import sample

UNITS: Final = frozenset(
    str(value) for name, value in vars(formatunits).items() if name.isupper() and isinstance(value, str)
)
_PREFIXED: Final = ("suffix:", "prefix:", "time:", "currency:", "si:", "count:")
"""Units that carry a text of their own."""
_UNIT_KINDS: Final = ("stat", "timeseries", "table", "gauge", "bargauge", "heatmap")
_LABEL_VALUES: Final = re.compile(r"(?:label_values\((.*), \w+\)|query_result\((.*)\)|metrics\(.*\)|label_names\(\))")
_COUNTING: Final = ("rate", "irate", "increase")


def _template_datasource(dashboard: Json) -> Iterator[Problem]:
    """There is a variable for the data source, called as everybody calls it."""
    found = [variable for variable in variables(dashboard) if variable["type"] == "datasource"]
    if not found:
        yield "", "no variable chooses the data source"
    for variable in found:
        allowed = {f"{variable['query']}_datasource"} | ({"datasource"} if len(found) == 1 else set())
        if variable["name"] not in allowed or variable.get("label") != "Data source":
            yield "", f"variable {variable['name']}: call it {' or '.join(sorted(allowed))}, labelled 'Data source'"


def _template(name: str) -> Rule:
    """Return the rule that there is a variable for a label of every scrape."""

    def rule(dashboard: Json) -> Iterator[Problem]:
        found = next((variable for variable in variables(dashboard) if variable["name"] == name), None)
        if found is None:
            yield "", f"no variable {name!r}"
            return
        wanted = {"type": "query", "label": name.capitalize(), "multi": True, "allValue": ".+"}
        for key, value in wanted.items():
            if found.get(key) != value:
                yield "", f"variable {name}: {key} is {found.get(key)!r}, not {value!r}"
        if found.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
            yield "", f"variable {name}: it does not ask the chosen data source"

    return rule


def _template_promql(dashboard: Json) -> Iterator[Problem]:
    """What a variable asks is PromQL."""
    names = [variable["name"] for variable in variables(dashboard)]
    for variable in variables(dashboard):
        if variable["type"] != "query":
            continue
        text = sample(variable["query"], names)
        found = _LABEL_VALUES.fullmatch(text)
        if found is None:
            yield "", f"variable {variable['name']}: {text!r} is no label_values, metrics or query_result"
        elif inner := found[1] or found[2]:
            yield from (("", f"variable {variable['name']}: {wrong}") for wrong in _syntax(inner))


def _template_reload(dashboard: Json) -> Iterator[Problem]:
    """What a variable offers follows the time range."""
    for variable in variables(dashboard):
        if variable["type"] == "query" and variable.get("refresh") != 2:
            yield "", f"variable {variable['name']}: refresh is {variable.get('refresh')}, not 2"


def _target_matcher(name: str) -> Rule:
    """Return the rule that every selector follows a variable."""

    def rule(dashboard: Json) -> Iterator[Problem]:
        wanted = f'{name}=~"${name}"'
        for target in targets(dashboard):
            for selector in selectors(target):
                if wanted not in _written(target, selector):
                    yield target.where, f"query {target.letter}: {selector.name} is not narrowed by {wanted}"

    return rule


def _no_logql(dashboard: Json) -> Iterator[Problem]:
    """No query goes to a log store: there is no LogQL that could be wrong."""
    for where, panel in panels(dashboard):
        kinds = {target.get("datasource", {}).get("type") for target in panel.get("targets", [])}
        if kinds - {"prometheus"}:
            yield where, f"queries for {', '.join(sorted(str(kind) for kind in kinds))}: only prometheus is checked"


def _logql_auto(dashboard: Json) -> Iterator[Problem]:
    """No query uses the automatic range of LogQL, which PromQL does not have."""
    for target in targets(dashboard):
        if "[$__auto]" in target.written:
            yield target.where, f"query {target.letter}: $__auto is for LogQL"


def _panel_datasource(dashboard: Json) -> Iterator[Problem]:
    """Panels ask the data source that was chosen."""
    for where, panel in panels(dashboard):
        if panel.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
            yield where, "it does not ask the chosen data source"


def _panel_words(dashboard: Json) -> Iterator[Problem]:
    """Panels have a title, and a description that says more than it."""
    for where, panel in panels(dashboard):
        for key in ("title", "description"):
            if not panel.get(key):
                yield where, f"it has no {key}"


def _panel_units(dashboard: Json) -> Iterator[Problem]:
    """Panels with numbers say their unit, and it is one that Grafana knows."""
    for where, panel in panels(dashboard):
        config = panel.get("fieldConfig", {})
        properties = [each for override in config.get("overrides", []) for each in override["properties"]]
        units = [config.get("defaults", {}).get("unit", "")]
        units += [str(each["value"]) for each in properties if each["id"] == "unit"]
        given = [unit for unit in units if unit]
        if panel["type"] in _UNIT_KINDS and not given and not config.get("defaults", {}).get("mappings"):
            yield where, "it has no unit"
        for unit in given:
            if unit not in UNITS and not unit.startswith(_PREFIXED):
                yield where, f"{unit!r} is no unit that Grafana knows"


def _panel_targets(dashboard: Json) -> Iterator[Problem]:
    """Panels ask something."""
    for where, panel in panels(dashboard):
        if not any(target.get("expr") for target in panel.get("targets", [])):
            yield where, "it asks nothing"


def _target_promql(dashboard: Json) -> Iterator[Problem]:
    """Queries parse."""
    for target in targets(dashboard):
        yield from ((target.where, f"query {target.letter}: {wrong}") for wrong in _syntax(target.promql))


def _target_rate_interval(dashboard: Json) -> Iterator[Problem]:
    """Rates are taken over Grafana's own interval, which never misses a scrape."""
    for target in targets(dashboard):
        for found in re.finditer(r"\bi?rate\([^\[\]]*\[([^\]]*)\]", target.written):
            if found[1] != "$__rate_interval":
                yield target.where, f"query {target.letter}: a rate over [{found[1]}], not [$__rate_interval]"


def _target_counter(dashboard: Json) -> Iterator[Problem]:
    """Counters are never shown as they are: only how they grow means something."""
    for target in targets(dashboard):
        for selector, above in with_parents(target.promql):
            inside = any(isinstance(each, promql.Call) and each.func.name in _COUNTING for each in above)
            if (selector.name or "").endswith("_total") and not inside and not is_difference(above):
                yield target.where, f"query {target.letter}: {selector.name} is a counter: take its rate or increase"


def _uneditable(dashboard: Json) -> Iterator[Problem]:
    """Nobody edits by hand what is generated."""
    if dashboard.get("editable") is not False:
        yield "", "editable is not false"


LINTER: Final[Mapping[str, Rule]] = {
    "template-datasource-rule": _template_datasource,
    "template-job-rule": _template("job"),
    "template-instance-rule": _template("instance"),
    "template-label-promql-rule": _template_promql,
    "template-on-time-change-reload-rule": _template_reload,
    "target-job-rule": _target_matcher("job"),
    "target-instance-rule": _target_matcher("instance"),
    "target-logql-rule": _no_logql,
    "target-logql-auto-rule": _logql_auto,
    "panel-datasource-rule": _panel_datasource,
    "panel-title-description-rule": _panel_words,
    "panel-units-rule": _panel_units,
    "panel-no-targets-rule": _panel_targets,
    "target-promql-rule": _target_promql,
    "target-rate-interval-rule": _target_rate_interval,
    "target-counter-agg-rule": _target_counter,
    "uneditable-dashboard": _uneditable,
}


def selectors(target: Target) -> Iterator[promql.VectorSelector]:
    """Yield every selector of a query; none where it does not parse, which another rule tells."""
    yield from (selector for selector, _ in with_parents(target.promql))


@lru_cache(maxsize=1024)
def with_parents(text: str) -> tuple[tuple[promql.VectorSelector, tuple[promql.Expr, ...]], ...]:
    """Return every selector of a query with what stands around it, the outermost first."""
    found: list[tuple[promql.VectorSelector, tuple[promql.Expr, ...]]] = []
    above: list[promql.Expr] = []

    def down(node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append((node, tuple(above)))
        above.append(node)
        return True

    def up(_node: promql.Expr) -> bool:
        above.pop()
        return True

    if not _syntax(text):
        promql.walk(promql.parse(text), down, up)
    return tuple(found)


def is_difference(above: tuple[promql.Expr, ...]) -> bool:
    """
    Return whether a counter stands in a count now less the same count then, which is how sparse ones are read.

    >>> [is_difference(above) for _, above in with_parents("a_total - (a_total offset 5m or a_total * 0)")]
    [True, True, True]
    """
    return any(
        isinstance(node, promql.BinaryExpr) and str(node.op) == "-" and _same_counter(node.lhs, node.rhs)
        for node in above
    )


def _same_counter(left: promql.Expr, right: promql.Expr) -> bool:
    names = [{each.name for each, _ in with_parents(side.prettify())} for side in (left, right)]
    return len(names[0]) == 1 and names[0] == names[1] and "offset" in right.prettify()


def _written(target: Target, selector: promql.VectorSelector) -> str:
    """Return the matchers of a metric as they were written, before variables were replaced."""
    found = re.findall(rf"{re.escape(selector.name or '')}\{{([^}}]*)\}}", target.written)
    return found[0] if found else ""


def _syntax(text: str) -> list[str]:
    try:
        promql.parse(text)
    except ValueError as error:
        return [f"{error}: {text}"]
    return []
