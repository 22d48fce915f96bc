"""
Where the sidecar's settings come from: a YAML file, then the environment, then flags; each overrides the one before.

Errors are for people: they name the file and line, the variable or the flag, and the nearest right word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mppobs.errors import ConfigError, nearest
from mppobs.sidecar.settings import ENV_PREFIX, Shown, SidecarSettings
from mppobs.sidecar.wording import in_words
from mppobs.units import human_bytes, parse_bytes
from mppobs.yamlfile import Item
from mppobs.yamlfile import load as load_yaml

ALIASES: Final[Mapping[str, str]] = {"directory": "directories", "slo": "slo_files"}
"""Further names of settings in the file and the environment: their flag's, with underscores."""

CLIENT_VARIABLES: Final = frozenset({"MPPOBS_SIDECAR_URL"})
"""Variables with the same beginning that say where to find a sidecar, to those who read one."""

REPEATED: Final[Mapping[str, str]] = {"directories": "--directory", "slo_files": "--slo"}
"""Settings whose flag can be given several times, and what it is called."""

Flag = str | Sequence[str]
"""A flag's value as it was typed; a list where the flag can be repeated."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each field where its value came from."""

    settings: SidecarSettings
    origins: Mapping[str, str]
    """By field: `file:line`, the variable's name, the flag, or `default`."""

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and origin of every setting, secrets masked, in the order of their documentation."""
        values = self.settings.model_dump()
        return [
            (name, shown(values[name], mark_of(field)), self.origins[name])
            for name, field in SidecarSettings.model_fields.items()
        ]


def mark_of(field: FieldInfo) -> Shown | None:
    """Return how a setting's value is named; for an optional setting the mark is with its type."""
    marks = list(field.metadata)
    marks += [mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    return next((mark for mark in marks if isinstance(mark, Shown)), None)


def flag_name(field: str) -> str:
    """
    Return the flag that sets a field.

    >>> flag_name("settle_seconds"), flag_name("directories"), flag_name("slo_files")
    ('--settle-seconds', '--directory', '--slo')
    """
    return REPEATED.get(field) or "--" + field.replace("_", "-")


def load(
    config: Path | None = None, flags: Mapping[str, Flag] | None = None, environ: Mapping[str, str] = os.environ
) -> Loaded:
    """
    Return the settings of a sidecar and where each came from.

    `flags` holds the fields that were given on the command line. Raises ConfigError for anything that is not
    understood, from whichever source.
    """
    layers = (_from_file(config), _from_environment(environ), _from_flags(flags or {}))
    values = {name: value for layer in layers for name, (value, _) in layer.items()}
    origins = {name: origin for layer in layers for name, (_, origin) in layer.items()}
    try:
        settings = SidecarSettings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    return Loaded(settings, {name: origins.get(name, "default") for name in SidecarSettings.model_fields})


_Layer = dict[str, tuple[Any, str]]


def _from_file(path: Path | None) -> _Layer:
    """Return the values of the file with their lines."""
    if path is None:
        return {}
    layer: _Layer = {}
    for key, item in load_yaml(path).mapping((*SidecarSettings.model_fields, *ALIASES)).items():
        if item.value is not None:
            _put(layer, key, _plain(item), f"{item.file}:{item.line}: {key}")
    return layer


def _put(layer: _Layer, key: str, value: Any, origin: str) -> None:
    """Enter a value under the setting's own name, which one source may give once."""
    name = ALIASES.get(key, key)
    if name in layer:
        raise ConfigError(f"{origin}: is also given as {layer[name][1]}: keep one")
    layer[name] = (value, origin)


def _plain(item: Item) -> Any:
    """Return what was written, without places: texts as texts, lists as lists."""
    if isinstance(item.value, list):
        return [entry.string() for entry in item.value]
    if isinstance(item.value, dict):
        raise item.error(f"expected a value, got {item.describe()}")
    return item.text


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    """Return the values of `MPPOBS_SIDECAR_*`; a variable that names no setting is an error."""
    layer: _Layer = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in CLIENT_VARIABLES:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in SidecarSettings.model_fields and name not in ALIASES:
            known = [ENV_PREFIX + field.upper() for field in SidecarSettings.model_fields]
            raise ConfigError(f"environment: unknown variable {variable!r}; {nearest(variable, known)}")
        _put(layer, name, value, variable)
    return layer


def _from_flags(flags: Mapping[str, Flag]) -> _Layer:
    return {name: (value, flag_name(name)) for name, value in flags.items()}


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Return every problem on a line of its own, each beginning with where the value came from."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        where = origins.get(name, name) or "settings"
        lines.append(f"{where}: {in_words(problem)}")
    return "\n".join(lines)


def _size(value: int) -> str:
    """Return bytes as one would type them."""
    return human_bytes(value).replace(" ", "")


def shown(value: object, mark: Shown | None = None) -> str:
    """
    Return a setting's value for people. Secrets mask themselves.

    >>> shown(5.0), shown(None), shown((Path("/a"), Path("/b"))), shown(4 * 2**30, Shown("SIZE"))
    ('5', '–', '/a /b', '4GiB')
    """
    if isinstance(value, int) and mark is not None and mark.metavar == "SIZE" and parse_bytes(_size(value)) == value:
        return _size(value)
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
