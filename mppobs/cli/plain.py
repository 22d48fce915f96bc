"""Commands whose help and whose errors are in the words of people: no type beside a switch, no messages of pydantic."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperCommand

from mppobs.sidecar.wording import in_words

_NO_TYPE: Final = ""


class PlainCommand(TyperCommand):
    """A command of `mppobs`."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters; a switch has no type to show."""
        found = super().get_params(ctx)
        for each in found:
            if getattr(each, "is_flag", False) and each.metavar is None:
                each.metavar = _NO_TYPE
        return found

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Raises `BadParameter` for what has no meaning."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            problems = getattr(error.__cause__, "errors", None)  # pydantic's, by which typer reads values
            if problems is not None:
                error.message = "; ".join(in_words(problem) for problem in problems())
            raise


def plain(app: typer.Typer) -> typer.Typer:
    """Make every command of an application a `PlainCommand`, and return the application."""
    for command in app.registered_commands:
        command.cls = PlainCommand
    return app
