"""
`mppobs sidecar`: follow journals and serve indicators, or ship journals to an aggregator.

The flags are the settings: each field of `SidecarSettings` is one, with its own documentation.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mppobs.cli import show
from mppobs.sidecar import preflight
from mppobs.sidecar.app import serve
from mppobs.sidecar.settings import ENV_PREFIX, PANELS, SidecarSettings
from mppobs.sidecar.sources import REPEATED, Loaded, flag_name, load, mark_of, shown

_HELP: Final = """
Follow the journals that workers write, and serve what they add up to: Prometheus metrics at /metrics, a JSON API
at /api/v1 (described at /openapi.json), /healthz and /readyz.

On one machine it needs no settings: `mppobs sidecar` follows this user's workers and listens on loopback.

On a cluster, run one aggregator, and beside the workers of each node an agent that ships to it:

    mppobs sidecar --host 0.0.0.0 --write-token-file w --read-token-file r

    mppobs sidecar --forward http://aggregator:9466 --forward-token-file w

Every setting can be given in three places, each overriding the one before: a YAML file (--config), where the key is
the flag's name with underscores; the environment, as MPPOBS_SIDECAR_SETTLE_SECONDS=5s; and the flag. Durations are
written 500ms, 30s, 15m or 2d, and sizes 64KiB, 10MB or 4GiB. `--check` prints what is in force and where it came
from. Better give tokens as files or in the environment: flags show in process lists.
"""


def _run(config: Path | None, *, check: bool, verbose: bool, flags: Mapping[str, Any]) -> None:
    """Load the settings and serve, or print them."""
    loaded = load(config, {name: value for name, value in flags.items() if value})
    if check:
        _print_settings(loaded)
        return
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    serve(loaded.settings)


def _print_settings(loaded: Loaded) -> None:
    """Print the settings in force, secrets masked. Raises ConfigError for what a real run would refuse."""
    preflight.check(loaded.settings)
    made = show.table("Settings of the sidecar", ["setting", "value", "from"], [], prose=("value", "from"))
    for name, value, origin in loaded.rows():
        made.add_row(name, value, origin, style=show.QUIET if origin == "default" else "")
    out = show.console()
    out.print(made)
    role = "agent, shipping to " + str(loaded.settings.forward) if loaded.settings.is_agent else "aggregator"
    out.print(f"\nrole: {role}")


def _signature() -> inspect.Signature:
    """Return the command's parameters: its own, then one per setting, in the order of their documentation."""
    own = [
        _parameter(
            "config", Path | None, None, typer.Option("--config", "-c", metavar="FILE", help="Settings as YAML.")
        ),
        _parameter("check", bool, False, typer.Option("--check", help="Print the settings in force, and stop.")),
        _parameter("verbose", bool, False, typer.Option("--verbose", "-v", help="Log every request and round.")),
    ]
    settings = [_setting(name, panel) for panel, names in PANELS.items() for name in names]
    return inspect.Signature([*own, *settings])


def _setting(name: str, panel: str) -> inspect.Parameter:
    """Return the parameter of one setting. Texts are read later, with all other sources."""
    field = SidecarSettings.model_fields[name]
    option = typer.Option(
        flag_name(name),
        metavar=mark.metavar if (mark := mark_of(field)) else "VALUE",
        help=_help(name, field),
        rich_help_panel=panel,
        show_default=False,
    )
    return _parameter(name, list[str] | None if name in REPEATED else str | None, None, option)


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _help(name: str, field: FieldInfo) -> str:
    """Return a setting's documentation, its default, and its name in the environment."""
    text = " ".join((field.description or "").split())
    nothing = field.default in (None, PydanticUndefined, ())
    usual = "" if nothing else f"{shown(field.default, mark_of(field))} by default; "
    return f"{text} ({usual}{ENV_PREFIX}{name.upper()})"


def _command() -> Callable[..., None]:
    """Return the command. Its parameters are made from the settings, so that neither can forget the other."""

    def command(**given: Any) -> None:
        own = {name: given.pop(name) for name in ("config", "check", "verbose")}
        _run(own["config"], check=own["check"], verbose=own["verbose"], flags=given)

    signature = _signature()
    described: Any = command
    described.__signature__ = signature
    described.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    described.__doc__ = "\n\n".join(_paragraph(text) for text in _HELP.strip().split("\n\n"))
    return command


def _paragraph(text: str) -> str:
    """Return a paragraph as one line, for the terminal to break; what is indented stays as it is."""
    return text if text.startswith(" ") else " ".join(text.split())


sidecar: Final = _command()
"""The command, for typer."""
