"""What a sidecar refuses to start with, found before it starts: by `mppobs sidecar --check` and by `serve`."""

from __future__ import annotations

import os
from pathlib import Path

from mppobs.cost.prices import load_prices
from mppobs.errors import ConfigError
from mppobs.sidecar.auth import Tokens
from mppobs.sidecar.settings import SidecarSettings
from mppobs.sidecar.slo_files import SloFiles


def check(settings: SidecarSettings) -> None:
    """Raise ConfigError for tokens, prices, SLOs or directories that cannot be used. Changes nothing."""
    Tokens.of(settings)
    settings.token("forward")
    needed = list(settings.directories)
    if not settings.is_agent:
        if settings.price_file is not None:
            load_prices(settings.price_file)
        SloFiles(settings.slo_files, most=settings.max_slos)
        needed.append(settings.state_directory)
    if settings.port_file is not None:
        needed.append(settings.port_file.absolute().parent)
    for directory in needed:
        _usable(directory)


def _usable(directory: Path) -> None:
    """Refuse what is no directory, and what cannot be made or written to."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{directory} cannot be used: {there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{directory} cannot be used: {there} cannot be written to")
