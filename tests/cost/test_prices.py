"""Prices from a file: what is read, and what the messages say about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from mppobs.cost.prices import NodePrice, PriceList, load_prices, parse_prices
from mppobs.errors import ConfigError

GOOD = """
default: {on_demand: 0.40, spot: 0.12}
node_types:
  big: {on_demand: 3.6, spot: 1.2}
  small: {on_demand: 0.1}
shuffle_usd_per_gb: 0.01
"""


def test_a_price_list_is_what_the_file_says(tmp_path: Path) -> None:
    """Types have their price by market, others the default's."""
    path = tmp_path / "prices.yaml"
    path.write_text(GOOD)
    prices = load_prices(path)
    assert prices.usd_per_hour("big", spot=False) == 3.6
    assert prices.usd_per_hour("big", spot=True) == 1.2
    assert prices.usd_per_hour("small", spot=True) == 0.1
    assert prices.usd_per_hour("other", spot=True) == 0.12
    assert prices.shuffle_usd_per_gb == 0.01


def test_what_is_left_out_is_the_default() -> None:
    """An empty file is the default list."""
    assert parse_prices("") == PriceList()
    assert parse_prices("node_types: {a: {on_demand: 1}}") == PriceList(node_types={"a": NodePrice(1.0, 1.0)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node_type: {}", "f.yaml:1: node_type: unknown key 'node_type'; did you mean 'node_types'?"),
        ("default:\n  on_demnd: 1", "f.yaml:2: default.on_demnd: unknown key 'on_demnd'; did you mean 'on_demand'?"),
        ("default: {spot: 1}", "f.yaml:1: default: needs on_demand"),
        ("default:\n  on_demand: cheap", "f.yaml:2: default.on_demand: expected a number, got 'cheap'"),
        ("shuffle_usd_per_gb: -1", "f.yaml:1: shuffle_usd_per_gb: a price is from 0"),
        ("node_types:\n  a: 3", "f.yaml:2: node_types.a: expected keys and values"),
        ("default: {on_demand: .nan}", "f.yaml:1: default.on_demand: expected a number"),
        ("- 1", "f.yaml:1: expected keys and values, got a list"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, says: str) -> None:
    """File, line, key, and the nearest right word."""
    with pytest.raises(ConfigError) as caught:
        parse_prices(text, "f.yaml")
    assert says in str(caught.value)


def test_what_has_no_price_has_none() -> None:
    """No figure is made up: neither for a type that is not listed, nor where nothing is."""
    assert PriceList().usd_per_hour("", spot=False) is None
    assert parse_prices("node_types: {a: {on_demand: 1}}").usd_per_hour("b", spot=True) is None
    assert parse_prices("default: {on_demand: 2}").usd_per_hour("b", spot=True) == 2.0
