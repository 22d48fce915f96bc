"""SLOs that no file has any more: kept for the retention, as they may come back, and then forgotten."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from mppobs.slo.model import Counts
from tests.sidecar.slo_rig import FAILED, SPEC, Rig

WITHOUT = SPEC.replace("      job-success: 95%\n", "")
DAY = 86_400.0


def test_a_promise_that_is_gone_comes_back_with_its_counts_within_the_retention(tmp_path: Path) -> None:
    """Twenty days without it, restarts among them, and it goes on where it was."""
    with closing(Rig(tmp_path)) as rig:
        rig.job(FAILED)
        rig.settle()
        rig.rewrite(WITHOUT)
        rig.tick(20 * DAY)
        rig.restart()
        rig.rewrite(SPEC)

        assert rig.counts()["nightly-job-success"] == Counts(1, 1)


def test_beyond_the_retention_it_is_forgotten(tmp_path: Path) -> None:
    """After thirty days and a restart nothing of it is left, and what comes under its name begins at 0."""
    with closing(Rig(tmp_path)) as rig:
        rig.job(FAILED)
        rig.settle()
        rig.rewrite(WITHOUT)
        rig.tick(31 * DAY)
        rig.tick()
        rig.restart()
        kept = {tally.name for tally in rig.engine.store.slos().tallies}
        assert kept == {"risk/nightly-shard-success"}

        rig.rewrite(SPEC)
        figures = rig.figures()["nightly-job-success"]
        assert (figures.tally.counts, figures.tally.revision) == (Counts(0, 0), 1)
