"""
Dashboards against the types that Grafana publishes with each version, as JSON Schemas that `scripts/grafana-schemas`
makes. They are stricter than Grafana, which fills in what is missing and passes over what it does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonschema

from mppobs.errors import ConfigError
from mppobs.render.dashboards.fields import Json


@dataclass(frozen=True, slots=True)
class Violation:
    """A place where a dashboard is not what the types of a version of Grafana say."""

    version: str
    dashboard: str
    place: str
    """A path in the dashboard, panels by their number."""
    text: str

    def __str__(self) -> str:
        """Return it as a line."""
        return f"schema of Grafana {self.version}: {self.dashboard}, {self.place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Known:
    """Violations that are meant to be so."""

    text: str
    """A regular expression for place and text."""
    reason: str
    versions: tuple[str, ...] = ()
    """How the versions begin; empty for all."""

    def covers(self, violation: Violation) -> bool:
        """Return whether a violation is known."""
        here = not self.versions or violation.version.startswith(self.versions)
        return here and re.search(self.text, f"{violation.place}: {violation.text}") is not None


KNOWN: Final[Sequence[Known]] = (
    Known(
        r"^annotations/.*('expr'|'titleFormat')",
        "what Prometheus is asked for annotations: the types leave it to the data source, and do not let it in",
    ),
    Known(
        r"options: .*'percentChangeColorMode'",
        "required from 11 on; 10.4 does not know it and passes it over",
        ("10.",),
    ),
    Known(r"options: .*'legend'", "of bar gauges: required from 11 on; 10.4 passes it over", ("10.",)),
)
"""What is wrong by the types and right in Grafana."""


class Schemas:
    """The schemas of one version of Grafana."""

    def __init__(self, directory: Path) -> None:
        self.version = directory.name
        self._directory = directory
        self._validators: dict[str, Any] = {}

    def violations(self, dashboard: Json) -> Iterator[Violation]:
        """Yield every violation: of the dashboard itself, then panel by panel."""
        uid = dashboard["uid"]
        for place, text in self._errors("dashboard", {**dashboard, "panels": []}):
            yield Violation(self.version, uid, place, text)
        for panel in dashboard["panels"]:
            for place, text in self._of_panel(panel):
                yield Violation(self.version, uid, f"panel {panel['id']} {place}".rstrip(), text)

    def _of_panel(self, panel: Json) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with a panel by the type of all panels, and by those of its kind."""
        kind = panel["type"].replace("-", "")
        yield from self._errors("dashboard", panel, "RowPanel" if kind == "row" else "Panel")
        if kind != "row":
            yield from self._errors(f"{kind}.options", panel.get("options", {}), at="options")
            if (self._directory / f"{kind}.custom.json").exists():
                custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom", {})
                yield from self._errors(f"{kind}.custom", custom, at="custom")

    def _errors(self, name: str, part: Any, definition: str = "", at: str = "") -> Iterator[tuple[str, str]]:
        for error in self._validator(name, definition).iter_errors(part):
            place = "/".join([*([at] if at else []), *map(str, error.absolute_path)])
            yield place, error.message[:300]

    def _validator(self, name: str, definition: str) -> Any:
        key = f"{name}#{definition}"
        if key not in self._validators:
            path = self._directory / f"{name}.json"
            if not path.is_file():
                raise ConfigError(f"{path}: no such schema; scripts/grafana-schemas makes them")
            schema = json.loads(path.read_text(encoding="utf-8"))
            if definition:
                schema = {**schema, "$ref": f"#/definitions/{definition}"}
            self._validators[key] = jsonschema.Draft7Validator(schema)
        return self._validators[key]


def versions(directory: Path) -> list[Schemas]:
    """Return the schemas of every version in a directory, oldest first. Raises ConfigError where there are none."""
    found = sorted(
        (path for path in directory.glob("*.*.*") if path.is_dir()),
        key=lambda path: [int(part) for part in path.name.split(".")],
    )
    if not found:
        raise ConfigError(f"{directory}: no schemas there; scripts/grafana-schemas {directory} makes them")
    return [Schemas(path) for path in found]
