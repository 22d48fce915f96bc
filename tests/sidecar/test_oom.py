"""A death is laid to the kernel's want of memory where the cgroup counted a kill for it, and not otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mppobs.clock import ManualClock
from mppobs.journal.reader import JournalFiles, scan
from mppobs.sidecar.oom import OomWatch
from tests.journal.journals import START, HandWritten


class Machine:
    """A `/proc` and a `/sys/fs/cgroup` made of files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock(START)
        self.watch = OomWatch(self.clock, root / "proc", root / "cgroup")
        (root / "journals").mkdir()

    def process(self, pid: int, groups: str = "0::/work\n", holds: bool = True) -> JournalFiles:
        """Start a process that owns a journal."""
        journal = HandWritten(self.root / "journals")
        journal.write_head(pid=pid)
        descriptors = self.root / "proc" / str(pid) / "fd"
        descriptors.mkdir(parents=True)
        (descriptors / "0").symlink_to(self.root / "gone")
        if holds:
            (descriptors / "3").symlink_to(journal.lock)
        (descriptors.parent / "cgroup").write_text(groups)
        return next(files for files in scan(journal.directory) if files.journal == journal.journal)

    def count(self, kills: int, name: str = "work/memory.events") -> None:
        """Set a cgroup's count."""
        path = self.root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"low 0\noom 5\noom_kill {kills}\noom_group_kill 9\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with one cgroup that had three kills."""
    made = Machine(tmp_path)
    made.count(3)
    return made


def test_a_kill_explains_one_death(machine: Machine) -> None:
    """Of two workers that died, one kill explains one; older kills explain none."""
    one, two = machine.process(1), machine.process(2)
    machine.watch.watch(one)
    machine.watch.watch(two)
    assert machine.watch.kills(one) == 0

    machine.count(4)

    assert machine.watch.kills(one) == 1
    assert machine.watch.kills(two) == 0


def test_a_kill_explains_for_a_while(machine: Machine) -> None:
    """A kill that was noticed while all workers lived is another process's, and explains no death long after."""
    worker = machine.process(1)
    machine.watch.watch(worker)
    machine.count(4)
    for _ in range(30):
        machine.clock.advance(seconds=1)
        machine.watch.watch(worker)
    assert machine.watch.kills(worker) == 0

    machine.count(5)
    machine.watch.watch(worker)
    machine.clock.advance(seconds=1)
    assert machine.watch.kills(worker) == 1


def test_the_older_form_of_cgroups(machine: Machine) -> None:
    """Version 1 counts in another file."""
    machine.count(0, "memory/batch/memory.oom_control")
    worker = machine.process(1, "7:cpu,cpuacct:/batch\n5:memory:/batch\n")
    machine.watch.watch(worker)
    machine.count(2, "memory/batch/memory.oom_control")

    assert machine.watch.kills(worker) == 2


@pytest.mark.parametrize("what", ["another's number", "no process", "no cgroup", "no lock", "damaged head"])
def test_what_cannot_be_told_is_no_kill(machine: Machine, what: str) -> None:
    """Where the owner's cgroup is not certain, deaths stay unexplained."""
    worker = machine.process(1, holds=what != "another's number")
    if what == "no process":
        os.rename(machine.root / "proc" / "1", machine.root / "proc" / "2")
    if what == "no cgroup":
        (machine.root / "cgroup" / "work" / "memory.events").unlink()
    if what == "no lock":
        worker = JournalFiles(worker.journal, worker.directory, worker.head, None)
    if what == "damaged head":
        assert worker.head is not None
        worker.head.write_bytes(b"x")
    machine.watch.watch(worker)
    machine.count(9)

    assert machine.watch.kills(worker) == 0


def test_a_cgroup_that_went_with_its_process(machine: Machine) -> None:
    """A cgroup that is gone tells of nothing; forgetting the last journal forgets it too."""
    worker = machine.process(1)
    machine.watch.watch(worker)
    (machine.root / "cgroup" / "work" / "memory.events").unlink()
    assert machine.watch.kills(worker) == 0
    machine.watch.forget(worker.journal)
    machine.watch.forget(worker.journal)
    machine.count(50)
    machine.watch.watch(worker)
    assert machine.watch.kills(worker) == 0
