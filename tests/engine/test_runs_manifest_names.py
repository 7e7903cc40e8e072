"""No name in a manifest leads out of the folder that it is in, and no link is a checkpoint."""

import json
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.runs import checkpoint_names, manifest
from tests import recorded


def test_manifest_that_names_a_file_elsewhere_is_damage(tmp_path: Path) -> None:
    recording = recorded.record(50)
    folder = recording.run.checkpoints / "step-000050"
    (tmp_path / "secret").write_text("s")
    outside = tmp_path / "secret"
    files = json.loads((folder / "manifest.json").read_text())["files"]
    entries = [manifest.Entry(**file) for file in files]
    entries.append(manifest.Entry(str(outside), 1, checkpoint_names.sha256(outside)))
    (folder / "manifest.json").write_text(manifest.text(50, entries))
    assert manifest.damage(folder) == f"{outside} is missing"


def test_checkpoint_that_is_a_link_is_none(tmp_path: Path) -> None:
    run = recorded.record(50).run
    (run.checkpoints / "step-000050").rename(tmp_path / "moved")
    (run.checkpoints / "step-000050").symlink_to(tmp_path / "moved")
    assert checkpoint_names.names(run) == []
    with pytest.raises(UserError, match="has no checkpoint step-000050"):
        checkpoint_names.resolve("step-50", run)
