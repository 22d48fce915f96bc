"""A synthetic estate: the same bytes for the same seed, journals that a sidecar reads, series that Prometheus takes."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mppobs.catalog.metrics import BY_NAME
from mppobs.clock import ManualClock
from mppobs.cost.prices import NodePrice, PriceList
from mppobs.errors import ConfigError
from mppobs.executor.faults import parse_faults
from mppobs.executor.sim.estate import START_NS, Summary, pipelines, simulate_estate, slo_yaml
from mppobs.executor.sim.model import Cluster
from mppobs.model import AttemptOutcome, CostKind, JobOutcome, ShardOutcome
from mppobs.sidecar.aggregator import open_engine
from mppobs.sidecar.store import LoadedTotals
from mppobs.slo.spec import load_spec
from tests.servers import require

DAYS = 2
CLUSTER = Cluster(nodes=3, lanes=8)
FAULTS = ("retry-storm:severity=0.02,at=3h,for=2h", "node-loss:severity=0.3,at=1d,for=10m")
LINE = re.compile(r"(mpp_\w+)\{(.*)\} (\S+) (\d+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def make(out: Path | None, seed: int = 7) -> Summary:
    """Simulate a small estate for two days in which something goes wrong."""
    return simulate_estate(
        pipelines(4, seed), days=DAYS, seed=seed, cluster=CLUSTER, faults=parse_faults(FAULTS), out=out, step=900
    )


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """Return the directory of an estate, and what came of it."""
    out = tmp_path_factory.mktemp("estate")
    return out, make(out)


@pytest.fixture(scope="module")
def totals(estate: tuple[Path, Summary], tmp_path_factory: pytest.TempPathFactory) -> LoadedTotals:
    """Return what a sidecar adds up from the estate's journals, some minutes after its end."""
    clock = ManualClock(START_NS + (DAYS + 1) * 86_400 * 10**9)
    machines = CLUSTER
    prices = PriceList(NodePrice(machines.usd_per_hour, machines.spot_usd_per_hour))
    engine = open_engine(tmp_path_factory.mktemp("state"), [estate[0] / "journals"], clock=clock, prices=prices)
    for _ in range(30):
        clock.advance(seconds=30)
        engine.tick()
    found = engine.store.totals()
    engine.close()
    return found


@pytest.fixture(scope="module")
def last(estate: tuple[Path, Summary]) -> Values:
    """Return the last value of every series; fails where time goes back or a family is in two places."""
    values: Values = {}
    for path in sorted((estate[0] / "metrics").iterdir()):
        *lines, end = path.read_text().splitlines()
        assert end == "# EOF"
        families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
        assert sorted(set(families)) == families
        times: dict[str, int] = {}
        for line in lines:
            if not line.startswith("#"):
                name, labels, value, time = LINE.fullmatch(line).groups()  # type: ignore[union-attr]
                assert times.get(name + labels, 0) < int(time)
                times[name + labels] = int(time)
                values[name, tuple(sorted(LABEL.findall(labels)))] = float(value)
    return values


def digest(directory: Path) -> str:
    """Return a digest of the names and the bytes of all files below a directory."""
    state = hashlib.blake2b()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            state.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def summed(values: Values, name: str, label: str) -> Counter[str]:
    """Return a metric's values, summed by one label."""
    sums: Counter[str] = Counter()
    for (metric, labels), value in values.items():
        if metric == name and value:
            sums[dict(labels).get(label, "")] += round(value)
    return sums


def test_the_same_seed_writes_the_same_bytes(estate: tuple[Path, Summary], tmp_path: Path) -> None:
    """Journals and series are equal to the last byte, and another seed's are not."""
    make(tmp_path / "again")
    make(tmp_path / "other", seed=8)

    assert digest(tmp_path / "again") == digest(estate[0])
    assert digest(tmp_path / "other") != digest(estate[0])


def test_a_directory_takes_one_simulation(estate: tuple[Path, Summary]) -> None:
    """A second one is refused before anything is written."""
    with pytest.raises(ConfigError, match="is there already"):
        make(estate[0])


def test_something_happens(estate: tuple[Path, Summary]) -> None:
    """Every pipeline runs every day; faults leave retries; and writing changes nothing of the history."""
    summary = estate[1]
    silent = make(None)

    assert summary.jobs == 4 * DAYS
    assert summary.retries > 0
    assert summary.samples > 1000
    assert (silent.attempts, silent.events, silent.attempt_usd) == (
        summary.attempts,
        summary.events,
        summary.attempt_usd,
    )


def test_a_sidecar_adds_up_the_same(last: Values, totals: LoadedTotals) -> None:
    """Attempts, shards, retries and jobs of the series are those that the fold counts in the journals, by outcome."""
    attempts: Counter[str] = Counter()
    shards: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    for stage in totals.stages.values():
        attempts.update({str(outcome): count for outcome, count in stage.attempts.items()})
        shards.update({str(outcome): count for outcome, count in stage.shards.items()})
    for pipeline in totals.pipelines.values():
        jobs.update({str(outcome): count for outcome, count in pipeline.jobs.items()})

    assert summed(last, "mpp_attempts_total", "outcome") == +attempts
    assert summed(last, "mpp_shards_total", "outcome") == +shards
    assert summed(last, "mpp_jobs_total", "outcome") == +jobs
    assert attempts[AttemptOutcome.ERROR] > 0
    assert shards[ShardOutcome.COMMITTED] > 0
    assert jobs[JobOutcome.SUCCESS] == 4 * DAYS
    assert sum(summed(last, "mpp_retries_total", "stage").values()) == sum(s.retries for s in totals.stages.values())


def test_a_sidecar_charges_the_same(last: Values, totals: LoadedTotals) -> None:
    """The cost of every pipeline, by what the money bought, is the fold's, to the rounding of its picodollars."""
    for key, pipeline in totals.pipelines.items():
        for kind in (CostKind.USEFUL, CostKind.RETRY):
            labels = {"cluster": "sim", "tenant": key.tenant, "pipeline": key.pipeline, "kind": str(kind)}
            value = last["mpp_cost_usd_total", tuple(sorted(labels.items()))]
            assert value == pytest.approx(pipeline.cost_pusd[kind] / 1e12, rel=1e-6, abs=1e-9)


def test_no_record_is_nonsense(totals: LoadedTotals) -> None:
    """Every record that the simulation wrote is one that the fold understands, in time."""
    assert totals.own.invalid == {}
    assert sum(totals.own.late.values()) == 0


def test_series_are_those_of_the_catalogue(last: Values) -> None:
    """Every name and every label is in the catalogue; time goes one way, as `last` has found."""
    for name, labels in last:
        family = name
        for ending in ("_bucket", "_sum", "_count"):
            family = family.removesuffix(ending) if family not in BY_NAME else family
        assert set(dict(labels)) - {"le"} == set(BY_NAME[family].labels)


def test_the_promises_can_be_loaded(tmp_path: Path, last: Values) -> None:
    """slo.yaml names the SLOs whose events are in the series, with their objectives."""
    path = tmp_path / "slo.yaml"
    path.write_text(slo_yaml(pipelines(4, 7)))
    slos = {slo.full_name: float(slo.objective) for slo in load_spec(path).slos}
    shown = {dict(labels)["slo"]: value for (name, labels), value in last.items() if name == "mpp_slo_objective_ratio"}

    assert shown == slos


def test_prometheus_takes_the_history(estate: tuple[Path, Summary], tmp_path: Path) -> None:
    """The real promtool makes blocks of a day, with every series in them."""
    promtool = require("promtool", "prometheus")
    day = estate[0] / "metrics" / "day-01.om"
    made = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", day, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    listed = subprocess.run([promtool, "tsdb", "list", tmp_path], capture_output=True, text=True, check=True).stdout

    assert made.returncode == 0, made.stderr
    assert len(listed.splitlines()) >= 12
