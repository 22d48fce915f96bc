"""
Unit tests for the generated rules, in promtool's own format: whoever edits a rule by hand learns what it broke.

Each alert has tests that fire it, with every label and annotation that will arrive, and tests that keep it quiet just
below its threshold. The inputs are in `mppobs.render.causes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mppobs.catalog.alerts import ALERTS, Alert
from mppobs.model import Severity, Tier
from mppobs.render.causes import WHERE, Case, Cause, Line, causes
from mppobs.render.expressions import BY_PIPELINE
from mppobs.render.files import Plain, alert_annotations, alert_labels, dump
from mppobs.render.filling import fill
from mppobs.render.rules import Alerting, RuleSettings, groups

_OWNER: Final = "scoring"


def proofs(settings: RuleSettings) -> dict[str, str]:
    """
    Return the text of a test file per alert, by its path below the output directory.

    SLO burn is proved by `mppobs.render.leg_proofs`. Durations must not be scaled: tests of drills are the drills.

    >>> sorted(proofs(RuleSettings()))[0]
    'tests/MppCheckpointStale.yaml'
    """
    table = causes(settings.job)
    rules = [rule for group in groups(settings) for rule in group.rules if isinstance(rule, Alerting)]
    files = {}
    for alert in ALERTS:
        if alert.name in table:
            own = [rule for rule in rules if rule.alert is alert]
            files[f"tests/{alert.name}.yaml"] = dump(_file(own, table[alert.name], settings))
    return files


def seconds(count: int) -> str:
    """Return seconds as promtool takes them."""
    return f"{count}s"


def series(name: str, labels: Mapping[str, str], values: str) -> Plain:
    """
    Return an input series.

    >>> series("up", {"job": "a"}, "1+0x5")
    {'series': 'up{job="a"}', 'values': '1+0x5'}
    """
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def expected(rule: Alerting, labels: Mapping[str, str], value: float, settings: RuleSettings) -> Plain:
    """Return an alert as it will arrive: its rule's labels over those of its series, and its texts filled in."""
    texts = alert_annotations(rule, settings)
    return {
        "exp_labels": {**labels, **alert_labels(rule)},
        "exp_annotations": {key: fill(text, labels, value) for key, text in texts.items()},
    }


def check(time: int, alert: str, alerts: Sequence[Plain]) -> Plain:
    """Return what must fire under a name at a time, and nothing else."""
    return {"eval_time": seconds(time), "alertname": alert, "exp_alerts": list(alerts)}


def _file(rules: Sequence[Alerting], cause: Cause, settings: RuleSettings) -> Plain:
    """Return the tests of one alert: every case, for each severity that it has."""
    alert = rules[0].alert
    last = max(_firing_at(case, alert, cause.pace) for case in cause.cases if case.fires)
    return {
        "rule_files": [f"../rules/{alert.group}.yaml"],
        "evaluation_interval": seconds(cause.pace),
        "tests": [
            _test(case, _of(rules, alert.severity) if case.ticket else rule, tier, cause, last, settings)
            for rule, tier in _variants(rules)
            for case in cause.cases
        ],
    }


def _variants(rules: Sequence[Alerting]) -> Iterator[tuple[Alerting, Tier]]:
    """Yield the rule that is meant for a tier, for each tier that makes a difference."""
    alert = rules[0].alert
    wanted: dict[Severity, Tier] = {alert.severity: Tier.STANDARD}
    if alert.critical_severity is not None:
        wanted[alert.critical_severity] = Tier.CRITICAL
    for severity, tier in wanted.items():
        yield _of(rules, severity), tier


def _of(rules: Sequence[Alerting], severity: Severity) -> Alerting:
    """Return the rule of a severity."""
    return next(rule for rule in rules if rule.severity is severity)


def _firing_at(case: Case, alert: Alert, step: int) -> int:
    """Return the first evaluation at which an alert that waits as long as it should fires for sure."""
    waited = case.since + -(-alert.for_seconds // step) * step
    return waited if case.sharp else waited + step


def _test(case: Case, rule: Alerting, tier: Tier, cause: Cause, last: int, settings: RuleSettings) -> Plain:
    """Return the test of one case; one that stays quiet is looked at when the others have long fired."""
    alert = rule.alert
    steps = last // cause.step + 2
    owned = alert.name in BY_PIPELINE
    inputs = [series(line.name, line.labels, _values(line, steps)) for line in case.lines]
    whose = {"owner": _OWNER, "tier": tier.value} if owned else {}
    if owned:
        inputs.append(series("mpp_pipeline_info", {**WHERE, **whose}, f"1+0x{steps}"))
    checks = [check(last + cause.pace, alert.name, [])]
    if case.fires:
        now = _firing_at(case, alert, cause.pace)
        value = float(case.value) + (now if case.grows else 0)
        checks = [check(now, alert.name, [expected(rule, {**case.labels, **whose}, value, settings)])]
        if case.sharp and now:
            checks.insert(0, check(now - cause.pace, alert.name, []))
    name = f"{alert.name}, {tier.value}: {case.what}"
    return {"name": name, "interval": seconds(cause.step), "input_series": inputs, "alert_rule_test": checks}


def _values(line: Line, steps: int) -> str:
    """Return a line in promtool's notation, `start+growth×steps` for each piece."""
    value, texts, left = line.start, [], steps
    pieces = line.pieces or ((0, 0),)
    for index, (growth, count) in enumerate(pieces):
        first = value if index == 0 else value + growth
        size = left if index == len(pieces) - 1 else count
        texts.append(f"{float(first):.12g}+{float(growth):.12g}x{size}")
        value, left = first + growth * size, left - size - 1
    return " ".join(texts)
