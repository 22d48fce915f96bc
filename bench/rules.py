"""
What rules cost a real Prometheus: one rule set for all SLOs against one rule set per SLO.

200 SLOs with three days of back-filled samples, which go on being scraped. The peer is the usual shape: per SLO eight
ratio windows, seven metadata rules and two alerts. Both are evaluated by the same Prometheus binary over the same
samples, in turns, and the cost is the CPU time that Prometheus takes at the pace of the rules, less that of one without
rules. An evaluation that a busy machine left out is not counted as cheap: what is measured is CPU per evaluation.

    python bench/rules.py [--slos 200] [--rounds 3] [--json]
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from report import Figure, options, report

from mppobs.render.files import Format, Plain, dump, rule_files
from mppobs.render.rules import INTERVAL as RULE_INTERVAL
from mppobs.render.rules import SLOW_INTERVAL, Group, RuleSettings, groups
from mppobs.slo.windows import DAY

SCRAPE = 30
HASTE = 6
"""Rules are evaluated this many times as often as they would be, so that a run is short; the figures are put right."""
INTERVAL = RULE_INTERVAL // HASTE
SLOW = SLOW_INTERVAL // HASTE
INSTANCE = 'instance="a",job="slos"'
PATIENCE = 180
"""Seconds for rules to find all that they need."""
TARGET = 20.0
"""How many times as much as ours the peer's rules cost."""
PEER_ALERTS = (
    ("Page", (("5m", "1h", 14.4), ("30m", "6h", 6))),
    ("Ticket", (("2h", "1d", 3), ("6h", "3d", 1))),
)
RATIO_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")


@dataclass(frozen=True)
class Estate:
    """SLOs that see events evenly, from a time on."""

    slos: int
    begin: int

    def counters(self) -> Iterator[tuple[str, str, float]]:
        """Yield name, SLO and growth per scrape of every counter, those of a name together."""
        chance = random.Random(5)
        growth = [chance.randrange(1, 30) for _ in range(self.slos)]
        for name, scale in (("mpp_slo_bad_events", 0.0005), ("mpp_slo_events", 1.0)):
            for slo in range(self.slos):
                yield name, f"team/s{slo}", growth[slo] * scale

    def exposed(self, now: float) -> Iterator[str]:
        """Yield what an aggregator shows at a time."""
        constant = {
            "mpp_slo_objective_ratio": 0.999, "mpp_slo_start_timestamp_seconds": self.begin - 40 * DAY,
            "mpp_slo_period_seconds": 30 * DAY, "mpp_slo_latched": 0, "mpp_slo_provisional_bad_events": 0,
        }  # fmt: skip
        for name, slo, growth in self.counters():
            yield f'{name}_total{{slo="{slo}"}} {int((now - self.begin) / SCRAPE * growth)}\n'
        for slo in (f"team/s{number}" for number in range(self.slos)):
            yield from (f'{metric}{{slo="{slo}"}} {value}\n' for metric, value in constant.items())
            who = f'slo="{slo}",owner="o",tier="critical",pipeline="p",tenant="t",kind="job-success"'
            yield f"mpp_slo_info{{{who}}} 1\n"

    def history(self, end: int) -> Iterator[str]:
        """Yield three days of every counter, as scraped and as collapsed, in OpenMetrics, one series after another."""
        family = ""
        for record, labels in (("{name}_total", f",{INSTANCE}"), ("slo:{name}:max", "")):
            for counter, slo, growth in self.counters():
                name = record.format(name=counter)
                if name != family:
                    family = name
                    yield f"# TYPE {name} unknown\n"
                key = f'{name}{{slo="{slo}"{labels}}}'
                for step, now in enumerate(range(self.begin, end, SCRAPE)):
                    yield f"{key} {int(step * growth)} {now}\n"
        yield "# EOF\n"


@contextmanager
def aggregator(estate: Estate) -> Iterator[str]:
    """Serve what the SLOs show until the block ends; yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = "".join(estate.exposed(time.time())).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def per_slo_rules(slos: int) -> str:
    """Return the usual rule set: everything once per SLO."""
    out: list[Plain] = []
    for slo in range(slos):
        own = f'slo="team/s{slo}"'
        bad, total = f"mpp_slo_bad_events_total{{{own}}}", f"mpp_slo_events_total{{{own}}}"
        ratios: list[Plain] = [
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
        metadata: list[Plain] = [
            {"record": name, "expr": expr, "labels": {"slo": f"team/s{slo}"}} for name, expr in meta.items()
        ]
        alerts: list[Plain] = [
            {"alert": f"Burn{name}", "labels": {"slo": f"team/s{slo}"}, "expr": " or ".join(
                f"(max(slo:sli_error:ratio_rate{short}{{{own}}} > {factor} * 0.001) and "
                f"max(slo:sli_error:ratio_rate{long}{{{own}}} > {factor} * 0.001))" for short, long, factor in legs)}
            for name, legs in PEER_ALERTS
        ]  # fmt: skip
        for part, rules in (("ratios", ratios), ("metadata", metadata), ("alerts", alerts)):
            out.append({"name": f"{part}-{slo}", "interval": f"{INTERVAL}s", "rules": rules})
    return dump({"groups": out})


@contextmanager
def prometheus(directory: Path, rules: Sequence[str], target: str) -> Iterator[str]:
    """Run a Prometheus over the back-filled samples with some rules; yield its URL."""
    (directory / "rules").mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(rules):
        (directory / "rules" / f"{number}.yaml").write_text(text)
    own, address = directory / "prometheus.yml", f"127.0.0.1:{_free_port()}"
    slos = {"job_name": "slos", "static_configs": [{"targets": [target], "labels": {"instance": "a"}}]}
    own.write_text(yaml.safe_dump({
        "global": {"scrape_interval": f"{SCRAPE // HASTE}s"},
        "rule_files": [f"{directory}/rules/*.yaml"], "scrape_configs": [slos],
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
        child.terminate()  # it finishes the evaluation that it is at, which takes the peer's rules a while
        try:
            child.wait(120)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Side:
    """One of the rule sets that are compared."""

    rules: Sequence[str] = ()
    count: int = 0
    due: float = 0.0
    """Evaluations of single rules per minute, at the pace that the set is meant for."""
    result: str = ""
    """A series that every SLO has when all rules work."""


def side(work: Sequence[Group], result: str) -> Side:
    """Return our rules, in haste."""
    settings = RuleSettings()
    hasty = [replace(group, interval=group.interval // HASTE) for group in work]
    texts = list(rule_files(hasty, settings, Format.PROMETHEUS).values())
    due = sum(len(group.rules) * 60 / group.interval for group in work)
    return Side(texts, sum(len(group.rules) for group in work), due, result)


def watch(url: str) -> tuple[float, float, float]:
    """Return how long a Prometheus was watched, the CPU time that it took, and how many rules it evaluated."""
    time.sleep(5)
    before, began = _figures(url), time.monotonic()
    time.sleep(SLOW)
    after, passed = _figures(url), time.monotonic() - began
    cpu, done = (
        after.get(name, 0.0) - before.get(name, 0.0)
        for name in ("process_cpu_seconds_total", "prometheus_rule_evaluations_total")
    )
    return passed, cpu, done


def settle(url: str, what: Side, slos: int) -> None:
    """Wait until the rules have something to say of every SLO. Raises SystemExit where that takes minutes."""
    query = urllib.parse.urlencode({"query": f"count({what.result})"})
    for _ in range(PATIENCE):
        answer = json.load(urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=60))
        if [series["value"][1] for series in answer["data"]["result"]] == [str(slos)]:
            return
        time.sleep(1)
    raise SystemExit(f"{what.result} is not there for every SLO after {PATIENCE} s")


def check(url: str) -> None:
    """Raise SystemExit where a rule fails: that would be cheap."""
    answer = json.load(urllib.request.urlopen(f"{url}/api/v1/rules", timeout=60))["data"]["groups"]
    bad = [rule for group in answer for rule in group["rules"] if rule["health"] == "err"]
    if bad:
        raise SystemExit(f"a rule fails: {bad[0]['name']}: {bad[0]['lastError']}")


def _figures(url: str) -> Mapping[str, float]:
    """Return what a Prometheus says of itself: sums over the labels, by name."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=60).read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith(("process_cpu_seconds_total", "prometheus_rule_evaluations_total")):
            name = line.partition("{")[0].partition(" ")[0]
            found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
    return found


def measure(root: Path, slos: int, rounds: int) -> tuple[float, float, int, int]:
    """Return the CPU per minute of ours and of the peer, as medians of rounds in turns, and how many rules each has."""
    now = int(time.time())
    estate = Estate(slos, now - 3 * DAY - 1800)
    with (root / "history.om").open("w") as file:
        file.writelines(estate.history(now))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=768h"]
    subprocess.run([*command, str(root / "history.om"), str(root / "data")], check=True)
    ours = side([group for group in groups() if group.name.startswith("mppobs-slo")], "slo:mpp_slo_burn_rate:ratio_3d")
    each = len(RATIO_WINDOWS) + 9
    peer = Side([per_slo_rules(slos)], slos * each, slos * each * 60 / RULE_INTERVAL, "slo:sli_error:ratio_rate3d")
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    with aggregator(estate) as target:
        for name in ("idle", *found):
            shutil.copytree(root / "data", root / name / "data")
        with prometheus(root / "idle", (), target) as url:
            passed, cpu, _ = watch(url)
        idle = cpu / passed
        for _ in range(rounds):
            for name, what in (("ours", ours), ("peer", peer)):
                with prometheus(root / name, what.rules, target) as url:
                    settle(url, what, slos)
                    passed, cpu, done = watch(url)
                    check(url)
                found[name].append((cpu - idle * passed) / done * what.due)
    return statistics.median(found["ours"]), statistics.median(found["peer"]), ours.count, peer.count


def main() -> int:
    """Measure and print; return 1 where the target is missed."""
    parser = options(__doc__)
    parser.add_argument("--slos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is watched")
    given = parser.parse_args()
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{missing[0]} is not installed: apt-get install prometheus")
    with tempfile.TemporaryDirectory() as name:
        ours, peer, our_rules, peer_rules = measure(Path(name), given.slos, given.rounds)
    slos = f"{given.slos} SLOs"
    found = (
        Figure(f"rules, {slos}", our_rules, "rules", peer_rules),
        Figure(f"rule evaluation, {slos}", ours, "CPU s/min", peer, 1 / TARGET, of_ratio=True),
    )
    return report(found, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
