"""Files of SLOs that change while the aggregator runs: what goes on, what begins anew, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mppobs.errors import ConfigError
from mppobs.sidecar.slo_files import SloFiles
from mppobs.sidecar.store_schema import StoreFull
from mppobs.slo.model import Counts
from tests.sidecar.slo_rig import FAILED, SPEC, SUCCEEDED, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A rig with two SLOs on the pipeline `nightly`."""
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_changed_objective_keeps_its_history_without_a_restart(rig: Rig) -> None:
    """The file is taken up when it changes: counts go on, the objective is the new one, the change is marked."""
    rig.job(FAILED)
    rig.settle()
    start = rig.figures()["nightly-job-success"].tally.start_ns

    rig.rewrite(SPEC.replace("95%", "90%"))

    found = rig.figures()["nightly-job-success"]
    assert (found.tally.counts, found.tally.start_ns, found.tally.revision) == (Counts(1, 1), start, 1)
    assert str(found.slo.objective) == "9/10"
    assert [(str(mark.before), str(mark.after)) for mark in found.tally.marks] == [("19/20", "9/10")]
    rig.restart()
    assert rig.figures()["nightly-job-success"].tally.marks == found.tally.marks


def test_a_changed_definition_counts_anew_and_stays_so_after_a_restart(rig: Rig) -> None:
    """Other events are another revision, from 0 and from now; the SLO beside it is not touched."""
    rig.job(FAILED, committed=1)
    rig.settle()
    rig.rewrite(SPEC.replace("job-success: 95%", "job-success: {objective: 95%, exclude: [drill]}"))

    for _ in range(2):
        assert rig.counts() == {"nightly-job-success": Counts(0, 0), "nightly-shard-success": Counts(1, 0)}
        tally = rig.figures()["nightly-job-success"].tally
        assert (tally.revision, len(tally.history)) == (2, 0)
        assert tally.start_ns > rig.figures()["nightly-shard-success"].tally.start_ns
        rig.restart()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("team: risk\npipelines: {nightly: {objectives: {job-sucess: 95%}}}", "job-success"),
        ("{", "slo.yaml"),
        ("team: risk\npipelines: {}", "no objectives"),
    ],
)
def test_a_file_that_does_not_parse_leaves_the_slos_as_they_are(text: str, message: str, rig: Rig) -> None:
    """What was promised goes on being counted; the refusal is counted and said; a good file ends it."""
    rig.rewrite(text)
    files = rig.engine.slos.files
    rig.job(FAILED)
    rig.settle()

    assert (files.errors, "refused" in files.status, message in files.problem) == (1, True, True)
    assert rig.counts()["nightly-job-success"] == Counts(1, 1)

    rig.rewrite(SPEC)
    assert (files.errors, files.problem, files.status) == (1, "", "2 SLOs")


def test_a_file_that_is_gone_and_comes_back_changes_nothing(rig: Rig) -> None:
    """An editor that replaces a file may be caught in the act."""
    rig.path.unlink()
    rig.tick()
    assert rig.engine.slos.files.errors == 1
    assert len(rig.figures()) == 2

    rig.rewrite(SPEC)
    rig.job(FAILED)
    rig.settle()
    assert rig.counts()["nightly-job-success"] == Counts(1, 1)


def test_names_are_unique_over_files_and_their_number_is_capped(tmp_path: Path) -> None:
    """Two files with one name, too many SLOs, and a first load that does not parse are errors that say where."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(SPEC)
    two.write_text(SPEC)

    with pytest.raises(ConfigError, match=r"two\.yaml.*'risk/nightly-job-success' is in .*one\.yaml too"):
        SloFiles([one, two])
    with pytest.raises(ConfigError, match="2 SLOs are more than the 1"):
        SloFiles([one], most=1)
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        SloFiles([tmp_path / "missing.yaml"])


def test_an_slo_that_finds_no_room_is_not_shown_before_it_is_durable(rig: Rig) -> None:
    """A start time that a restart could change is not exposed; with room it is there at the next look."""
    more = SPEC + "      coverage: {objective: 99%, at-least: 1}\n"
    store = rig.engine.store
    commit = store.commit_slos

    def refuse(_rows: object) -> None:
        raise StoreFull("no space left on device")

    store.commit_slos = refuse  # type: ignore[method-assign,assignment]
    rig.rewrite(more)
    assert len(rig.figures()) == 2

    store.commit_slos = commit  # type: ignore[method-assign]
    rig.job(SUCCEEDED, committed=1)
    rig.tick(20)
    rig.settle()
    assert rig.counts()["nightly-coverage"] == Counts(1, 0)


def test_slos_that_prometheus_counts_are_known_by_name_alone(rig: Rig) -> None:
    """They come and go with the file, beside those that are counted here, and have no figures."""
    assert rig.engine.slos.queried == []

    rig.rewrite(SPEC + "objectives:\n  gateway: {indicator: promql, objective: 99%, good: a, total: b}\n")

    assert [slo.full_name for slo in rig.engine.slos.queried] == ["risk/gateway"]
    assert set(rig.figures()) == {"nightly-job-success", "nightly-shard-success"}
