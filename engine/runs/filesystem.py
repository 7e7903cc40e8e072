"""On what kind of file system a folder lies, and whether a run's store may.

SQLite's write-ahead log needs memory that all who open it share, which file systems over a
network do not give: there a store can be damaged without a word.
"""

import re
from pathlib import Path

from engine.errors import UserError
from engine.text import one_line

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "lustre",
        "gpfs",
        "ceph",
        "afs",
        "beegfs",
    }
)
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.gocryptfs", "fuse.encfs", "fuse.mergerfs", "fuse.bindfs"})
"""Known to work on one machine's disks alone; any other of its kind may be anything."""


def mount_type(path: Path, mountinfo: str) -> str | None:
    """File system type of an absolute ``path`` by the text of mountinfo; None where unknown."""
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if not separator or len(fields) < 5:
            continue
        # Blanks and the like stand as octal escapes in mountinfo.
        point = Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if path.is_relative_to(point):
            depth = len(point.parts)
            # Of two mounts on one point, the later one hides the earlier.
            if best is None or depth >= best[0]:
                best = (depth, after.split(" ")[0])
    return best[1] if best else None


def type_of(path: Path) -> str | None:
    """File system type of ``path``, which need not exist yet; None where the system tells none."""
    place = path.expanduser().absolute()
    existing = next((one for one in (place, *place.parents) if one.exists()), Path("/"))
    try:
        mountinfo = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return mount_type(existing.resolve(), mountinfo)


def is_unfit(kind: str | None) -> bool:
    """Whether a store on this kind of file system can be damaged; an unknown kind passes."""
    if kind is None or kind in _LOCAL_FUSE:
        return False
    return kind in NETWORK or kind == "fuse" or kind.startswith("fuse.")


def refuse_unfit(place: Path) -> None:
    """Say that runs cannot live at ``place``.

    Raises:
        UserError: it lies on a network file system, or on one that may be.
    """
    kind = type_of(place)
    if is_unfit(kind):
        raise UserError(
            f"this folder lies on {one_line(str(kind), 40)}, where a run's store can be damaged",
            where=one_line(str(place)),
            fix="set STONK_HOME to a folder on a local disk",
        )
