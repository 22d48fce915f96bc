"""What the commands that read `slo.yaml` have in common: their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files of SLOs; names must be unique over all of them.")
]
MaxSeriesOption = Annotated[
    int, typer.Option(metavar="N", help="Series that SLOs may add to Prometheus: an SLO makes about fifty.", min=1)
]
