"""
The price list: what an hour of a node costs, by type and by market, and what a shuffled gigabyte costs.

Read once from a small YAML file, then frozen:

    default: {on_demand: 0.40, spot: 0.12}
    node_types:
      m5.4xlarge: {on_demand: 0.768, spot: 0.28}
      c5.2xlarge: {on_demand: 0.34}
    shuffle_usd_per_gb: 0.01

Prices are US dollars; a node's price is split evenly over the attempts that it runs at a time. A type without a
`spot` price costs the same on both markets; a type that is not listed costs `default`, and without one nothing at all:
it is not priced, which is said wherever its cost would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mppobs.yamlfile import Item, load, loads

MAX_USD: Final = 1_000_000.0
"""Per hour or per gigabyte: beyond this a price is a typing mistake."""


@dataclass(frozen=True, slots=True)
class NodePrice:
    """What an hour of a node costs, in US dollars."""

    on_demand: float
    spot: float


@dataclass(frozen=True, slots=True)
class PriceList:
    """
    Prices by node type. An empty list prices nothing: a figure that nobody gave would read like a measurement.

    >>> prices = PriceList(node_types={"m5.4xlarge": NodePrice(0.768, 0.28)})
    >>> prices.usd_per_hour("m5.4xlarge", spot=True), prices.usd_per_hour("unheard-of", spot=False)
    (0.28, None)
    """

    default: NodePrice | None = None
    """For workers of a type that is not listed; `None` where those are not priced."""
    node_types: Mapping[str, NodePrice] = field(default_factory=dict)
    shuffle_usd_per_gb: float = 0.0
    """Per 10^9 bytes, read and written alike. 0 by default: within a zone traffic is free."""

    def usd_per_hour(self, node_type: str, *, spot: bool) -> float | None:
        """Return what an hour of a node costs; `None` where it is not priced."""
        price = self.node_types.get(node_type, self.default)
        if price is None:
            return None
        return price.spot if spot else price.on_demand


def load_prices(path: Path) -> PriceList:
    """Return the price list of a YAML file. Raises `ConfigError` that names file, line, key and the nearest word."""
    return _price_list(load(path))


def parse_prices(text: str, name: str = "<prices>") -> PriceList:
    """
    Return the price list of a YAML text; errors as in `load_prices`.

    >>> parse_prices("node_types: {small: {on_demand: 0.1}}").usd_per_hour("small", spot=True)
    0.1
    """
    return _price_list(loads(text, name))


def _price_list(root: Item) -> PriceList:
    keys = root.mapping(("default", "node_types", "shuffle_usd_per_gb"))
    standard = PriceList()
    types = keys["node_types"].mapping() if "node_types" in keys else {}
    return PriceList(
        default=_node_price(keys["default"]) if "default" in keys else standard.default,
        node_types={name: _node_price(item) for name, item in types.items()},
        shuffle_usd_per_gb=_usd(keys["shuffle_usd_per_gb"])
        if "shuffle_usd_per_gb" in keys
        else standard.shuffle_usd_per_gb,
    )


def _node_price(item: Item) -> NodePrice:
    keys = item.mapping(("on_demand", "spot"))
    if "on_demand" not in keys:
        raise item.error("needs on_demand, in US dollars per hour")
    on_demand = _usd(keys["on_demand"])
    return NodePrice(on_demand, _usd(keys["spot"]) if "spot" in keys else on_demand)


def _usd(item: Item) -> float:
    """Return a price in US dollars."""
    price = item.number()
    if not 0 <= price <= MAX_USD:
        raise item.error(f"a price is from 0 to {MAX_USD:,.0f} US dollars, not {item.describe()}")
    return price
