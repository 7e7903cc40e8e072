"""Starting workers: devices are held by one run at a time, and nothing half-made stays."""

import errno
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import config as configuration
from engine.config import RunConfig
from engine.errors import RunFailedError, UserError
from engine.runs import devices, directory, launcher
from engine.runs.devices import Gpu
from engine.runs.home import runs_directory
from tests.waiting import wait_for

WORKER = """
import json, os, signal, sys
from pathlib import Path
run = Path(sys.argv[1])
facts = {"pid": os.getpid(), "sid": os.getsid(0), "cwd": os.getcwd(), "path": sys.path,
         "fds": sorted(os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2))}
(run / "facts.tmp").write_text(json.dumps(facts))
os.rename(run / "facts.tmp", run / "facts.json")
signal.pause()
"""


@pytest.fixture
def waiting_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waiting_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launcher, "WORKER_MODULE", "waiting_worker")


CPU = configuration.with_overrides(RunConfig(), ["model.device=cpu"])


def gpu(index: int, processes: tuple[int, ...] = ()) -> Gpu:
    return Gpu(index, f"GPU {index}", 80 << 30, 10 << 30, 0, None, None, processes)


@pytest.mark.usefixtures("waiting_worker")
def test_worker_lives_in_a_session_of_its_own_with_its_output_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A package of the same name where the person happens to stand must not be taken for ours.
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "engine.py").write_text("raise SystemExit('the wrong engine')")
    monkeypatch.chdir(tmp_path / "here")
    run = launcher.launch(CPU)
    worker = run.worker()
    assert worker is not None, "a launched run is never without a worker"
    try:
        wait_for((run.path / "facts.json").exists)
        facts = json.loads((run.path / "facts.json").read_text())
        assert facts["sid"] == facts["pid"] == worker.pid
        assert facts["fds"] == ["/dev/null", str(run.log), str(run.log)]
        assert "" not in facts["path"]
        assert str(tmp_path / "here") not in facts["path"]
        assert run.config().model.device == "cpu"
        with pytest.raises(UserError, match="has a living worker"):
            launcher.relaunch(run)
    finally:
        worker.kill()
    wait_for(lambda: run.worker() is None)
    launcher.relaunch(run)
    second = run.worker()
    assert second is not None
    assert second.pid != worker.pid
    second.kill()


def test_busy_device_is_refused_by_the_name_of_its_run() -> None:
    with (
        directory.exclusive(launcher.device_lock("cpu"), "20261120-120000-other"),
        pytest.raises(UserError, match="cpu is busy with run 20261120-120000-other; stop it"),
    ):
        launcher.launch(CPU)
    assert directory.list_runs() == []
    launcher.refuse_busy_device("cpu")


def test_device_of_a_run_whose_worker_has_just_died_is_waited_for() -> None:
    dead = directory.create(CPU)
    with ThreadPoolExecutor(1) as pool:
        with directory.exclusive(launcher.device_lock("cpu"), dead.id):
            refusal = pool.submit(launcher.refuse_busy_device, "cpu")
            with pytest.raises(TimeoutError):
                refusal.result(0.2)
        refusal.result(30)
    dead.record_worker()
    with (
        directory.exclusive(launcher.device_lock("cpu"), dead.id),
        pytest.raises(UserError, match=f"cpu is busy with run {dead.id}"),
    ):
        launcher.refuse_busy_device("cpu")


def test_run_that_cannot_be_written_starts_no_worker_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = directory.create(CPU)

    def refuse(run: object, *options: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/a/engine.log")

    monkeypatch.setattr(launcher, "_spawn", refuse)
    with pytest.raises(RunFailedError, match=r"started: /a/engine\.log: Read-only .*; see whether"):
        launcher.relaunch(run)


def test_worker_that_only_answers_probes_keeps_nobody_from_training() -> None:
    asked = directory.create(CPU)
    asked.record_prober()
    with directory.exclusive(launcher.device_lock("cpu"), asked.id):
        launcher.refuse_busy_device("cpu")


def test_lock_of_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.runs import directory\n"
        "with directory.exclusive(Path(sys.argv[1]), 'held'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "a.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    with directory.exclusive(path) as acquired:
        assert not acquired
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with directory.exclusive(path) as acquired:
        assert acquired


def test_worker_that_cannot_be_started_leaves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(RunFailedError, match="Cannot allocate memory"):
        launcher.launch(CPU)
    assert list(runs_directory().iterdir()) == []


def test_device_is_locked_by_the_number_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: [gpu(3), gpu(1)])
    assert launcher.device_lock("cuda:0").name == "cuda-3.lock"
    assert launcher.device_lock("cuda:1").name == "cuda-1.lock"
    assert launcher.device_lock("cpu").name == "cpu.lock"


@pytest.mark.parametrize(
    ("requested", "present", "cuda", "expected"),
    [
        ("auto", 0, None, "cpu"),
        ("auto", 0, "12.8", "cpu"),
        ("auto", 1, None, "cpu"),
        ("auto", 2, "12.8", "cuda:0"),
        ("cpu", 2, "12.8", "cpu"),
        ("cuda", 2, "12.8", "cuda:0"),
        ("cuda:1", 2, "12.8", "cuda:1"),
    ],
)
def test_device_follows_from_driver_and_build(
    requested: str,
    present: int,
    cuda: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: [gpu(index) for index in range(present)])
    monkeypatch.setattr(devices, "torch_cuda_version", lambda: cuda)
    assert devices.resolve(requested) == expected


@pytest.mark.parametrize(
    ("requested", "present", "cuda", "message"),
    [
        ("cuda", 0, "12.8", "no NVIDIA GPU answers"),
        ("cuda:0", 1, None, "torch is a CPU build.*doctor"),
        ("cuda:2", 2, "12.8", "there is no GPU 2; this machine has 2"),
    ],
)
def test_gpu_that_cannot_be_used_is_refused_with_the_reason(
    requested: str, present: int, cuda: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: [gpu(index) for index in range(present)])
    monkeypatch.setattr(devices, "torch_cuda_version", lambda: cuda)
    with pytest.raises(UserError, match=message):
        devices.resolve(requested)


def test_strangers_on_a_device_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: [gpu(0), gpu(1, (41, 42))])
    assert devices.others_on("cpu") is None
    assert devices.others_on("cuda:0") is None
    line = devices.others_on("cuda:1")
    assert line is not None
    assert "process 41, 42: 10.0 of 80.0 GiB are taken" in line


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        ("", []),
        ("1,9,0", [1]),
        ("-1", []),
        (" 1 , 2 ", [1, 2]),
    ],
)
def test_visible_devices_are_counted_as_cuda_counts_them(
    chosen: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert devices._visible(3) == expected


def test_reading_the_devices_of_this_machine_never_fails() -> None:
    for present in devices.gpus():
        assert present.memory_total > 0
