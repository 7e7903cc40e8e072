"""Deleting a run: never a living one, never elsewhere, never through a link."""

import os
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.runs import deletion, directory, home
from engine.runs.directory import RunDirectory
from tests import recorded


def finished(name: str = "demo", steps: int = 60) -> RunDirectory:
    return recorded.record(steps, name=name, state="finished").run


def test_run_is_gone_with_all_that_is_in_it_and_the_others_stay() -> None:
    run, other = finished("one"), finished("two")
    plan = deletion.plan(run)
    assert (plan.num_checkpoints, plan.consequences) == (1, ())
    assert plan.size > run.database.stat().st_size
    deletion.delete(run)
    assert not run.path.exists()
    assert directory.list_runs() == [other]


def test_living_run_is_refused() -> None:
    run = recorded.record(3).run
    for act in (deletion.plan, deletion.delete):
        with pytest.raises(UserError, match=r"is at work and is not deleted; end it first"):
            act(run)
    assert run.database.exists()


def test_run_that_a_worker_holds_without_having_said_so_is_refused() -> None:
    run = finished()
    with run.locked(), pytest.raises(UserError, match="already has a worker"):
        deletion.delete(run)
    assert (run.path / "run.yaml").exists()


def test_run_elsewhere_is_refused(tmp_path: Path) -> None:
    run = finished()
    elsewhere = tmp_path / "elsewhere"
    run.path.rename(elsewhere)
    with pytest.raises(UserError, match="does not lie in the folder of runs"):
        deletion.delete(RunDirectory(elsewhere))
    with pytest.raises(UserError, match="does not lie in the folder of runs"):
        deletion.delete(RunDirectory(home.runs_directory() / ".." / "runs" / ".." / "x"))
    assert (elsewhere / "run.yaml").exists()


def test_link_to_a_run_is_refused(tmp_path: Path) -> None:
    run = finished()
    target = tmp_path / "target"
    run.path.rename(target)
    run.path.symlink_to(target)
    with pytest.raises(UserError, match="is a link"):
        deletion.delete(run)
    assert (target / "run.yaml").exists()
    assert run.path.is_symlink()


def test_links_inside_a_run_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    run = finished()
    (run.path / "folder").symlink_to(precious)
    (run.path / "file").symlink_to(precious / "thesis.txt")
    (run.checkpoints / "step-000001").symlink_to(precious)
    deletion.delete(run)
    assert not run.path.exists()
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_child_with_its_own_copy_goes_on_and_the_loss_is_said() -> None:
    parent = recorded.record(60, state="finished")
    child = recorded.promote(parent).run
    (consequence,) = deletion.plan(parent.run).consequences
    assert child.id in consequence
    assert "has its own copy of the policy and goes on" in consequence
    deletion.delete(parent.run)
    assert directory.list_runs() == [child]
    # The child itself is nobody's parent.
    assert deletion.plan(child).consequences == ()


def test_parent_of_a_child_with_a_damaged_copy_is_refused() -> None:
    parent = recorded.record(60, state="finished")
    child = recorded.promote(parent).run
    adapter = child.stage1 / "adapter_model.safetensors"
    adapter.chmod(0o644)
    adapter.write_bytes(b"half of it")
    with pytest.raises(UserError, match=f"promoted from it.*damaged; delete {child.id} first"):
        deletion.plan(parent.run)
    assert parent.run.path.exists()


def test_parent_that_a_child_only_links_to_is_refused() -> None:
    parent = recorded.record(60, state="finished")
    child = recorded.promote(parent).run
    adapter = child.stage1 / "adapter_model.safetensors"
    adapter.unlink()
    adapter.symlink_to(parent.run.checkpoints / "step-000050" / "adapter_model.safetensors")
    with pytest.raises(UserError, match="its policy is a link into this run"):
        deletion.delete(parent.run)
    assert parent.run.path.exists()


def test_record_that_cannot_be_read_needs_nothing() -> None:
    parent = recorded.record(60, state="finished")
    child = recorded.promote(parent).run
    child.promotion.chmod(0o644)
    child.promotion.write_text("not json")
    assert deletion.plan(parent.run).consequences == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_cannot_be_removed_is_named() -> None:
    run = finished()
    folder = run.checkpoints / "step-000050"
    folder.chmod(0o500)
    try:
        with pytest.raises(UserError, match="could not be deleted whole"):
            deletion.delete(run)
    finally:
        folder.chmod(0o700)
    # What is left is no run any more.
    assert directory.list_runs() == []
