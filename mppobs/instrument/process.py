"""What the kernel says of this process and its cgroup: memory, its limit, throttling, OOM kills."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_UNLIMITED: Final = 1 << 60
"""Limits from here on mean that there is none (cgroup v1 writes a huge number)."""


class Usage(NamedTuple):
    """What a process uses, in bytes and nanoseconds; 0 where the kernel does not say."""

    rss: int = 0
    peak_rss: int = 0
    memory_limit: int = 0
    throttled_ns: int = 0
    oom_kills: int = 0


class ProcessReader:
    """
    Reads the usage of this process. Where the files are is found out once.

    `root` is where `/proc` and `/sys` are; tests give another.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._status = root / "proc/self/status"
        machine = _pairs(_text(root / "proc/meminfo").replace(":", " "))
        self._machine_memory = machine.get("MemTotal", 0) * 1024
        memberships = _memberships(_text(root / "proc/self/cgroup"))
        base = root / "sys/fs/cgroup"
        unified = memberships.get("")
        self._v2 = _lineage(base, unified) if unified is not None and (base / "cgroup.controllers").exists() else []
        self._memory = [] if self._v2 else _lineage(base / "memory", memberships.get("memory", "/"))
        self._cpu = [] if self._v2 else _lineage(base / "cpu", memberships.get("cpu", "/"))

    def read(self) -> Usage:
        """Return what the process uses now."""
        status = _pairs(_text(self._status).replace(":", " "))
        rss, peak = status.get("VmRSS", 0) * 1024, status.get("VmHWM", 0) * 1024
        if self._v2:
            return self._with_v2(rss, peak)
        limit = self._least(directory / "memory.limit_in_bytes" for directory in self._memory)
        kills = _first(self._memory, "memory.oom_control").get("oom_kill", 0)
        throttled = _first(self._cpu, "cpu.stat").get("throttled_time", 0)
        return Usage(rss, peak, limit, throttled, kills)

    def _with_v2(self, rss: int, peak: int) -> Usage:
        limit = self._least(directory / "memory.max" for directory in self._v2)
        kills = _first(self._v2, "memory.events").get("oom_kill", 0)
        throttled = _first(self._v2, "cpu.stat").get("throttled_usec", 0) * 1000
        return Usage(rss, peak, limit, throttled, kills)

    def _least(self, paths: Iterable[Path]) -> int:
        """Return the tightest limit; without a cgroup that has one, all of the machine's memory is the limit."""
        limits = [int(text) for path in paths if (text := _text(path).strip()).isdigit()]
        return min((limit for limit in (*limits, self._machine_memory) if 0 < limit < _UNLIMITED), default=0)


def _memberships(text: str) -> dict[str, str]:
    """Return the cgroup path by controller; that of version 2 has the empty name."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _lineage(base: Path, path: str) -> list[Path]:
    """Return a cgroup's directory and those above it, the innermost first, as far as they are visible from here."""
    inner = base / path.lstrip("/")
    if not inner.is_relative_to(base) or ".." in inner.parts or not inner.is_dir():
        inner = base
    lineage = [inner, *(parent for parent in inner.parents if parent.is_relative_to(base))]
    return [directory for directory in lineage if directory.is_dir()]


def _first(lineage: list[Path], name: str) -> dict[str, int]:
    """Return the numbers of the innermost directory that has the file."""
    return next((pairs for directory in lineage if (pairs := _pairs(_text(directory / name)))), {})


def _pairs(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""  # a kernel, or a sandbox, without this file
