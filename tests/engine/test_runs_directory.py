"""Runs on disk: how they are named, who holds them, what is refused."""

import datetime as dt
import json
import os
import socket
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from engine import config as configuration
from engine.config import SCHEMA_VERSION, RunConfig
from engine.errors import UserError
from engine.runs import checkpoint_names, directory
from engine.runs.directory import RunDirectory
from engine.runs.durable import write_atomically
from engine.runs.home import home, runs_directory, socket_directory
from engine.runs.status import effective_state, read_history, status
from engine.runs.store import EventStore

NOON = dt.datetime(2026, 11, 20, 12, 0, 0)


def make(name: str = "stage1", *, minutes: int = 0) -> RunDirectory:
    config = configuration.with_overrides(RunConfig(), [f"name={name}"])
    return directory.create(config, now=NOON + dt.timedelta(minutes=minutes))


def test_new_run_is_named_by_time_and_name_and_keeps_its_configuration() -> None:
    run = make("mine")
    assert run.id == "20261120-120000-mine"
    assert run.config().name == "mine"
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


def test_runs_of_the_same_second_have_names_of_their_own() -> None:
    assert [make().id[-9:] for _ in range(3)] == ["00-stage1", "-stage1-2", "-stage1-3"]


def test_runs_are_listed_newest_first_and_strangers_are_left_out() -> None:
    old, new = make(minutes=0), make(minutes=5)
    (runs_directory() / "notes").mkdir()
    (runs_directory() / "file.txt").touch()
    assert [run.id for run in directory.list_runs()] == [new.id, old.id]


def test_any_unambiguous_part_names_a_run() -> None:
    first, second = make("alpha"), make("beta", minutes=1)
    assert directory.find(None).id == second.id
    assert directory.find("alpha").id == first.id
    assert directory.find("1201").id == second.id
    assert directory.find(first.id).id == first.id


def test_whole_id_wins_over_a_longer_one_that_holds_it() -> None:
    first, second = make(), make()
    assert second.id.startswith(first.id)
    assert directory.find(first.id).id == first.id


def test_longest_name_can_be_written_out_in_full() -> None:
    name = "n" * 48
    assert [directory.find(make(name).id).id for _ in range(2)]


@pytest.mark.parametrize(
    "name", ["..", ".", "../other", "/etc", "a/b", "a\x00b", "a\n", "\x1b[2J", "a b", "", "n" * 99]
)
def test_name_that_is_no_run_id_is_refused(name: str) -> None:
    make()
    with pytest.raises(UserError, match="is not a run id") as caught:
        directory.find(name)
    assert "\x1b" not in str(caught.value)


def test_ambiguous_and_unknown_names_say_so() -> None:
    make("alpha")
    make("alpha", minutes=1)
    with pytest.raises(UserError, match=r"means 2 runs: .*alpha.*write more of the id"):
        directory.find("alpha")
    with pytest.raises(UserError, match="no run called 'gamma'"):
        directory.find("gamma")


def test_without_a_run_the_way_to_the_first_is_named() -> None:
    with pytest.raises(UserError, match="stonk-tui demo"):
        directory.find(None)


def test_run_of_a_newer_version_is_one_clear_line() -> None:
    run = make()
    values = yaml.safe_load((run.path / "run.yaml").read_text())
    (run.path / "run.yaml").write_text(yaml.safe_dump(values | {"schema": SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match=rf"newer stonk-tui \(schema {SCHEMA_VERSION + 1}"):
        run.config()


@pytest.mark.parametrize("text", ["", "schema: one\n", "- a\n", "{", "schema: 1\nconfig: [1]\n"])
def test_damaged_configuration_is_a_user_error(text: str) -> None:
    run = make()
    (run.path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=r"run\.yaml"):
        run.config()


def test_run_that_may_not_be_read_is_listed_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, foreign = make(), make("foreign")
    is_file, read_text = Path.is_file, Path.read_text

    def refuse_is_file(self: Path) -> bool:
        if foreign.path in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return is_file(self)

    def refuse_read(self: Path, **options: str) -> str:
        if foreign.path in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, **options)

    monkeypatch.setattr(Path, "is_file", refuse_is_file)
    monkeypatch.setattr(Path, "read_text", refuse_read)
    assert set(directory.list_runs()) == {mine, foreign}
    with pytest.raises(UserError, match="denied; see whether folder and file are yours"):
        foreign.config()


def test_run_that_nobody_lets_us_look_into_is_not_prepared_and_has_no_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    run = make()
    for name in ("exists", "is_dir", "iterdir"):
        monkeypatch.setattr(Path, name, refuse)
    assert not run.is_prepared
    assert checkpoint_names.names(run) == []


def test_place_that_cannot_be_written_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    home().mkdir(parents=True)
    runs_directory().write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot make a run directory"):
        make()


def test_half_made_run_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "write_atomically", full)
    with pytest.raises(UserError, match="No space left on device"):
        make()
    assert list(runs_directory().iterdir()) == []


def test_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STONK_HOME", "here")
    assert home() == tmp_path / "here"


def test_worker_is_known_until_it_is_gone() -> None:
    run = make()
    assert run.worker() is None
    run.record_worker()
    worker = run.worker()
    assert worker is not None
    assert worker.pid == os.getpid()


@pytest.mark.parametrize(
    "record",
    [
        "not JSON",
        "[]",
        "{}",
        json.dumps({"pid": 2**22 + 1, "created": 0}),
        json.dumps({"pid": os.getpid(), "created": psutil.Process().create_time() - 60}),
    ],
    ids=["garbage", "list", "empty", "no such process", "number given away again"],
)
def test_record_that_fits_no_process_is_no_worker(record: str) -> None:
    run = make()
    (run.path / "worker.json").write_text(record)
    assert run.worker() is None


def test_second_worker_of_a_run_is_refused() -> None:
    run = make()
    with run.locked(), pytest.raises(UserError, match="already has a worker"), run.locked():
        pass
    with run.locked():
        pass


def test_lock_that_is_about_to_be_let_go_of_is_waited_for() -> None:
    """A killed process of many threads looks dead before the last of them closes its files."""
    run = make()

    def hold() -> str:
        with run.locked(patience=30):
            return "held"

    with ThreadPoolExecutor(1) as pool:
        with run.locked():
            second = pool.submit(hold)
            with pytest.raises(TimeoutError):
                second.result(0.2)
        assert second.result(30) == "held"


def test_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "new \ud800")
    assert file.read_text() == "old"
    write_atomically(file, "new")
    assert file.read_text() == "new"


def test_socket_directory_that_others_can_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_directory() == tmp_path / "stonk-tui"
    socket_directory().chmod(0o755)
    with pytest.raises(UserError, match="not a private directory"):
        socket_directory()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_socket_directory_that_is_none_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if kind == "file":
        (tmp_path / "stonk-tui").touch()
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / "stonk-tui").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not a private directory"):
        socket_directory()


def test_any_run_can_bind_its_socket_in_the_longest_directory_and_a_longer_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make("n" * 48)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        longest = Path(short) / ("d" * (75 - len(short) - 1))
        longer = Path(short) / (longest.name + "d")
        longest.mkdir()
        longer.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(longest))
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(run.socket))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(longer))
        with pytest.raises(UserError, match="too long"):
            _ = run.socket


def test_unfinished_run_without_a_worker_is_stale() -> None:
    run = make()
    assert effective_state(run, read_history(run))[0] == "stale"
    store = EventStore(run.database)
    store.event("state", {"state": "training"})
    store.flush()
    state, detail = effective_state(run, read_history(run))
    assert state == "stale"
    assert f"train --resume {run.id}" in detail
    run.record_worker()
    assert effective_state(run, read_history(run))[0] == "training"
    store.event("state", {"state": "finished"})
    store.close()
    assert status(run)["state"] == "finished"


def test_status_speaks_of_the_run_before_its_store_exists() -> None:
    run = make()
    run.record_worker()
    found = status(run)
    assert (found["state"], found["step"], found["pid"]) == ("starting", 0, os.getpid())
