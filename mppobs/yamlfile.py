"""
YAML read at the edge: plain values that remember their line, so that an error names file, line, key and nearest word.

Only plain YAML is accepted (what `yaml.safe_load` takes); a key given twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from mppobs.errors import ConfigError, nearest

MAX_BYTES = 4 * 1024 * 1024
"""A file of settings that is larger than this is a mistake."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Item:
    """One value with its place. `value` is a scalar, a list of items, or a mapping of keys to items."""

    value: Scalar | list[Item] | dict[str, Item]
    file: str
    line: int
    path: str
    """Dotted keys from the root, for messages."""
    text: str = ""
    """The scalar as it was written, so that `0.999` can be read exactly."""

    def error(self, problem: str) -> ConfigError:
        """Return an error that names this place."""
        where = f" {self.path}:" if self.path else ""
        return ConfigError(f"{self.file}:{self.line}:{where} {problem}")

    def mapping(self, known: Iterable[str] | None = None) -> dict[str, Item]:
        """
        Return the keys and items of a mapping.

        With `known`, any other key is an error that names the nearest of them.
        """
        if not isinstance(self.value, dict):
            raise self.error(f"expected keys and values, got {self.describe()}")
        if known is not None:
            allowed = set(known)
            for key, item in self.value.items():
                if key not in allowed:
                    raise item.error(f"unknown key {key!r}; {nearest(key, allowed)}")
        return self.value

    def items(self) -> list[Item]:
        """Return the items of a list; a single scalar counts as a list of one."""
        if isinstance(self.value, list):
            return self.value
        if isinstance(self.value, dict) or self.value is None:
            raise self.error(f"expected a list, got {self.describe()}")
        return [self]

    def string(self) -> str:
        """Return a text, or a scalar as it was written."""
        if isinstance(self.value, list | dict) or self.value is None:
            raise self.error(f"expected a text, got {self.describe()}")
        return self.value if isinstance(self.value, str) else self.text

    def boolean(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            raise self.error(f"expected true or false, got {self.describe()}")
        return self.value

    def number(self) -> float:
        """Return a finite number."""
        value = self.value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value != value
            or abs(value) == float("inf")
        ):
            raise self.error(f"expected a number, got {self.describe()}")
        return float(value)

    def integer(self) -> int:
        """Return a whole number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.error(f"expected a whole number, got {self.describe()}")
        return self.value

    def describe(self) -> str:
        """Return what this is, in words for a message."""
        if isinstance(self.value, dict):
            return "keys and values"
        if isinstance(self.value, list):
            return "a list"
        return "nothing" if self.value is None else repr(self.text or self.value)


def load(path: Path) -> Item:
    """
    Return the content of a YAML file with places.

    Raises ConfigError where the file cannot be read, is too large, or is no plain YAML; an empty file is an empty
    mapping.
    """
    return loads(_read(path), str(path))


def load_all(path: Path) -> list[Item]:
    """Return the documents of a YAML file with places; those that are empty are left out. Raises as `load` does."""
    return loads_all(_read(path), str(path))


def loads(text: str, name: str = "<text>") -> Item:
    """
    Return the content of a YAML text with places.

    >>> item = loads("prices:\\n  small: 0.10\\n").mapping(["prices"])["prices"].mapping()["small"]
    >>> item.line, item.path, item.text, item.number()
    (2, 'prices.small', '0.10', 0.1)
    """
    with _loader(text, name) as loader:
        node = loader.get_single_node()
        return Item({}, name, 1, "") if node is None else _item(loader, node, name, "", _Budget())


def loads_all(text: str, name: str = "<text>") -> list[Item]:
    """
    Return the documents of a YAML text with places.

    >>> [(item.line, item.mapping()["a"].value) for item in loads_all("a: 1\\n---\\na: 2\\n")]
    [(1, 1), (3, 2)]
    """
    documents, budget = [], _Budget()
    with _loader(text, name) as loader:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                documents.append(_item(loader, node, name, "", budget))
    return documents


def _read(path: Path) -> str:
    """Return the text of a file of settings."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error


@contextmanager
def _loader(text: str, name: str) -> Iterator[yaml.SafeLoader]:
    """Give a loader of plain YAML; what it finds wrong becomes a ConfigError with its line."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        yield loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        what = f"{error.context}, {error.problem}" if (error.problem or "").startswith("but ") else error.problem
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: {what}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


class _Budget:
    """Bounds what aliases can unfold to: a small file must not become a large tree."""

    def __init__(self, nodes: int = 200_000) -> None:
        self._left = nodes

    def spend(self, node: yaml.Node, name: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise ConfigError(f"{name}:{node.start_mark.line + 1}: unfolds to too many values")


def _item(loader: yaml.SafeLoader, node: yaml.Node, name: str, path: str, budget: _Budget) -> Item:
    """Return a node and what is below it as items."""
    budget.spend(node, name)
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return Item(dict(_pairs(loader, node, name, path, budget)), name, line, path)
    if isinstance(node, yaml.SequenceNode):
        entries = [_item(loader, child, name, f"{path}[{i}]", budget) for i, child in enumerate(node.value)]
        return Item(entries, name, line, path)
    try:
        value = loader.construct_object(node, deep=True)
    except ValueError as error:
        raise ConfigError(f"{name}:{line}: {error}") from error
    plain = value if isinstance(value, str | int | float | bool) or value is None else str(node.value)
    return Item(plain, name, line, path, str(node.value))


def _pairs(
    loader: yaml.SafeLoader, node: yaml.MappingNode, name: str, path: str, budget: _Budget
) -> Iterator[tuple[str, Item]]:
    """Yield the keys and items of a mapping; a repeated key is an error."""
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = str(key_node.value)
        if key in seen:
            raise ConfigError(f"{name}:{key_node.start_mark.line + 1}: {key!r} is given twice")
        seen.add(key)
        item = _item(loader, value_node, name, f"{path}.{key}" if path else key, budget)
        yield key, Item(item.value, name, key_node.start_mark.line + 1, item.path, item.text)
