"""The command line: what can be typed, what is printed where, and with which exit code."""

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from engine import config as configuration
from engine.config import SCHEMA_VERSION, RunConfig
from engine.errors import UserError
from engine.runs import devices, directory, launcher, live_settings
from engine.runs.control import ControlServer
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore
from stonk_tui import prepare
from stonk_tui.cli import app
from stonk_tui.commands import cockpit
from tests.market_files import rows, write_csv
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]

WORKER = '''
"""Stands in for the worker: the real store and socket, training made up."""
import sys
from pathlib import Path
from engine.runs.control import ControlServer
from engine.runs.directory import RunDirectory, exclusive
from engine.runs.launcher import device_lock
from engine.runs.store import EventStore

run = RunDirectory(Path(sys.argv[1]))
config = run.config()
run.record_worker()
store = EventStore(run.database)
server = ControlServer(run.socket, store)
with exclusive(device_lock(config.model.device), run.id):
    store.event("worker", {"pid": 1, "device": "cpu", "max_steps": config.schedule.max_steps})
    store.event("state", {"state": "training"})
    first, detail = 1 + (store.attempt - 1) * 2, ""
    for number in range(first, config.schedule.max_steps + 1):
        metrics = {"reward/total": number / 10, "reward/format": 0.5, "accuracy": 0.5}
        store.event("step", {"metrics": metrics, "seconds": {"total": 0.1}}, step=number)
        if config.name == "waits" and store.attempt == 1 and number == 2:
            command = server.commands.get()
            store.answer(command.id, command.verb, ok=True, message="stopped at step 2")
            detail = "stopped by command, without a checkpoint"
            break
        if config.name == "fails":
            store.event("state", {"state": "failed", "detail": "the loss is not finite"})
            store.close()
            sys.exit(1)
        if config.name == "dies":
            store.flush()
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
server.close()
store.event("state", {"state": "finished", "detail": detail})
store.close()
'''


@pytest.fixture(autouse=True)
def stand_in_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of these tests train nothing; devices are those of a machine without a GPU."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "stand_in_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setattr(launcher, "WORKER_MODULE", "stand_in_worker")
    monkeypatch.setattr(devices, "gpus", list)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that passes every check of a base model."""
    folder = tmp_path / "a model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def living() -> Iterator[tuple[RunDirectory, EventStore, ControlServer]]:
    """A run at work: this process is its worker."""
    run = directory.create(configuration.preset("demo"))
    run.record_worker()
    store = EventStore(run.database)
    server = ControlServer(run.socket, store)
    store.event("worker", {"pid": os.getpid(), "device": "cpu", "max_steps": 40})
    store.event("state", {"state": "training"})
    store.flush()
    yield run, store, server
    server.close()
    store.close()


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stonk_tui", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)} | environment,
        timeout=120,
    )


# ---------------------------------------------------------------------------
# Help, version, exit codes


def test_help_answers_without_loading_anything_heavy() -> None:
    code = (
        "import sys; sys.argv = ['stonk-tui', '--help']\n"
        "from stonk_tui.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'textual', 'pydantic', 'yaml', 'psutil', 'numpy', 'pynvml',"
        " 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == "[]\n"
    commands = "demo train runs status attach pause resume checkpoint stop doctor data"
    assert all(re.search(rf"│ {command} ", done.stdout) for command in commands.split())


def test_version_is_printed() -> None:
    assert invoke("--version").output.startswith("stonk-tui ")


BAD_LINES = {
    "unknown command": (["trian"], "train"),
    "unknown option": (["demo", "--stesp", "3"], "no such option"),
    "no steps": (["demo", "--steps", "0"], "--steps"),
    "unknown device": (["demo", "--device", "tpu"], "use auto, cpu, cuda or cuda:N"),
    "unknown quantisation": (["demo", "--quantize", "int8"], "--quantize"),
    "no hours": (["train", "--max-hours", "0"], "must be above 0"),
    "hours that are no number": (["train", "--max-hours", "nan"], "must be above 0"),
    "file and preset": (["train", "a.yaml", "--preset", "demo"], "not both"),
    "settings for a run that exists": (["train", "--resume", "--set", "seed=1"], "--resume"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD_LINES.values(), ids=BAD_LINES)
def test_line_that_means_nothing_ends_with_2(arguments: list[str], expected: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.startswith("stonk-tui: ")
    assert "; see `" in result.stderr
    assert result.stderr.endswith(" --help`\n")
    assert result.stderr.count("\n") == 1
    assert directory.list_runs() == []


BAD_INPUT = {
    "unknown preset": (["train", "--preset", "nope"], "no preset called 'nope'"),
    "preset taken for a file": (["train", "stage1"], "for the preset use --preset stage1"),
    "missing file": (["train", "absent.yaml"], "absent.yaml: cannot read the configuration"),
    "bad section": (["demo", "--set", "zebra.grp=3"], "--set zebra.grp=3: unknown key 'zebra'"),
    "bad setting": (["demo", "--set", "rollout.grp=3"], "--set rollout.grp=3: unknown key"),
    "setting out of range": (["demo", "--set", "rollout.group_size=1"], "not '1'"),
    "unknown model": (["demo", "--model", "gpt2"], "model.id: no model called 'gpt2'"),
    "missing folder": (["demo", "--model", "/absent"], "/absent: there is no such model folder"),
    "missing GPU": (["demo", "--device", "cuda"], "no NVIDIA GPU answers"),
    "unknown data": (["demo", "--set", "data.source=x"], "no market data source called 'x'"),
    "no run yet": (["status"], "there is no run yet"),
    "no run to go on with": (["train", "--resume"], "there is no run yet"),
    "no run to stop": (["stop"], "there is no run yet"),
    "no terminal": ([], "the cockpit needs a terminal; see"),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_with_exit_code_2_and_leaves_no_run(
    arguments: list[str], expected: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("stonk-tui: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert directory.list_runs() == []


def test_what_the_system_refuses_is_one_line_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/else/runs")

    monkeypatch.setattr(directory, "list_runs", refuse)
    result = invoke("runs")
    assert result.exit_code == 1
    assert result.stderr == (
        "stonk-tui: /else/runs: Permission denied; "
        "see whether it is yours and mounted for writing\n"
    )


def test_error_names_file_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nrollout:\n  group_size: 99\n")
    done = program("train", "mine.yaml", "--detach")
    assert done.returncode == 2
    done = program("train", str(tmp_path / "mine.yaml"))
    assert done.returncode == 2
    assert f"{tmp_path}/mine.yaml:3:rollout.group_size: " in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_anywhere_on_the_line_adds_the_traceback() -> None:
    done = program("status", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("stonk-tui demo`\n")


def test_error_that_nobody_foresaw_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_down() -> list[RunDirectory]:
        raise ZeroDivisionError("a\x1b[2Jb\nc")

    monkeypatch.setattr(directory, "list_runs", break_down)
    result = invoke("runs")
    assert result.exit_code == 1
    assert result.stderr == (
        "stonk-tui: ZeroDivisionError: a␛[2Jb c; run again with --debug for the traceback\n"
    )


def test_home_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STONK_HOME", str(tmp_path / "file" / "home"))
    result = invoke("demo")
    assert result.exit_code == 2
    assert "set STONK_HOME to a folder you can write to" in result.stderr


def test_full_disk_is_refused_with_figures(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(prepare, "_FREE_BYTES", 1 << 62)
    result = invoke("demo", "--model", str(model))
    assert result.exit_code == 2
    assert "not enough disk space for a run" in result.stderr
    assert directory.list_runs() == []


def test_device_of_another_run_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with directory.exclusive(launcher.device_lock("cpu"), "20261120-120000-other"):
        result = invoke("demo", "--device", "cpu", "--model", "never/asked-for")
    assert result.exit_code == 2
    assert "cpu is busy with run 20261120-120000-other" in result.stderr


def test_stranger_on_the_device_is_mentioned_and_does_not_stop_the_run(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "others_on", lambda device: f"{device} is in use by process 41")
    result = invoke("demo", "--steps", "1", "--model", str(model))
    assert result.exit_code == 0
    assert "stonk-tui: cpu is in use by process 41" in result.stderr


# ---------------------------------------------------------------------------
# Starting


def test_demo_without_a_terminal_prints_a_line_a_step_and_a_summary(model: Path) -> None:
    result = invoke("demo", "--steps", "3", "--seed", "11", "--model", str(model))
    assert result.exit_code == 0, result.output
    (run,) = directory.list_runs()
    lines = result.stdout.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert steps[2] == "step 3/3  reward +0.300  format 0.50  accuracy 50%  0.1 s/step"
    assert len(steps) == 3
    assert re.search(r"^finished +step 3 of 3", result.stdout, re.MULTILINE)
    assert re.search(rf"^run +{re.escape(str(run.path))}$", result.stdout, re.MULTILINE)
    config = run.config()
    assert (config.seed, config.schedule.max_steps, config.name) == (11, 3, "demo")
    assert config.model.id == str(model)


def test_relative_model_folder_is_frozen_as_an_absolute_path(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert invoke("demo", "--steps", "1", "--model", "a model").exit_code == 0
    assert directory.find(None).config().model.id == str(model)


def test_relative_data_folder_is_frozen_as_an_absolute_path(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "prices", "AAA", rows(300))
    monkeypatch.chdir(tmp_path)
    arguments = ("demo", "--steps", "1", "--model", str(model))
    assert invoke(*arguments, "--set", "data.source=ohlcv:prices").exit_code == 0
    assert directory.find(None).config().data.source == f"ohlcv:{tmp_path / 'prices'}"


def test_options_win_over_set_and_set_over_the_file(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine.yaml").write_text("preset: demo\nname: mine\nseed: 3\n")
    result = invoke(
        *("train", str(tmp_path / "mine.yaml"), "--model", str(model), "--quantize", "none"),
        *("--set", "seed=5", "--set", "schedule.max_steps=1", "--set", "model.id=ignored"),
        *("--max-hours", "1.5", "--device", "cpu", "--deterministic"),
    )
    assert result.exit_code == 0, result.output
    config = directory.find("mine").config()
    assert config.deterministic
    assert (config.seed, config.schedule.max_steps, config.schedule.max_hours) == (5, 1, 1.5)
    assert (config.model.id, config.model.quantize) == (str(model), "none")


def test_detached_run_prints_its_id_alone(model: Path) -> None:
    result = invoke(
        *("train", "--preset", "demo", "--set", "schedule.max_steps=1"),
        *("--model", str(model), "--detach"),
    )
    assert result.exit_code == 0
    run = directory.find(result.stdout.strip())
    assert f"stonk-tui attach {run.id}" in result.stderr
    wait_for(lambda: run.worker() is None)


def test_run_that_fails_ends_with_1_the_reason_and_the_log(model: Path) -> None:
    result = invoke("demo", "--model", str(model), "--set", "name=fails")
    assert result.exit_code == 1
    run = directory.find("fails")
    assert result.stderr.splitlines()[-1] == (
        f"stonk-tui: run {run.id} failed: the loss is not finite; the log is {run.log}"
    )


def test_worker_that_dies_ends_the_following_with_1(model: Path) -> None:
    result = invoke("demo", "--model", str(model), "--set", "name=dies")
    assert result.exit_code == 1
    run = directory.find("dies")
    assert f"the worker of run {run.id} is gone; the log is {run.log}" in result.stderr
    assert "step 1/40" in result.stdout, "what it wrote before is not lost"


@pytest.mark.parametrize("by_name", [True, False])
def test_stopped_run_goes_on_with_train_resume(model: Path, by_name: bool) -> None:
    arguments = ["--set", "name=waits", "--set", "schedule.max_steps=4", "--model", str(model)]
    started = invoke("train", *arguments, "--device", "cpu", "--detach")
    assert started.exit_code == 0, started.output
    run = directory.find("waits")
    refused = invoke("train", "--resume")
    assert refused.exit_code == 2
    assert "is at work already" in refused.stderr

    wait_for(lambda: json.loads(invoke("status", "--json").stdout)["step"] == 2)
    stopped = invoke("stop", "waits", "--timeout", "30")
    assert stopped.exit_code == 0, stopped.output
    assert stopped.stdout == f"{run.id}: stopped at step 2\n"
    assert "keeps a checkpoint" in stopped.stderr
    assert stopped.stderr.endswith("stopped by command, without a checkpoint\n"), "and that too"
    assert run.worker() is None, "stop waits until the run can be resumed"

    resumed = invoke("train", "--resume", *([run.id] if by_name else []))
    assert resumed.exit_code == 0, resumed.output
    assert [line[:8] for line in resumed.stdout.splitlines() if line.startswith("step")] == [
        "step 3/4",
        "step 4/4",
    ]
    assert json.loads(invoke("status", "--json").stdout)["attempt"] == 2
    wait_for(lambda: run.worker() is None)
    done = invoke("train", "--resume")
    assert done.exit_code == 2
    assert "has done all its 4 steps; look at it with `stonk-tui attach" in done.stderr


def test_ctrl_c_while_the_model_is_fetched_leaves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model_id: str, *, progress: Callable[[str, int, int], None]) -> Path:
        progress("downloading", 1, 10)
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "ensure_model", interrupted)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 130
    assert "downloading  10%" in result.stdout
    assert directory.list_runs() == []


def test_ctrl_c_in_the_moment_of_launching_does_not_tear_the_run_apart(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = launcher.launch

    def launch_and_interrupt(config: RunConfig) -> RunDirectory:
        signal.raise_signal(signal.SIGINT)
        return launch(config)

    monkeypatch.setattr(launcher, "launch", launch_and_interrupt)
    result = CliRunner().invoke(app, ["demo", "--steps", "1", "--model", str(model)])
    assert result.exit_code == 130
    (run,) = directory.list_runs()
    assert f"end it with `stonk-tui stop {run.id}`" in result.stderr
    wait_for(lambda: run.worker() is None)
    assert json.loads(invoke("status", "--json").stdout)["state"] == "finished"


# ---------------------------------------------------------------------------
# Commands to a living run


def answer_next(
    living: tuple[RunDirectory, EventStore, ControlServer], *, ok: bool, message: str
) -> None:
    run, store, server = living
    command = server.commands.get(timeout=20)
    store.answer(command.id, command.verb, ok=ok, message=message)
    store.flush()
    if command.verb == "stop":
        (run.path / "worker.json").unlink()


@pytest.mark.parametrize("verb", ["pause", "resume", "checkpoint", "stop"])
def test_command_prints_what_the_worker_answers(
    verb: str, living: tuple[RunDirectory, EventStore, ControlServer]
) -> None:
    run, _, _ = living
    worker = threading.Thread(
        target=answer_next, args=(living,), kwargs={"ok": True, "message": "done\x1b[2J"}
    )
    worker.start()
    result = invoke(verb)
    worker.join()
    assert result.exit_code == 0
    assert result.stdout == f"{run.id}: done␛[2J\n"


def test_command_that_the_worker_answers_with_no_ends_with_1(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, _, _ = living
    worker = threading.Thread(
        target=answer_next, args=(living,), kwargs={"ok": False, "message": "not paused"}
    )
    worker.start()
    result = invoke("resume", run.id)
    worker.join()
    assert result.exit_code == 1
    assert result.stderr == f"stonk-tui: run {run.id} did not resume: not paused\n"


def test_command_that_takes_too_long_stays_accepted_and_ends_with_1(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    _, _, server = living
    result = invoke("checkpoint", "--timeout", "0.2")
    assert result.exit_code == 1
    assert "checkpoint is accepted, but not done within --timeout" in result.stderr
    assert server.commands.qsize() == 1


def obey_set(living: tuple[RunDirectory, EventStore, ControlServer]) -> None:
    """Act on the next ``set`` as the training loop does."""
    run, store, server = living
    command = server.commands.get(timeout=20)
    _, changes = live_settings.plan(run.config(), command.payload["changes"])
    store.event(
        "settings",
        {"changes": [vars(one) for one in changes], "by": "user", "command": command.id},
        step=7,
    )
    store.answer(command.id, command.verb, ok=True, message="in force from step 8 on")
    store.flush()


def test_set_prints_what_has_changed_and_from_when_on(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, _, _ = living
    worker = threading.Thread(target=obey_set, args=(living,))
    worker.start()
    result = invoke("set", run.id, "learning_rate=5e-5", "schedule.patience=4")
    worker.join()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "learning rate 8e-5 → 5e-5",
        "patience never → 4",
        f"{run.id}: in force from step 8 on",
    ]
    status = invoke("status", run.id).stdout
    assert re.search(r"learning_rate +5e-5, started with 8e-5, changed at step 7", status)
    listed = invoke("set").stdout.splitlines()
    assert [line.split()[:3] for line in listed if "rate" in line] == [
        ["learning_rate", "5e-5", "8e-5"]
    ]
    assert "whole, 1 or more, or never" in listed[-1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["learning_rate=0"], "learning_rate=0: input should be greater than 0"),
        (["temperature=6"], "temperature=6: input should be less than or equal to 5"),
        (["eval_every=1.5"], "valid integer"),
        (["kl_coef=0.1"], "did you mean kl_coefficient"),
        (["kl_coefficient=0.1", "nonsense"], "'nonsense' is not KEY=VALUE"),
    ],
)
def test_set_refuses_what_a_configuration_would_before_anything_is_sent(
    settings: list[str], words: str, living: tuple[RunDirectory, EventStore, ControlServer]
) -> None:
    _, _, server = living
    result = invoke("set", *settings)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.commands.empty()


def test_set_that_the_worker_refuses_ends_with_1(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, _, _ = living
    worker = threading.Thread(
        target=answer_next, args=(living,), kwargs={"ok": False, "message": "not yet"}
    )
    worker.start()
    result = invoke("set", "learning_rate=5e-5")
    worker.join()
    assert result.exit_code == 1
    assert result.stderr == f"stonk-tui: run {run.id} did not set it: not yet\n"


def test_set_without_a_worker_ends_with_2() -> None:
    run = directory.create(RunConfig())
    result = invoke("set", "learning_rate=5e-5")
    assert result.exit_code == 2
    assert f"no worker answers for run {run.id}" in result.stderr


def test_command_to_a_run_without_a_worker_ends_with_2() -> None:
    run = directory.create(RunConfig())
    result = invoke("pause")
    assert result.exit_code == 2
    assert f"no worker answers for run {run.id}" in result.stderr


# ---------------------------------------------------------------------------
# Lists and status


def test_status_tells_an_alarm_before_the_metrics(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, store, _ = living
    store.event("step", {"metrics": {"accuracy": 0.5}, "seconds": {}}, step=3)
    words = {
        "title": "no sign of work",
        "explanation": "",
        "advice": "",
        "value": 3,
        "threshold": 2,
    }
    store.event("alarm", {"name": "a", "on": True, **words}, step=3)
    store.flush()
    lines = invoke("status", run.id).stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names.index("alarm") < names.index("accuracy")


def test_dumb_terminal_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UserError, match="that can do more than TERM=dumb says; do else"):
        cockpit._need_terminal("do else")


def test_runs_and_status_speak_of_a_living_run(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, store, _ = living
    store.event("step", {"metrics": {"reward/total": 0.25}, "eta_seconds": 75.0}, step=3)
    store.event("checkpoint", {"name": "step-000003", "best": True})
    store.flush()
    listed = invoke("runs").stdout
    assert re.search(rf"^{run.id}  training  3/40 +\+0\.250", listed, re.MULTILINE)
    told = invoke("status").stdout
    assert re.search(r"^ETA +1m 15s$", told, re.MULTILINE)
    assert re.search(r"^checkpoint +step-000003, best$", told, re.MULTILINE)


def test_run_that_cannot_be_read_is_listed_with_the_reason() -> None:
    run = directory.create(RunConfig())
    (run.path / "run.yaml").write_text(f"schema: {SCHEMA_VERSION + 1}\n")
    result = invoke("runs")
    assert result.exit_code == 0
    assert "unreadable" in result.stdout
    assert "newer stonk-tui" in result.stdout
    assert invoke("status").exit_code == 2


def test_hostile_text_reaches_the_terminal_inert(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, store, _ = living
    hostile = "[/INST][@click=app.quit]\x1b]52;c;aGk=\x07\x9b31m\u202e\u2028x"
    store.event("worker", {"device": hostile})
    store.event("progress", {"task": hostile, "done": 1, "total": 2, "detail": hostile})
    store.event("step", {"metrics": {hostile: 1.0}, "milestones": [{"name": hostile}]}, step=1)
    store.event("checkpoint", {"name": hostile, "best": True})
    store.event("state", {"state": "training", "detail": hostile})
    store.flush()
    stranger = run.path.parent / hostile.replace("/", "")
    stranger.mkdir()
    (stranger / "run.yaml").touch()
    for arguments in (["status"], ["status", "--json"], ["runs"], ["runs", "--json"]):
        result = invoke(*arguments, *([run.id] if arguments[0] == "status" else []))
        assert result.exit_code == 0, result.output
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028]", result.output), arguments


def test_output_survives_a_terminal_that_knows_ascii_only(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    _, store, _ = living
    store.event("state", {"state": "training", "detail": "größer ✓"})
    store.flush()
    done = program("status", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "gr??er ?" in done.stdout


def test_reader_that_goes_away_is_no_error(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stonk_tui", "status"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()
    process.wait()


# ---------------------------------------------------------------------------
# The embedded model and the cockpit


def test_attach_needs_a_run_and_a_terminal(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, _, _ = living
    result = invoke("attach", run.id, "--read-only")
    assert result.exit_code == 2
    assert f"`stonk-tui status {run.id}` needs none" in result.stderr
    assert invoke("attach", "absent").exit_code == 2


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunDirectory | None, bool]]:
    """A person at a terminal; what was opened is recorded instead of drawn."""
    import stonk_tui.app
    from stonk_tui.commands import cockpit

    opened: list[tuple[RunDirectory | None, bool]] = []

    class StandIn:
        def __init__(self, run: RunDirectory | None, *, read_only: bool, **look: object) -> None:
            opened.append((run, read_only))
            self.model = SimpleNamespace(run=run) if run else None

        def run(self) -> None:
            """Left at once."""

    monkeypatch.setattr(stonk_tui.app, "Cockpit", StandIn)
    monkeypatch.setattr(cockpit, "is_interactive", lambda: True)
    return opened


def test_cockpit_opens_on_the_newest_living_run_and_says_how_to_return(
    living: tuple[RunDirectory, EventStore, ControlServer],
    terminal: list[tuple[RunDirectory | None, bool]],
) -> None:
    run, store, _ = living
    directory.create(configuration.with_overrides(RunConfig(), ["name=zzz"]))
    result = invoke()
    assert terminal == [(run, False)]
    assert result.stdout == (
        f"run {run.id} goes on (training); come back with `stonk-tui attach {run.id}`\n"
    )
    store.event("state", {"state": "finished", "detail": ""})
    store.flush()
    result = invoke("attach", run.id, "--read-only")
    assert terminal[1] == (run, True)
    assert result.stdout == (
        f"run {run.id} has finished; look at it with `stonk-tui attach {run.id}`\n"
    )


def test_cockpit_without_a_living_run_opens_the_list_of_runs(
    terminal: list[tuple[RunDirectory | None, bool]],
) -> None:
    directory.create(RunConfig())
    assert invoke().stdout == ""
    assert terminal == [(None, False)]


def test_remote_line_is_spared_unless_a_person_chose_otherwise(
    terminal: list[tuple[RunDirectory | None, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TEXTUAL_ANIMATIONS", "SSH_TTY", "SSH_CONNECTION"):
        # Set first, so that what the command sets is taken back after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    invoke()
    assert "TEXTUAL_ANIMATIONS" not in os.environ
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    invoke()
    assert os.environ["TEXTUAL_ANIMATIONS"] == "none"
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "full")
    invoke()
    assert os.environ["TEXTUAL_ANIMATIONS"] == "full"


def test_embedded_model_is_the_one_that_the_engine_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.policy import source

    asked: list[Path] = []

    def keep(cache: Path, progress: Callable[[str, int, int], None]) -> Path:
        asked.append(cache)
        return cache

    monkeypatch.setattr(source, "ensure_embedded_model", keep)
    monkeypatch.setenv("STONK_CACHE", "/somewhere")
    assert source.ensure_model("smollm2-135m", progress=lambda *_: None) == Path("/somewhere")
    assert asked == [Path("/somewhere")]


class Terminal:
    """The program on a pseudo-terminal; a thread collects what it draws."""

    def __init__(self, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stonk_tui", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        os.close(theirs)
        self._ours = ours
        self.drawn = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # EIO is how Linux says that the program has let go of its terminal.
        with contextlib.suppress(OSError):
            while chunk := os.read(self._ours, 65536):
                self.drawn += chunk

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def close(self) -> str:
        """Wait for the end; returns all that was drawn."""
        self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        os.close(self._ours)
        return self.drawn.decode(errors="replace")


def test_real_cockpit_is_left_with_q_and_the_run_goes_on(
    living: tuple[RunDirectory, EventStore, ControlServer],
) -> None:
    run, _, server = living
    terminal = Terminal()
    wait_for(lambda: b"\x1b[?1049h" in terminal.drawn and run.id.encode() in terminal.drawn)
    terminal.type(b"q")
    drawn = terminal.close()
    assert terminal.process.returncode == 0
    after = drawn.rpartition("\x1b[?1049l")[2]
    assert f"run {run.id} goes on (training); come back with" in after
    assert server.commands.empty()


def test_prepared_run_waits_and_its_settings_can_be_edited() -> None:
    result = invoke("train", "--preset", "demo", "--set", "seed=3", "--prepare")
    assert result.exit_code == 0, result.output
    run = directory.find(result.stdout.splitlines()[-1])
    assert f"stonk-tui train --resume {run.id}" in result.stderr
    assert run.is_prepared
    assert run.worker() is None
    assert run.config().seed == 3
    # Anchored and frozen as every run is.
    assert run.config().reward.frozen is not None
    assert '"state": "prepared"' in invoke("status", run.id, "--json").stdout
    assert invoke("train", run.id, "--resume", "--prepare").exit_code == 2


def test_what_is_refused_is_not_prepared() -> None:
    refused = (
        ("--preset", "stage2"),
        ("--preset", "demo", "--set", "data.source=ohlcv:/no/such/folder"),
        ("--preset", "demo", "--set", "reward.scheme=/no/such.yaml"),
    )
    for arguments in refused:
        assert invoke("train", *arguments, "--prepare").exit_code == 2
    assert directory.list_runs() == []
