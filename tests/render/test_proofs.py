"""The tests beside the rules: complete, accepted by the real promtool, and not to be satisfied with a broken rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mppobs.catalog.alerts import ALERTS, BY_NAME
from mppobs.model import Tier
from mppobs.render.causes import causes
from mppobs.render.everything import Options, generate
from mppobs.render.files import Format
from mppobs.render.leg_proofs import BURN, MULTIPLES, PROMISE, live
from mppobs.render.rules import Alerting, RuleSettings, groups
from mppobs.slo.diff import detection_seconds
from mppobs.slo.model import IndicatorKind, Slo
from mppobs.slo.timing import KEPT_SECONDS, reset_seconds
from mppobs.slo.windows import LEGS, Leg
from tests.servers import require, run


def _write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def _promtool(directory: Path, pattern: str = "*") -> tuple[int, str]:
    """Return how promtool ends on the proofs whose names match, and what it says."""
    tests = sorted(map(str, (directory / "tests").glob(f"{pattern}.yaml")))
    assert tests
    done = run([require("promtool", "prometheus"), "test", "rules", *tests])
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with everything that is generated."""
    settings = RuleSettings(dashboards_url="http://grafana", job="aggregators")
    return _write(tmp_path_factory.mktemp("proofs"), generate([], Options(rules=settings)))


def _tests(written: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((written / "tests").glob("*.yaml")):
        yield from yaml.safe_load(path.read_text())["tests"]


@pytest.mark.parametrize("pattern", ["Mpp[!S]*", "MppS[!l]*", "MppSlo*-[flm]*", "MppSlo*-[ps]*", "Watchdog"])
def test_every_rule_proves_itself(written: Path, pattern: str) -> None:
    """The real promtool runs every test file and finds every alert as it was foretold."""
    code, said = _promtool(written, pattern)
    assert code == 0, said


def test_every_alert_is_fired_and_kept_quiet(written: Path) -> None:
    """Each alert of the catalogue has a test at whose end it fires and one at whose end it does not."""
    fired, quiet = set(), set()
    for test in _tests(written):
        looks = test["alert_rule_test"]
        (fired if any(look["exp_alerts"] for look in looks) else quiet).add(looks[0]["alertname"])
    assert fired == BY_NAME.keys()
    assert quiet == BY_NAME.keys() - {"Watchdog"}, "the watchdog is what never keeps quiet"
    assert causes("x").keys() == BY_NAME.keys() - {BURN}


def test_every_variant_of_every_rule_is_fired(written: Path) -> None:
    """No generated rule is left out: each combination of labels that a rule adds arrives in some test."""
    rules = [rule for group in groups() for rule in group.rules if isinstance(rule, Alerting)]
    wanted = {(rule.alert.name, rule.severity.value, dict(rule.labels).get("leg")) for rule in rules}
    arrived = {
        (look["alertname"], alert["exp_labels"].get("severity", "ticket"), alert["exp_labels"].get("leg"))
        for test in _tests(written)
        for look in test["alert_rule_test"]
        for alert in look["exp_alerts"]
    }
    assert wanted == arrived


@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
@pytest.mark.parametrize("multiple", [0, 1, 2], ids=[what for what, _ in MULTIPLES])
def test_what_promtool_confirms_is_what_the_table_says(leg: Leg, multiple: int) -> None:
    """The lives that promtool runs change where `mppobs slo proof` says, a scrape and an evaluation later at most."""
    rate = MULTIPLES[multiple][1]
    slo = Slo("t", "n", IndicatorKind.SHARD_SUCCESS, PROMISE.objective, PROMISE.period_days, "p", tier=Tier.CRITICAL)
    life = live(leg, rate)
    on = [leg.name in legs for legs in life.legs]
    detection, reset = detection_seconds(slo, leg, rate), reset_seconds(slo, leg, rate)
    if detection is None or reset is None:
        assert not any(on)
        return
    begin, end = life.errors
    fired = life.samples[on.index(True)].time - begin
    released = life.samples[len(on) - on[::-1].index(True)].time - end
    assert detection < fired <= detection + 2 * life.step
    kept = -(-KEPT_SECONDS // life.step) * life.step
    assert released <= leg.short_seconds + kept + life.step
    assert reset - KEPT_SECONDS <= released


BREAKS = [
    ("mppobs-slo", "/ 180000", "/ 178000", "MppSloBurn-fast"),
    ("mppobs-slo", "/ 180000", "/ 182000", "MppSloBurn-fast"),
    ("mppobs-work", "> 0.2)", "> 0.22)", "MppRetryStorm"),
    ("mppobs-work", "> 0.2)", "> 0.18)", "MppRetryStorm"),
    ("mppobs-work", "for: 30s", "for: 15s", "MppCoordinatorDown"),
    ("mppobs-work", 'tier="critical"', 'tier=~"critical|standard"', "MppCriticalJobFailed"),
    ("mppobs-self", "The alerting pipeline works", "All is well", "Watchdog"),
]  # fmt: skip
"""A rule file, a text in it, what it is broken into, and the proof that must notice."""


@pytest.mark.parametrize(("group", "text", "broken", "proof"), BREAKS)
def test_a_broken_rule_fails_its_proof(tmp_path: Path, group: str, text: str, broken: str, proof: str) -> None:
    """A threshold, a wait, a selector or a text that somebody changes by hand is noticed."""
    files = generate([])
    path = f"rules/{group}.yaml"
    assert text in files[path]
    code, said = _promtool(_write(tmp_path, {**files, path: files[path].replace(text, broken)}), proof)
    assert code != 0
    assert "FAILED" in said


def test_proofs_are_for_prometheus_at_its_own_pace() -> None:
    """Other targets have no promtool, and scaled durations are proved by the drill itself."""
    for options in (Options(target=Format.KUBERNETES), Options(target=Format.RULER), Options(time_scale=720)):
        assert not [name for name in generate([], options) if name.startswith("tests/")]


def test_the_same_bytes_again() -> None:
    """Nothing in the proofs depends on chance or time."""
    assert generate([]) == generate([])
    assert len([name for name in generate([]) if name.startswith("tests/")]) == len(ALERTS) + len(LEGS)
