"""What a notification will say, held against the real promtool for figures of every size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mppobs.render.filling import fill
from tests.servers import require, run

VALUES = (
    0, 1, -1, 0.5, -0.25, 14.4, 59.99, 60, 61, 3599, 3600, 3661.7, 86400, 90061, -7325, 999, 1000, 999999, 1234567,
    5e9, 3.2e13, 0.0312, 0.00047, 1e-7, 2 / 3,
)  # fmt: skip
TEXT = (
    "{{ $labels.slo }} {{ $labels.slo | urlquery }} {{ $labels.none }}: "
    "{{ $value | humanize }}, {{ $value | humanizeDuration }}, {{ $value | humanizePercentage }}"
)


def test_texts_are_filled_in_as_prometheus_does(tmp_path: Path) -> None:
    """Numbers, durations, percentages, and labels that are there and that are not."""
    rule = {"alert": "A", "expr": "x", "annotations": {"text": TEXT}}
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "g", "rules": [rule]}]}))
    series = [{"series": f'x{{slo="s {index}/ä&~"}}', "values": f"{value:.17g}"} for index, value in enumerate(VALUES)]
    expected = [
        {"exp_labels": labels, "exp_annotations": {"text": fill(TEXT, labels, value)}}
        for index, value in enumerate(VALUES)
        for labels in ({"slo": f"s {index}/ä&~"},)
    ]
    look = {"eval_time": "0s", "alertname": "A", "exp_alerts": expected}
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [look]}
    (tmp_path / "test.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "tests": [test]}))
    done = run([require("promtool", "prometheus"), "test", "rules", str(tmp_path / "test.yaml")])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("action", ["$value", "$value | printf", "if $value", "$externalLabels.x"])
def test_what_the_catalogue_does_not_use_is_refused(action: str) -> None:
    """A template that is not understood is an error at generation, not a wrong proof."""
    with pytest.raises(ValueError, match="no such template action"):
        fill(f"{{{{ {action} }}}}", {}, 1)
