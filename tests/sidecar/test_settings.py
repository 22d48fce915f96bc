"""Settings: their sources, their precedence, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppobs.errors import ConfigError
from mppobs.sidecar.settings import PANELS, SidecarSettings
from mppobs.sidecar.sources import load


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a path for a configuration file."""
    return tmp_path / "sidecar.yaml"


def test_without_any_source_the_sidecar_listens_on_loopback_and_follows_the_workers_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The defaults are safe and need nothing from anybody."""
    monkeypatch.setenv("MPPOBS_DIR", str(tmp_path))
    loaded = load(environ={})
    assert (loaded.settings.host, loaded.settings.port) == ("127.0.0.1", 9466)
    assert loaded.settings.directories == (tmp_path,)
    assert set(loaded.origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("in_file", "in_environment", "in_flags", "expected"),
    [("1s", None, None, 1), ("1s", "2s", None, 2), ("1s", "2s", "3s", 3), (None, "2s", "3s", 3), ("1s", None, "3s", 3)],
)
def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    config: Path, in_file: str | None, in_environment: str | None, in_flags: str | None, expected: float
) -> None:
    """Each source overrides the one before, and the origin names the one that won."""
    config.write_text(f"settle_seconds: {in_file}\n" if in_file else "")
    environ = {"MPPOBS_SIDECAR_SETTLE_SECONDS": in_environment} if in_environment else {}
    flags = {"settle_seconds": in_flags} if in_flags else {}
    loaded = load(config, flags, environ)
    origin = "--settle-seconds" if in_flags else "MPPOBS_SIDECAR_SETTLE_SECONDS" if in_environment else f"{config}:1"
    assert loaded.settings.settle_seconds == expected
    assert loaded.origins["settle_seconds"].startswith(origin)


def test_sizes_durations_and_paths_are_read_as_people_write_them(config: Path) -> None:
    """Units are understood in every source."""
    config.write_text("max_body_bytes: 64KiB\nretention_days: 12h\ndirectories: [/a, /b]\nidle_seconds: 1.5\n")
    found = load(config, {}, {"MPPOBS_SIDECAR_DIRECTORIES": "/c:/d", "MPPOBS_SIDECAR_LEASE_SECONDS": "2m"}).settings
    assert found.max_body_bytes == 65536
    assert found.retention_days == 0.5
    assert found.idle_seconds == 1.5
    assert found.lease_seconds == 120
    assert found.directories == (Path("/c"), Path("/d"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("port: 1\nsetle_seconds: 5\n", [":2:", "unknown key 'setle_seconds'", "'settle_seconds'"]),
        ("port: 1\nport: 2\n", [":2:", "given twice"]),
        ("settle_seconds: soon\n", [":1:", "'soon' is no duration", "30s"]),
        ("\nmax_body_bytes: 3 furlongs\n", [":2:", "no size"]),
        ("port: 70000\n", [":1:", "port", "65535"]),
        ("host: {a: 1}\n", [":1:", "expected a value"]),
        ("forward: collector:9466\n", [":1:", "forward", "http://host:port"]),
        ("- a\n", [":1:", "expected keys and values"]),
        ("a: [\n", [":2:"]),
        ("worst_k: -1\n", [":1:", "worst_k"]),
        ("settle_seconds: .nan\n", [":1:", "settle_seconds"]),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(config: Path, text: str, parts: list[str]) -> None:
    """What, where, and what was meant."""
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(config, {}, {})
    for part in [str(config), *parts]:
        assert part in str(caught.value)


def test_a_key_may_be_the_flag_s_name(config: Path) -> None:
    """`directory` and `slo` beside the settings' own names, in the file and the environment; never both."""
    config.write_text("directory: [/a, /b]\n")
    found = load(config, {}, {"MPPOBS_SIDECAR_SLO": "/x.yaml:/y.yaml"})
    assert found.settings.directories == (Path("/a"), Path("/b"))
    assert found.settings.slo_files == (Path("/x.yaml"), Path("/y.yaml"))
    assert found.origins["directories"] == f"{config}:1: directory"
    config.write_text("directory: /a\ndirectories: /b\n")
    with pytest.raises(ConfigError, match=r":2: directories: is also given as .*:1: directory"):
        load(config, {}, {})


def test_sizes_are_listed_as_one_types_them() -> None:
    """The default of the spool is 4GiB; what has no short form stays exact."""
    rows = {name: value for name, value, _ in load(flags={"max_body_bytes": "65537"}, environ={}).rows()}
    assert (rows["spool_bytes"], rows["max_body_bytes"]) == ("4GiB", "65537")


def test_a_mistake_in_the_environment_or_in_a_flag_names_the_variable_or_the_flag() -> None:
    """The other two sources are named as people typed them."""
    with pytest.raises(ConfigError, match=r"'MPPOBS_SIDECAR_PROT'.*did you mean 'MPPOBS_SIDECAR_PORT'"):
        load(environ={"MPPOBS_SIDECAR_PROT": "1"})
    with pytest.raises(ConfigError, match=r"^MPPOBS_SIDECAR_PORT: must be a whole number"):
        load(environ={"MPPOBS_SIDECAR_PORT": "one"})
    with pytest.raises(ConfigError, match=r"^--idle-seconds: 'x' is no duration"):
        load(flags={"idle_seconds": "x"}, environ={})
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load(Path("none.yaml"), {}, {})


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, ["write_token", "read_token"]),
        ({"write_token": "w"}, ["read_token"]),
        ({"read_token": "r"}, ["write_token"]),
        ({"forward": "http://a"}, ["read_token"]),
        ({"read_token": "r", "write_token": "w"}, []),
        ({"read_token_file": "/r", "write_token_file": "/w"}, []),
        ({"forward": "http://a", "read_token": "r"}, []),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "sidecar.example"])
def test_listening_beyond_loopback_needs_tokens(values: dict[str, str], missing: list[str], host: str) -> None:
    """An open door to the network is refused, with what to set."""
    if not missing:
        assert load(flags={"host": host, **values}, environ={}).settings.host == host
        return
    with pytest.raises(ConfigError, match="can be reached from the network") as caught:
        load(flags={"host": host, **values}, environ={})
    assert all(name in str(caught.value) for name in missing)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    """On one machine nothing must be set."""
    assert load(flags={"host": host}, environ={}).settings.token("read") is None


def test_tokens_come_from_a_value_or_a_file_and_never_from_both(tmp_path: Path) -> None:
    """A token file is stripped; ambiguity and unusable files are errors."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    assert load(flags={"write_token_file": str(path)}, environ={}).settings.token("write") == "s3cret"
    assert load(environ={"MPPOBS_SIDECAR_READ_TOKEN": "r"}).settings.token("read") == "r"
    with pytest.raises(ConfigError, match="both set"):
        load(flags={"write_token_file": str(path), "write_token": "x"}, environ={})
    path.write_text(" \n")
    with pytest.raises(ConfigError, match="printable ASCII"):
        load(flags={"write_token_file": str(path)}, environ={}).settings.token("write")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(flags={"write_token_file": str(tmp_path / "none")}, environ={}).settings.token("write")


def test_no_listing_and_no_error_shows_a_secret() -> None:
    """Tokens are masked wherever settings are printed."""
    loaded = load(flags={"write_token": "hunter2", "read_token": "hunter2"}, environ={})
    assert "hunter2" not in repr(loaded.rows()) + repr(loaded.settings) + str(loaded.settings)
    with pytest.raises(ConfigError) as caught:
        load(flags={"write_token": "hunter2", "port": "hunter2"}, environ={})
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_documented_and_listed_in_one_panel() -> None:
    """`--help` leaves no setting out."""
    listed = [name for names in PANELS.values() for name in names]
    assert sorted(listed) == sorted(SidecarSettings.model_fields)
    assert all(field.description for field in SidecarSettings.model_fields.values())


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(SidecarSettings.model_fields)),
        st.one_of(st.text(), st.integers().map(str), st.floats().map(str)),
    )
)
def test_whatever_is_typed_gives_settings_or_a_config_error(flags: dict[str, str]) -> None:
    """No other exception ever reaches the user."""
    try:
        loaded = load(flags=flags, environ={})
    except ConfigError:
        return
    assert set(loaded.origins) == set(SidecarSettings.model_fields)
