"""Settings: from the environment with warnings, from `configure` with errors."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

import mppobs
from mppobs.errors import ConfigError
from mppobs.instrument import recorder
from mppobs.instrument.identity import Identity, detect
from mppobs.instrument.recorder import RECORDER
from mppobs.instrument.settings import (
    IDENTITY_VARIABLES,
    VARIABLES,
    Settings,
    changed,
    default_directory,
    from_environment,
)
from mppobs.model import RunKind, Tier, WorkerRecord
from mppobs.testing import Captured


def test_every_variable_gives_its_setting() -> None:
    """Each MPPOBS_* variable is read into the setting that the table names."""
    environ = {
        "MPPOBS_DIR": "/j", "MPPOBS_DISABLED": "yes", "MPPOBS_WORKER": "w", "MPPOBS_NODE": "n", "MPPOBS_ZONE": "z",
        "MPPOBS_NODE_TYPE": "m5", "MPPOBS_SPOT": "1", "MPPOBS_DEDICATED": "true", "MPPOBS_LANES": "4",
        "MPPOBS_CLUSTER": "c", "MPPOBS_TENANT": "t", "MPPOBS_OWNER": "o", "MPPOBS_PIPELINE": "p", "MPPOBS_JOB_ID": "j",
        "MPPOBS_TIER": "critical", "MPPOBS_RUN_KIND": "drill", "MPPOBS_CONTEXT": "{}", "MPPOBS_SAMPLE_SECONDS": "0.5",
        "MPPOBS_BUDGET_BYTES": "1000",
    }  # fmt: skip
    assert set(environ) == set(VARIABLES)
    assert from_environment(environ) == Settings(
        Path("/j"), False, "w", "n", "z", "m5", True, True, 4, "c", "t", "o", "p", "j", Tier.CRITICAL, RunKind.DRILL,
        "{}", 0.5, 1000,
    )  # fmt: skip


def test_the_default_directory_is_this_users_own() -> None:
    """Without MPPOBS_DIR journals go below the temporary directory, under the user's number."""
    assert from_environment({}).directory == default_directory()
    assert default_directory().name == f"mppobs-{os.getuid()}"


def test_unknown_variables_are_named_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    """A typing error in a variable's name is a warning that says what was meant, and nothing else."""
    with caplog.at_level(logging.WARNING, "mppobs"):
        settings = from_environment({"MPPOBS_PIPLINE": "x", "MPPOBS_SIDECAR_PORT": "1", "MPPOBS_SHARD": "3"})

    assert settings.pipeline == ""
    assert [record.getMessage() for record in caplog.records] == [
        "MPPOBS_PIPLINE is no variable of mppobs: did you mean 'MPPOBS_PIPELINE'?"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MPPOBS_SPOT", "maybe"), ("MPPOBS_LANES", "0"), ("MPPOBS_LANES", "x"), ("MPPOBS_TIER", "gold"),
        ("MPPOBS_SAMPLE_SECONDS", "-1"), ("MPPOBS_SAMPLE_SECONDS", "nan"),
    ],
)  # fmt: skip
def test_values_without_meaning_are_passed_over(caplog: pytest.LogCaptureFixture, name: str, value: str) -> None:
    """A value that cannot be read is a warning and the default."""
    with caplog.at_level(logging.WARNING, "mppobs"):
        settings = from_environment({name: value})

    assert settings == from_environment({})
    assert name in caplog.text


@pytest.mark.parametrize(
    "values", [{"lanes": 0}, {"sample_seconds": -1}, {"tier": "gold"}, {"run_kind": "x"}, {"directory": 5}]
)
def test_configure_refuses_values_without_meaning(values: dict[str, object]) -> None:
    """What is said in code is an error where it makes no sense."""
    with pytest.raises(ConfigError, match="configure"):
        changed(from_environment({}), values)


def test_configure_changes_what_the_journal_says(captured: Captured, tmp_path: Path) -> None:
    """Where the process runs, and how it is priced, is in the record that opens its journal."""
    mppobs.configure(
        node="n7", zone="z2", node_type="m5.large", spot=True, dedicated=True, lanes=3, cluster="c", tenant="t"
    )
    with mppobs.attempt(stage="s", shard=1):
        pass

    info = captured.of(WorkerRecord)[-1].info
    assert (info.node, info.zone, info.node_type, info.spot, info.dedicated, info.lanes) == (
        "n7", "z2", "m5.large", True, True, 3,
    )  # fmt: skip
    assert info.worker == f"n7-{os.getpid()}"
    assert info.pid == os.getpid()
    context = captured.context(captured.attempts[0])
    assert (context.cluster, context.tenant) == ("c", "t")


def test_a_directory_that_cannot_hold_a_journal_is_said_once(
    captured: Captured, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Work goes on where nothing can be recorded; one warning names the directory."""
    (tmp_path / "file").write_text("")
    mppobs.configure(directory=tmp_path / "file" / "x")

    @mppobs.task
    def work() -> int:
        return 5

    with caplog.at_level(logging.WARNING, "mppobs"):
        assert [work() for _ in range(3)] == [5, 5, 5]

    assert [record.getMessage().startswith("mppobs: nothing will be recorded") for record in caplog.records] == [True]


def test_the_default_directory_must_be_this_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A link where journals go by default is not followed: nothing is recorded, and a warning says why."""
    (tmp_path / "elsewhere").mkdir()
    default = tmp_path / "mppobs-0"
    default.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(recorder, "default_directory", lambda: default)
    old = RECORDER.reset(Settings(default))
    try:
        with caplog.at_level(logging.WARNING, "mppobs"), mppobs.attempt(stage="s", shard=1):
            pass
        assert "belongs to somebody else" in caplog.text
        assert list((tmp_path / "elsewhere").iterdir()) == []
        default.unlink()
        RECORDER.reset(Settings(default))
        with mppobs.attempt(stage="s", shard=1):
            pass
        assert default.stat().st_mode & 0o777 == 0o700
        assert len(Captured(default).attempts) == 1
    finally:
        RECORDER.reset(old)


def test_an_empty_variable_is_one_that_is_not_set(caplog: pytest.LogCaptureFixture) -> None:
    """`MPPOBS_DIR=""` is not the current directory; nor does any other empty variable say or warn of anything."""
    with caplog.at_level(logging.WARNING, "mppobs"):
        assert from_environment(dict.fromkeys((*VARIABLES, *IDENTITY_VARIABLES), "")) == from_environment({})
        assert from_environment(dict.fromkeys(VARIABLES, " ")) == from_environment({})

    assert caplog.records == []
    assert detect(dict.fromkeys((*VARIABLES, *IDENTITY_VARIABLES), "")) == Identity()
    with pytest.raises(ConfigError, match="empty directory"):
        changed(from_environment({}), {"directory": ""})


def test_a_number_that_is_none_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    """The message is about the value, not about how it was read."""
    with caplog.at_level(logging.WARNING, "mppobs"):
        from_environment({"MPPOBS_LANES": "abc", "MPPOBS_SAMPLE_SECONDS": "often"})

    assert [record.getMessage() for record in caplog.records] == [
        "MPPOBS_LANES is passed over: 'abc' is no whole number above 0",
        "MPPOBS_SAMPLE_SECONDS is passed over: 'often' is no number of seconds",
    ]


def test_every_variable_is_documented() -> None:
    """The page's table of variables is the code's, no more and no less."""
    page = (Path(__file__).parents[2] / "docs" / "instrumenting.md").read_text()
    section = page.split("\n## Variables\n")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]

    assert sorted(name for cell in cells for name in re.findall("MPPOBS_[A-Z_]+", cell)) == sorted(
        (*VARIABLES, *IDENTITY_VARIABLES)
    )
