"""Which file system a directory is on. A journal needs a local one: locks and mappings do not hold across a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mppobs.errors import ConfigError

NETWORK_TYPES: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip
"""File systems on which another machine may hold the pages or the locks."""

_LOCAL_FUSE: Final = frozenset({"fuse.fuse-overlayfs"})
"""The root of a rootless container; everything else that is named `fuse.` is taken for remote."""


def filesystem_type(directory: Path, mountinfo: str) -> str:
    """
    Return the type of the file system that holds a directory, from the text of `/proc/self/mountinfo`.

    The directory must be absolute and free of links. Unknown is the empty text.

    >>> table = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\\n30 22 0:44 / /data rw,noatime shared:5 - nfs4 host:/x rw\\n"
    >>> filesystem_type(Path("/data/journals"), table), filesystem_type(Path("/database"), table)
    ('nfs4', 'ext4')
    """
    best, found = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # Later lines are mounted over earlier ones at the same place, so equal lengths replace.
        if len(point.parts) >= best and directory.is_relative_to(point):
            best, found = len(point.parts), after.split(" ")[0]
    return found


def is_network(kind: str) -> bool:
    """
    Return whether a file system type is one that a journal must not live on.

    >>> is_network("nfs4"), is_network("fuse.sshfs"), is_network("ext4")
    (True, True, False)
    """
    return kind in NETWORK_TYPES or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def require_local(directory: Path) -> None:
    """Raise `ConfigError` where the directory is on a network file system. Where the kernel does not say, accept it."""
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return  # no /proc: nothing can be said, and a local directory is by far the likelier case
    kind = filesystem_type(Path(os.path.realpath(directory)), table)
    if is_network(kind):
        raise ConfigError(
            f"{directory} is on a network file system ({kind}): a journal needs a local one, such as an emptyDir: "
            "set MPPOBS_DIR or configure(directory=...)"
        )
