"""No name in a file leads out of the folder that the file is in."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from engine.runs import checkpoint_names
from engine.runs.inside import inside
from tests import recorded

OUTSIDE = [
    "..",
    ".",
    "",
    "../secret",
    "train/../../secret",
    "/etc/passwd",
    "train//x",
    "a" * 65,
    "x\x00y",
    "x\ny",
    "caf\u00e9",
    "~/x",
    {"name": 1},
    None,
]


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_name_that_leads_out_is_refused(name: object, tmp_path: Path) -> None:
    if name is None:  # a plain word, which stays inside
        assert inside(tmp_path, name) == tmp_path / "None"
        return
    with pytest.raises(UserError, match="leads out of it") as caught:
        inside(tmp_path, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "train/state.json", "..x", "-r"])
def test_plain_names_are_taken(name: str, tmp_path: Path) -> None:
    assert inside(tmp_path, name) == tmp_path / name


def test_links_are_refused_wherever_they_lead(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "train").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    (folder / "own").symlink_to(folder / "train")
    for name in ("file", "out/secret", "own/x"):
        with pytest.raises(UserError, match="leads out of it"):
            inside(folder, name)


@given(st.text(max_size=40))
def test_whatever_the_name_the_path_is_below_the_folder(name: str) -> None:
    folder = Path("/nowhere/checkpoint")
    try:
        path = inside(folder, name)
    except UserError:
        return
    assert folder in path.parents


def test_manifest_that_names_a_file_elsewhere_is_damage(tmp_path: Path) -> None:
    recording = recorded.record(50)
    folder = recording.run.checkpoints / "step-000050"
    (tmp_path / "secret").write_text("s")
    outside = tmp_path / "secret"
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"name": str(outside), "size": 1, "sha256": checkpoint_names.sha256(outside)}
    (folder / "manifest.json").write_text(json.dumps({"files": [*manifest["files"], entry]}))
    assert "leads out of it" in str(checkpoint_names.damage(folder))


def test_checkpoint_that_is_a_link_is_none(tmp_path: Path) -> None:
    run = recorded.record(50).run
    (run.checkpoints / "step-000050").rename(tmp_path / "moved")
    (run.checkpoints / "step-000050").symlink_to(tmp_path / "moved")
    assert checkpoint_names.names(run) == []
    with pytest.raises(UserError, match="has no checkpoint step-000050"):
        checkpoint_names.resolve("step-50", run)
