"""
Dashboards as files: `NAME.dashboard.py` is read, `NAME.json` is written beside it. The same source, the same bytes.

The layout of the files is that of grafanalib's `generate-dashboard`, which writes them byte for byte alike.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from grafanalib._gen import DashboardEncoder

from mppobs.errors import ConfigError
from mppobs.render.dashboards.fields import Json

SUFFIX: Final = ".dashboard.py"


def text_of(dashboard: Any) -> str:
    """Return a dashboard of ours or of grafanalib as the text of its file."""
    return json.dumps(dashboard.to_json_data(), sort_keys=True, indent=2, cls=DashboardEncoder) + "\n"


def load(path: Path) -> Any:
    """
    Return what a source names `dashboard`. Raises ConfigError where it is no source, fails, or names none.

    The source is run: it is a program, like the one that asks for it.
    """
    if not path.name.endswith(SUFFIX):
        raise ConfigError(f"{path}: a source of a dashboard is called NAME{SUFFIX}")
    spec = importlib.util.spec_from_file_location("dashboard", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path}: no such file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the source of a user raises is told with its place
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    found = getattr(module, "dashboard", None)
    if not hasattr(found, "to_json_data"):
        raise ConfigError(f"{path}: it must set `dashboard` to a dashboard, as mppobs.render.dashboards makes them")
    return found


def sources(paths: Iterable[Path]) -> list[Path]:
    """Return the sources that files and directories name, sorted. Raises ConfigError where there are none."""
    given = list(paths)
    found = [each for path in given for each in (sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path])]
    if not found:
        raise ConfigError(f"no *{SUFFIX} in {', '.join(map(str, given))}")
    return found


def built(paths: Iterable[Path], out: Path | None = None) -> dict[Path, str]:
    """Return the text of every file to write: beside its source, or in one directory."""
    texts: dict[Path, str] = {}
    for path in sources(paths):
        target = (out or path.parent) / (path.name.removesuffix(SUFFIX) + ".json")
        texts[target] = text_of(load(path))
    return texts


def drifted(texts: Mapping[Path, str]) -> list[Path]:
    """Return the files that are missing or differ."""
    return [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def parse(path: Path) -> Json:
    """Return a dashboard's JSON. Raises ConfigError where the file holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no dashboard can be read from it: {error}") from error
    if not isinstance(found, dict) or "panels" not in found:
        raise ConfigError(f"{path}: this is no dashboard: it has no panels")
    return found
