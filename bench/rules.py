"""
What rules cost a real Prometheus: one rule set for all SLOs against one rule set per SLO.

200 SLOs with three days of back-filled samples. The peer is the usual shape: per SLO eight ratio windows, seven
metadata rules and two alerts. Both are evaluated by the same Prometheus binary over the same samples, one after the
other, and the cost is the CPU time that Prometheus takes at the pace of the rules, less that of one without rules.

    python bench/rules.py [--slos 200] [--seconds 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from mppobs.render.files import Format, dump, rule_files
from mppobs.render.rules import INTERVAL as RULE_INTERVAL
from mppobs.render.rules import SLOW_INTERVAL, RuleSettings, groups
from mppobs.slo.windows import DAY

SCRAPE = 30
HASTE = 6
"""Rules are evaluated this many times as often as they would be, so that a run is short; the figures are put right."""
INTERVAL = RULE_INTERVAL // HASTE
SLOW = SLOW_INTERVAL // HASTE
TARGET = 20.0
PEER_ALERTS = (
    ("Page", (("5m", "1h", 14.4), ("30m", "6h", 6))),
    ("Ticket", (("2h", "1d", 3), ("6h", "3d", 1))),
)
RATIO_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")


def samples(slos: int, end: int) -> Iterator[str]:
    """Yield three days of every SLO's series, as scraped and as collapsed, in OpenMetrics."""
    chance = random.Random(5)
    times = range(end - 3 * DAY - 1800, end, SCRAPE)
    growth = [chance.randrange(1, 30) for _ in range(slos)]
    constant = {
        "mpp_slo_objective_ratio": 0.999, "mpp_slo_start_timestamp_seconds": end - 40 * DAY,
        "mpp_slo_period_seconds": 30 * DAY, "mpp_slo_latched": 0, "mpp_slo_provisional_bad_events": 0,
    }  # fmt: skip
    for name, scale in (("mpp_slo_events", 1.0), ("mpp_slo_bad_events", 0.0005)):
        for metric, label in ((f"{name}_total", ',instance="a"'), (f"slo:{name}:max", "")):
            yield f"# TYPE {metric} unknown\n"
            for slo in range(slos):
                for step, now in enumerate(times):
                    yield f'{metric}{{slo="team/s{slo}"{label}}} {int(step * growth[slo] * scale)} {now}\n'
    for metric, value in constant.items():
        yield f"# TYPE {metric} unknown\n"
        for slo in range(slos):
            for now in range(end - 600, end, SCRAPE):
                yield f'{metric}{{slo="team/s{slo}",instance="a"}} {value} {now}\n'
    yield "# TYPE mpp_slo_info unknown\n"
    for slo in range(slos):
        labels = (
            f'slo="team/s{slo}",instance="a",owner="o",tier="critical",pipeline="p{slo}",tenant="t",kind="job-success"'
        )
        for now in range(end - 600, end, SCRAPE):
            yield f"mpp_slo_info{{{labels}}} 1 {now}\n"
    yield "# EOF\n"


def per_slo_rules(slos: int) -> str:
    """Return the usual rule set: everything once per SLO."""
    out = []
    for slo in range(slos):
        own = f'slo="team/s{slo}"'
        bad, total = f"mpp_slo_bad_events_total{{{own}}}", f"mpp_slo_events_total{{{own}}}"
        ratios = [
            {"record": f"slo:sli_error:ratio_rate{window}", "labels": {"slo": f"team/s{slo}"},
             "expr": f"sum(rate({bad}[{window}])) / sum(rate({total}[{window}]))"}
            for window in RATIO_WINDOWS[:-1]
        ]  # fmt: skip
        base = f"slo:sli_error:ratio_rate5m{{{own}}}"
        ratios.append({"record": "slo:sli_error:ratio_rate30d", "labels": {"slo": f"team/s{slo}"},
                       "expr": f"sum_over_time({base}[30d]) / count_over_time({base}[30d])"})  # fmt: skip
        meta = {
            "slo:objective:ratio": "vector(0.999)", "slo:error_budget:ratio": "vector(1-0.999)",
            "slo:time_period:days": "vector(30)", "sloth_slo_info": "vector(1)",
            "slo:current_burn_rate:ratio": f"{base} / on() vector(1-0.999)",
            "slo:period_burn_rate:ratio": f"slo:sli_error:ratio_rate30d{{{own}}} / on() vector(1-0.999)",
            "slo:period_error_budget_remaining:ratio": f"1 - slo:period_burn_rate:ratio{{{own}}}",
        }  # fmt: skip
        metadata = [{"record": name, "expr": expr, "labels": {"slo": f"team/s{slo}"}} for name, expr in meta.items()]
        alerts = [
            {"alert": f"Burn{name}", "labels": {"slo": f"team/s{slo}"}, "expr": " or ".join(
                f"(max(slo:sli_error:ratio_rate{short}{{{own}}} > {factor} * 0.001) and "
                f"max(slo:sli_error:ratio_rate{long}{{{own}}} > {factor} * 0.001))" for short, long, factor in legs)}
            for name, legs in PEER_ALERTS
        ]  # fmt: skip
        for part, rules in (("ratios", ratios), ("metadata", metadata), ("alerts", alerts)):
            out.append({"name": f"{part}-{slo}", "interval": f"{INTERVAL}s", "rules": rules})
    return dump({"groups": out})


@contextmanager
def prometheus(directory: Path, rules: list[str]) -> Iterator[str]:
    """Run a Prometheus over the back-filled samples with some rules; yield its URL."""
    (directory / "rules").mkdir(parents=True)
    for number, text in enumerate(rules):
        (directory / "rules" / f"{number}.yaml").write_text(text)
    own = directory / "prometheus.yml"
    address = "127.0.0.1:19190"
    own.write_text(yaml.safe_dump({
        "rule_files": [f"{directory}/rules/*.yaml"],
        "scrape_configs": [{"job_name": "self", "scrape_interval": "1s", "static_configs": [{"targets": [address]}]}],
    }))  # fmt: skip
    command = ["prometheus", f"--config.file={own}", f"--storage.tsdb.path={directory}/data", "--log.level=error",
               "--storage.tsdb.retention.time=10y", f"--web.listen-address={address}"]  # fmt: skip
    child = subprocess.Popen(command)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        child.terminate()
        child.wait(20)


def cpu_per_minute(url: str, seconds: int) -> tuple[float, int]:
    """Return the CPU seconds that Prometheus takes per minute of its rules' own pace, and how many rules there are."""
    time.sleep(2 * SLOW)
    before, began = _cpu(url), time.monotonic()
    time.sleep(max(seconds // SLOW, 1) * SLOW)
    used, passed = _cpu(url) - before, time.monotonic() - began
    rules = json.load(urllib.request.urlopen(f"{url}/api/v1/rules", timeout=30))["data"]["groups"]
    bad = [rule for group in rules for rule in group["rules"] if rule["health"] == "err"]
    if bad:
        raise SystemExit(f"a rule fails: {bad[0]['name']}: {bad[0]['lastError']}")
    return used / passed * 60 / HASTE, sum(len(group["rules"]) for group in rules)


def _cpu(url: str) -> float:
    """Return the CPU time of a Prometheus so far, from its own metrics."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("process_cpu_seconds_total "))


def main() -> None:
    """Measure both, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slos", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=30, help="how long each side is watched")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    options = parser.parse_args()
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{missing[0]} is not installed: apt-get install prometheus")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with (root / "history.om").open("w") as file:
            file.writelines(samples(options.slos, int(time.time())))
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=768h"]
        subprocess.run([*command, str(root / "history.om"), str(root / "data")], check=True)
        settings = RuleSettings()
        work = [
            replace(group, interval=group.interval // HASTE)
            for group in groups(settings)
            if group.name.startswith("mppobs-slo")
        ]
        found = {}
        ours_rules = list(rule_files(work, settings, Format.PROMETHEUS).values())
        for side, rules in (("idle", []), ("ours", ours_rules), ("peer", [per_slo_rules(options.slos)])):
            shutil.copytree(root / "data", root / side / "data")
            with prometheus(root / side, rules) as url:
                found[side] = cpu_per_minute(url, options.seconds)
    idle = found["idle"][0]
    ours, our_rules = found["ours"][0] - idle, found["ours"][1]
    peer, peer_rules = found["peer"][0] - idle, found["peer"][1]
    ratio = peer / ours
    if options.json:
        print(json.dumps({"figure": f"rule evaluation, {options.slos} SLOs", "value": ours, "unit": "CPU s/min",
                          "peer": peer, "ratio": ratio, "target": TARGET, "met": ratio >= TARGET}))  # fmt: skip
    else:
        print(f"{options.slos} SLOs     rules   CPU per minute")
        print(f"  ours     {our_rules:>7}   {ours * 1e3:>10.1f} ms")
        print(f"  per SLO  {peer_rules:>7}   {peer * 1e3:>10.1f} ms")
        print(f"  {ratio:.1f} × cheaper (target: {TARGET:g} ×)")


if __name__ == "__main__":
    main()
