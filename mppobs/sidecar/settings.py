"""
The sidecar's settings: one frozen object, from a file, the environment and flags, in rising precedence.

Every field carries its own documentation, which `mppobs sidecar --help` prints. Durations and sizes are
read as people write them (`15m`, `64MiB`). An unknown key is an error that names the file, the line and the
nearest right word.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mppobs.errors import ConfigError
from mppobs.units import parse_bytes, parse_duration

ENV_PREFIX: Final = "MPPOBS_SIDECAR_"
DEFAULT_PORT: Final = 9466
_DAY: Final = 86400.0


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """
    Return the directory in which workers of this user and this machine write their journals.

    >>> default_directory({"MPPOBS_DIR": "/var/run/mppobs"})
    PosixPath('/var/run/mppobs')
    """
    if given := environ.get("MPPOBS_DIR"):
        return Path(given)
    return Path(tempfile.gettempdir()) / f"mppobs-{os.getuid()}"


def default_state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """
    Return where the aggregator keeps its store, its spool and its archive unless told otherwise.

    >>> default_state_directory({"XDG_STATE_HOME": "/var/lib"})
    PosixPath('/var/lib/mppobs')
    """
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "mppobs"


def is_loopback(host: str) -> bool:
    """
    Return whether listening on `host` can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds(value: object) -> object:
    """Read `90s` and `1h30m` beside plain seconds."""
    if isinstance(value, str):
        return float(value) if _is_number(value) else parse_duration(value)
    return value


def _days(value: object) -> object:
    """Read `30d` and `12h` beside a plain number of days."""
    if isinstance(value, str):
        return float(value) if _is_number(value) else parse_duration(value) / _DAY
    return value


def _size(value: object) -> object:
    """Read `64MiB` and `1GB` beside plain bytes."""
    return parse_bytes(value) if isinstance(value, str) else value


def _paths(value: object) -> object:
    """Split `/a:/b`, as in PATH, and take a single path for a list of one."""
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _url(value: str) -> str:
    """Accept absolute HTTP addresses only; the slash at the end is dropped."""
    if value.startswith(("http://", "https://")):
        return value.rstrip("/")
    raise ValueError(f"{value!r} is no address: write http://host:port")


@dataclass(frozen=True, slots=True)
class Shown:
    """How a setting's value is named in `--help`."""

    metavar: str


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=30 * _DAY), Shown("DURATION")]
Days = Annotated[float, BeforeValidator(_days), Field(gt=0, le=36500), Shown("DAYS")]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0, le=2**50), Shown("SIZE")]
Url = Annotated[str, AfterValidator(_url), Shown("URL")]
Count = Annotated[int, Field(ge=0, le=10**7), Shown("N")]
Directory = Annotated[Path, Shown("DIR")]
File = Annotated[Path, Shown("FILE")]
Token = Annotated[SecretStr, Shown("TOKEN")]

PANELS: Final[Mapping[str, tuple[str, ...]]] = {
    "What to follow": (
        "directories", "state_directory", "poll_seconds", "forward", "forward_token", "forward_token_file",
    ),
    "Listening": (
        "host", "port", "port_file", "write_token", "write_token_file", "read_token", "read_token_file",
    ),
    "Judging jobs": ("settle_seconds", "lease_seconds", "idle_seconds", "retention_days", "price_file"),
    "Promises": ("slo_files", "prometheus_days", "dashboards_url"),
    "Caps on what is exposed": ("max_pipelines", "max_stages", "max_slos", "max_running_jobs_exposed", "worst_k"),
    "Limits on what is accepted": ("max_body_bytes", "max_journals", "spool_bytes", "max_requests_in_flight"),
    "Traces": ("otlp_endpoint", "max_spans_per_job", "span_sample"),
}  # fmt: skip
"""The settings as `--help` groups them; every field is in one group."""


class SidecarSettings(BaseSettings):
    """
    Everything that can be set about a sidecar. Frozen: it is read once, at the start.

    `mppobs.sidecar.sources.load` makes it from a file, the environment and flags, with errors for people.
    Made directly, it takes keyword arguments over the environment, as tests and the demo do.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )  # fmt: skip

    directories: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths), Shown("DIR")] = Field(
        default_factory=lambda: (default_directory(),), min_length=1
    )
    """Directories whose journals are followed: repeat the flag, or write /a:/b in the environment. By default where
    workers of this user write: $MPPOBS_DIR, or mppobs-UID in the temporary directory."""
    state_directory: Directory = Field(default_factory=default_state_directory)
    """Where the aggregator keeps its store, its archive and what agents shipped. Must outlive a restart."""
    poll_seconds: Seconds = 0.5
    """How often journals are read; bounds how old figures are."""
    forward: Url | None = None
    """Address of an aggregator. Makes this sidecar an agent, which ships journals and computes nothing."""
    forward_token: Token | None = None
    """The aggregator's write token (agent)."""
    forward_token_file: File | None = None
    """A file that holds it. Better than a flag, which process lists show."""

    host: Annotated[str, Shown("HOST")] = "127.0.0.1"
    """Address to listen on. Beyond loopback, tokens must be set."""
    port: Annotated[int, Field(ge=0, le=65535), Shown("PORT")] = DEFAULT_PORT
    """Port to listen on; 0 takes a free one and says which."""
    port_file: File | None = None
    """A file to write the port into once the sidecar listens."""
    write_token: Token | None = None
    """What agents must present. Without one, nothing is taken from the network."""
    write_token_file: File | None = None
    """A file that holds the write token."""
    read_token: Token | None = None
    """What readers of /metrics and of the API must present. Optional on loopback."""
    read_token_file: File | None = None
    """A file that holds the read token."""

    settle_seconds: Seconds = 5.0
    """How long a job that ended waits for records that are on their way."""
    lease_seconds: Seconds = 60.0
    """How long a job outlives its coordinator, where the job itself does not say."""
    idle_seconds: Seconds = 60.0
    """Silence after which a job that nobody starts and ends by name is over."""
    retention_days: Days = 30.0
    """How long finished jobs and their archived shards are kept."""
    price_file: File | None = None
    """Prices by node type and per GB shuffled, as YAML. What has no price costs nothing, and is said to have none."""

    slo_files: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths), Shown("FILE")] = ()
    """Files of SLOs (aggregator): repeat the flag, or write a.yaml:b.yaml in the environment. A file that changes is
    taken up at once; one that cannot be understood then leaves the SLOs as they are."""
    prometheus_days: Days = 15.0
    """How long Prometheus keeps samples. Counts of SLOs in windows beyond that are exposed as they are."""
    dashboards_url: Url | None = None
    """Address of the Grafana that has the dashboards, for links in the runbooks at /runbooks."""

    max_pipelines: Annotated[Count, Field(ge=1)] = 1000
    """Pipelines that get series of their own; the rest share __other__."""
    max_stages: Annotated[Count, Field(ge=1)] = 30
    """Stages per pipeline that get series of their own."""
    max_slos: Annotated[Count, Field(ge=1)] = 1000
    """SLOs that the files may hold together."""
    max_running_jobs_exposed: Count = 50
    """Jobs that get mpp_run_* gauges at a time."""
    worst_k: Count = 10
    """Stragglers that are named."""

    max_body_bytes: Bytes = 8 * 2**20
    """Largest request body that is read."""
    max_journals: Annotated[Count, Field(ge=1)] = 20_000
    """Journals that agents may have in the spool at a time."""
    spool_bytes: Bytes = 4 * 2**30
    """Disk that the spool may take; beyond it, agents are told to wait."""
    max_requests_in_flight: Annotated[Count, Field(ge=1)] = 64
    """Shipping requests handled at a time; the rest are told to come again."""

    otlp_endpoint: Url | None = None
    """Where spans of finished jobs go, as OTLP over HTTP, such as http://collector:4318. Without one, none are made."""
    max_spans_per_job: Annotated[Count, Field(ge=1)] = 1000
    """Spans that one job may have."""
    span_sample: Count = 100
    """Ordinary attempts kept per job, beside those that failed or were slow."""

    @model_validator(mode="after")
    def _tokens_once(self) -> Self:
        """Refuse a token that is given twice, and an open door to the network."""
        for name in ("write", "read", "forward"):
            if getattr(self, f"{name}_token") is not None and getattr(self, f"{name}_token_file") is not None:
                raise ValueError(f"{name}_token and {name}_token_file are both set: keep one")
        if not is_loopback(self.host):
            needed = ("read",) if self.is_agent else ("write", "read")
            missing = [f"{name}_token" for name in needed if not self._has_token(name)]
            if missing:
                raise ValueError(
                    f"host {self.host} can be reached from the network, so {' and '.join(missing)} must be set "
                    f"(or as {missing[0]}_file), or host be 127.0.0.1"
                )
        return self

    def _has_token(self, name: str) -> bool:
        return getattr(self, f"{name}_token") is not None or getattr(self, f"{name}_token_file") is not None

    @property
    def is_agent(self) -> bool:
        """Return whether this sidecar only ships."""
        return self.forward is not None

    def token(self, name: str) -> str | None:
        """
        Return the `write`, `read` or `forward` token, from its file if it has one; `None` where none is set.

        Raises ConfigError for a file that cannot be read or holds nothing.
        """
        secret: SecretStr | None = getattr(self, f"{name}_token")
        path: Path | None = getattr(self, f"{name}_token_file")
        if secret is not None:
            value = secret.get_secret_value().strip()
        elif path is not None:
            value = _read_token(path)
        else:
            return None
        if not value or not value.isascii() or not value.isprintable():
            raise ConfigError(f"{path or name + '_token'}: a token is a line of printable ASCII, and this one is not")
        return value


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token cannot be read: {error}") from error
