"""Advice on fabrics: each rule speaks where it should and is silent where it should not."""

from __future__ import annotations

import dataclasses

import pytest

from mppobs.diagnose.fabric import CORE_LINK_BYTES, Advice, Fabric, Rates, StageFacts, advise

MB = 1_000_000
PLAIN = StageFacts("s", shards=4, wall_seconds=40, cpu_seconds=10, input_bytes=200 * MB, written_bytes=100 * MB)
"""A stage of which nothing much can be said: 20 MB for each CPU second, half of it passed on."""
FREE = Rates(usd_per_gb_moved=0.0)


def rules(facts: StageFacts, rates: Rates = FREE) -> dict[str, Fabric]:
    """Return which rules speak, and for what."""
    found = advise([facts], rates)[0]
    return {reason.rule: reason.fabric for reason in (*found.reasons, *found.against)}


def but(**changes: float) -> StageFacts:
    """Return the plain stage with changes."""
    return dataclasses.replace(PLAIN, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "rule", "fabric"),
    [
        (but(input_bytes=1000 * MB, written_bytes=500 * MB), "data volume", Fabric.ENGINE),
        (but(input_bytes=50 * MB, written_bytes=25 * MB, shards=1), "transformation weight", Fabric.CONTAINERS),
        (but(written_bytes=10 * MB), "locality", Fabric.ENGINE),
        (but(peer_seconds=4.0), "peers", Fabric.CONTAINERS),
        (but(custom_code=True), "custom code", Fabric.CONTAINERS),
        (but(custom_code=True, cpu_seconds=36, written_bytes=190 * MB), "accelerators", Fabric.CONTAINERS),
        (but(written_bytes=0, input_bytes=0, shards=100, median_seconds=0.2), "elasticity", Fabric.FUNCTIONS),
        (but(shards=10, longest_seconds=9.0), "unevenness", Fabric.ENGINE),
    ],
)
def test_each_rule_speaks_for_its_fabric(facts: StageFacts, rule: str, fabric: Fabric) -> None:
    """What a rule looks at makes it speak, and without that it is silent."""
    assert rules(facts)[rule] is fabric
    assert rule not in rules(PLAIN)


def test_of_a_plain_stage_only_its_exchange_speaks() -> None:
    """The stage that the cases above vary is plain in everything but what it passes on."""
    assert rules(PLAIN) == {"exchange": Fabric.ENGINE}
    assert rules(but(shards=1)) == rules(but(written_bytes=30 * MB)) == {}


@pytest.mark.parametrize(("usd", "speaks"), [(0.0, False), (0.0005, False), (0.01, True)])
def test_moving_costs_are_weighed_against_computing(usd: float, speaks: bool) -> None:
    """Ten CPU seconds cost 0.012 cents: moving 200 MB for 0.2 cents is too much, for 0.01 cents it is not."""
    assert ("cost" in rules(PLAIN, Rates(usd_per_gb_moved=usd))) is speaks


def test_what_an_engine_cannot_run_is_no_filter_for_it() -> None:
    """A stage of its own code that returns little of much stays where its code is."""
    found = advise([but(written_bytes=0, custom_code=True)], Rates())[0]

    assert found.fabric is Fabric.CONTAINERS
    assert [reason.rule for reason in found.against] == ["cost"]


def test_bounds_are_where_they_are_said_to_be() -> None:
    """A core's share of the link is not yet too much; a byte more is."""
    at = int(CORE_LINK_BYTES * 10)

    assert "data volume" not in rules(but(input_bytes=at))
    assert rules(but(input_bytes=at + 10))["data volume"] is Fabric.ENGINE


def test_weights_decide_and_what_speaks_against_is_kept() -> None:
    """A gang that also computes next to large data goes where its peers are, and the advice says what that costs."""
    found = advise([but(peer_seconds=20.0, input_bytes=1000 * MB, custom_code=True)], Rates())[0]

    assert found.fabric is Fabric.CONTAINERS
    assert [reason.rule for reason in found.reasons] == ["peers", "custom code"]
    assert [reason.rule for reason in found.against] == ["data volume"]
    assert found.margin == 2


def test_where_nothing_tells_it_stays_with_the_data() -> None:
    """A stage without figures is left where the data is, and the advice says that it is none."""
    found = advise([StageFacts("empty", shards=0, wall_seconds=0.0, cpu_seconds=0.0)], Rates())

    assert found == [Advice("empty", Fabric.ENGINE, 0, (), ())]


def test_texts_name_the_figures() -> None:
    """A reason says what was measured, in units that people read."""
    found = advise([but(input_bytes=1000 * MB, written_bytes=10 * MB)], Rates())[0]
    told = {reason.rule: reason.text for reason in found.reasons}

    assert told["data volume"].startswith("takes 95.4 MiB in for each CPU second, more than a core's share of a link")
    assert told["locality"] == "passes on 1.0% of the 954 MiB it reads"
