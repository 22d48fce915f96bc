"""The scenarios, rehearsed: every figure is as it must be, for more than one seed, and the timeline tells the story."""

from __future__ import annotations

import pytest

from mppobs.executor.sim.scenarios import SCENARIOS, Rehearsal


@pytest.fixture(scope="module")
def rehearsals() -> dict[str, Rehearsal]:
    """Return every scenario, rehearsed with the usual seed."""
    return {name: scenario.rehearse(7) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_meets_its_targets(name: str, rehearsals: dict[str, Rehearsal]) -> None:
    """Every figure that must be something is."""
    missed = [finding for finding in rehearsals[name].findings if not finding.met]

    assert missed == []
    assert any(finding.target for finding in rehearsals[name].findings)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["batch-inference", "scheduler-outage"])
def test_targets_do_not_hang_on_the_seed(name: str, seed: int) -> None:
    """Other worlds, the same verdict."""
    assert SCENARIOS[name].rehearse(seed).met


def test_batch_inference_is_as_large_as_promised(rehearsals: dict[str, Rehearsal]) -> None:
    """300 million records is 1.5 times 200 million, and two of forty nodes are evicted."""
    figures = {finding.figure: finding.value for finding in rehearsals["batch-inference"].findings}

    assert figures["records"] == 1.5 * 200e6
    assert figures["share of the nodes evicted"] == 0.05


def test_the_outage_has_its_timeline(rehearsals: dict[str, Rehearsal]) -> None:
    """The heartbeat stops, a job comes that nobody takes, the standby takes over, and everything ends."""
    told = [(seconds, what) for seconds, what in rehearsals["scheduler-outage"].timeline]
    killed = next(seconds for seconds, what in told if what == "killed")
    takeover = next(seconds for seconds, what in told if what == "takeover")

    assert (killed, takeover) == (300.0, 330.0)
    assert not [what for seconds, what in told if killed < seconds < takeover and what.startswith("heartbeat")]
    assert [what for seconds, what in told if killed < seconds < takeover] == ["job audit-1 is submitted: 40 shards"]
    assert told == sorted(told, key=lambda entry: entry[0])
    assert told[-1][1] == "everything has ended"


def test_the_same_seed_tells_the_same(rehearsals: dict[str, Rehearsal]) -> None:
    """A scenario is a value of its seed."""
    assert SCENARIOS["scheduler-outage"].rehearse(7) == rehearsals["scheduler-outage"]
