"""Which job, shard, attempt and node this process is, as far as its platform says so in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from mppobs.instrument.names import clean
from mppobs.model import Shard


class Identity(NamedTuple):
    """What a platform says about a process. Empty texts and `None` where it says nothing."""

    job_id: str = ""
    shard: Shard | None = None
    attempt: int = 0
    """From 0, whatever the platform counts from."""
    node: str = ""
    detector: str = ""
    """The platform that named the shard: a row of `PLATFORMS`, or `mppobs` for MPPOBS_SHARD."""


class Platform(NamedTuple):
    """How one platform names things: a row of the table."""

    name: str
    shard: str
    """The variable that holds the shard; the platform is recognised by it."""
    jobs: tuple[str, ...]
    """Variables that may hold the job, the best first."""
    attempt: str = ""
    first_attempt: int = 0
    """The number that the platform gives to a first attempt."""
    node: str = ""
    job_ends_in_shard: bool = False
    """Whether the job's variable holds `<job>-<shard>`."""


PLATFORMS: Final = (
    # An Indexed Job's pods are called <job>-<index>; the failure count of an index is only an annotation, which
    # the downward API can put into MPPOBS_ATTEMPT.
    Platform("kubernetes", "JOB_COMPLETION_INDEX", ("HOSTNAME",), job_ends_in_shard=True),
    Platform("slurm", "SLURM_ARRAY_TASK_ID", ("SLURM_ARRAY_JOB_ID",), "SLURM_RESTART_COUNT", node="SLURMD_NODENAME"),
)
"""The platforms that are recognised, from the innermost task runtime to the outermost scheduler."""


def detect(environ: Mapping[str, str]) -> Identity:
    """
    Return the identity that the environment gives. MPPOBS_* win over what the platform says, one by one.

    >>> detect({"JOB_COMPLETION_INDEX": "3", "HOSTNAME": "scoring-3"})
    Identity(job_id='scoring', shard=3, attempt=0, node='', detector='kubernetes')
    >>> detect({"SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": "2", "MPPOBS_JOB_ID": "n1"})
    Identity(job_id='n1', shard=7, attempt=2, node='', detector='slurm')
    """
    platform = next((row for row in PLATFORMS if environ.get(row.shard)), None)
    found = _read(platform, environ) if platform else Identity()
    own_shard = environ.get("MPPOBS_SHARD", "")
    return Identity(
        job_id=clean(environ.get("MPPOBS_JOB_ID") or found.job_id),
        shard=parse_shard(own_shard) if own_shard else found.shard,
        attempt=_number(environ.get("MPPOBS_ATTEMPT", ""), found.attempt),
        node=environ.get("MPPOBS_NODE") or found.node,
        detector="mppobs" if own_shard else found.detector,
    )


def parse_shard(text: str) -> Shard:
    """
    Return a shard from its text: an integer where it is written as one.

    >>> parse_shard("7"), parse_shard("07"), parse_shard("part-7")
    (7, '07', 'part-7')
    """
    return int(text) if text.isascii() and text.isdigit() and str(int(text)) == text else text


def _read(platform: Platform, environ: Mapping[str, str]) -> Identity:
    shard = environ[platform.shard]
    job_id = next((environ[name] for name in platform.jobs if environ.get(name)), "")
    if platform.job_ends_in_shard:
        job_id = job_id.removesuffix(f"-{shard}") if job_id.endswith(f"-{shard}") else ""
    attempt = _number(environ.get(platform.attempt, ""), platform.first_attempt) - platform.first_attempt
    return Identity(job_id, parse_shard(shard), max(attempt, 0), environ.get(platform.node, ""), platform.name)


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() else otherwise
