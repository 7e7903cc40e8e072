"""Where a store may lie: local file systems, and nothing that is or may be a network's."""

from pathlib import Path

import pytest

from engine.errors import UserError
from engine.runs import filesystem

MOUNTINFO = r"""
22 28 0:21 / /proc rw,nosuid - proc proc rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 28 0:35 / /home rw,relatime shared:20 - nfs4 server:/home rw,vers=4.2
41 40 0:36 / /home/ann/local rw - xfs /dev/sdb1 rw
42 28 0:37 / /mnt/two\040words rw - fuse.sshfs ann@host:/ rw
43 28 0:38 / /data rw - ext4 /dev/sdc1 rw
44 28 0:39 / /data rw - cifs //server/data rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homes/ann", "ext4"),
        ("/home/ann/runs", "nfs4"),
        ("/home/ann/local/runs", "xfs"),
        ("/mnt/two words/x", "fuse.sshfs"),
        ("/data/x", "cifs"),
    ],
)
def test_the_deepest_and_latest_mount_decides(path: str, kind: str) -> None:
    assert filesystem.mount_type(Path(path), MOUNTINFO) == kind


def test_text_without_a_mount_tells_nothing() -> None:
    assert filesystem.mount_type(Path("/x"), "") is None
    assert filesystem.mount_type(Path("/x"), "1 2 3 - ext4\n - \n") is None


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "9p",
        "lustre",
        "gpfs",
        "ceph",
        "fuse",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.whatever",
    ],
)
def test_networks_and_unknown_fuse_are_refused(kind: str) -> None:
    assert filesystem.is_unfit(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.gocryptfs", None]
)
def test_local_and_unknown_kinds_pass(kind: str | None) -> None:
    assert not filesystem.is_unfit(kind)


def test_the_refusal_is_one_line_with_place_reason_and_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 0:3 / {tmp_path.resolve()} rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)
    with pytest.raises(UserError) as refused:
        filesystem.refuse_unfit(tmp_path / "not" / "there" / "yet")
    assert str(refused.value) == (
        f"{tmp_path}/not/there/yet: this folder lies on nfs4, where a run's store can be damaged; "
        "set STONK_HOME to a folder on a local disk"
    )
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "missing")
    filesystem.refuse_unfit(tmp_path)
