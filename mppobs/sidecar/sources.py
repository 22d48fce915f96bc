"""
Where the sidecar's settings come from: a YAML file, then the environment, then flags; each overrides the one before.

Errors are for people: they name the file and line, the variable or the flag, and the nearest right word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from mppobs.errors import ConfigError, nearest
from mppobs.sidecar.settings import ENV_PREFIX, SidecarSettings
from mppobs.yamlfile import Item
from mppobs.yamlfile import load as load_yaml

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
        return [(name, shown(values[name]), self.origins[name]) for name in SidecarSettings.model_fields]


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
    items = load_yaml(path).mapping(SidecarSettings.model_fields)
    return {
        name: (_plain(item), f"{item.file}:{item.line}: {name}")
        for name, item in items.items()
        if item.value is not None
    }


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
        if name not in SidecarSettings.model_fields:
            known = [ENV_PREFIX + field.upper() for field in SidecarSettings.model_fields]
            raise ConfigError(f"environment: unknown variable {variable!r}; {nearest(variable, known)}")
        layer[name] = (value, variable)
    return layer


def _from_flags(flags: Mapping[str, Flag]) -> _Layer:
    return {name: (value, flag_name(name)) for name, value in flags.items()}


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Return every problem on a line of its own, each beginning with where the value came from."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        where = origins.get(name, name) or "settings"
        lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def shown(value: object) -> str:
    """
    Return a setting's value for people. Secrets mask themselves.

    >>> shown(5.0), shown(None), shown((Path("/a"), Path("/b")))
    ('5', '–', '/a /b')
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
