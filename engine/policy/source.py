"""Find or fetch the files of a base model, and refuse what is not safe or not known to work.

A model is the embedded default, a local folder, or an id on the Hugging Face hub. Whatever its
origin, it is safetensors weights, JSON and tokenizer files of an architecture that this engine
was tested with; code and pickles in a model are never fetched and never loaded.

Downloads land in the hub's own cache, so other tools find them. Its client throws away what an
interrupted download had got (a run's 3 GB would start at zero again), so large files are fetched
here, into ``blobs/`` of that cache under a name of their own, and renamed once their SHA-256 is
right; the client then only links them.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.policy.embedded import default_cache_dir, ensure_embedded_model
from engine.presets import EMBEDDED_MODEL
from engine.text import one_line

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

Progress = Callable[[str, int, int], None]
"""Called with a phase in words and how much of it is done out of how much; (0, 0) when
the size is unknown."""

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Values of ``model_type`` that adapters, masks and packing were tested with."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FETCHED = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer.model"]
_LEFT_OUT = ["*/*", "adapter_*"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HUB_TIMEOUT_SECONDS = 15.0


def ensure_model(model_id: str, *, progress: Progress) -> Path:
    """The folder of the model called ``model_id``, fetched first where it is not there yet.

    Args:
        model_id: ``smollm2-135m``, a local folder, or ``organisation/name`` on the hub.
        progress: told what is going on, from this thread.

    Returns:
        A folder that ``from_pretrained`` of transformers takes as it is.

    Raises:
        UserError: unknown, gated, unreachable or unsupported model, or no disk space.
    """
    if model_id == EMBEDDED_MODEL:
        return ensure_embedded_model(default_cache_dir(), progress)
    if folder := local_folder(model_id):
        check_model_folder(folder)
        return folder
    if not _HUB_ID.fullmatch(model_id):
        raise UserError(
            f"no model called {one_line(model_id, 80)!r}",
            where="model.id",
            fix=f"use {EMBEDDED_MODEL}, a folder, or organisation/name of the Hugging Face hub",
        )
    folder = _cached(model_id) or _fetch(model_id, progress)
    check_model_folder(folder)
    return folder


def local_folder(model_id: str) -> Path | None:
    """The absolute path where ``model_id`` names a folder of this machine.

    Raises:
        UserError: it is written like a path, and no folder is there.
    """
    path = Path(model_id).expanduser()
    if path.is_dir():
        return path.absolute()
    if model_id.startswith(("/", "./", "../", "~")):
        raise UserError("there is no such model folder", where=one_line(model_id))
    return None


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that is incomplete, carries code, or holds an unknown architecture.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    where = one_line(str(folder))
    if (folder / "adapter_config.json").exists():
        raise UserError(
            "this folder holds an adapter, not a base model",
            where=where,
            fix="name the base model it was trained on",
        )
    _check_architecture(folder / "config.json", f"{where}/config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in _read_json(folder / name):
            raise UserError(
                "this model brings code of its own (auto_map), which is never run",
                where=f"{where}/{name}",
                fix="use a model without any",
            )
    if code := next(folder.glob("*.py"), None):
        raise UserError(
            "this model brings code of its own, which is never run",
            where=f"{where}/{one_line(code.name, 80)}",
            fix="if you trust the rest of it, remove that file",
        )
    if missing := _missing_files(folder):
        is_pickled = missing.endswith(".safetensors") and any(folder.glob("*.bin"))
        raise UserError(
            f"{one_line(missing)} is missing",
            where=where,
            fix="save the weights as safetensors: pickled ones are never loaded"
            if is_pickled
            else "put it there or fetch the model again",
        )


def _check_architecture(config: Path, where: str) -> None:
    kind = _read_json(config).get("model_type")
    if kind not in ARCHITECTURES:
        raise UserError(
            f"model_type {one_line(str(kind), 40)!r} is not supported",
            where=where,
            fix=f"use a model of type {', '.join(ARCHITECTURES)}",
        )


def _missing_files(folder: Path) -> str | None:
    """The first file that a whole model would have and ``folder`` has not."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = _read_json(index).get("weight_map", {})
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
    else:
        names = ["model.safetensors"]
    # A name in an index is text of the model: it must not lead out of the folder.
    for name in names:
        if Path(str(name)).name != name or not (folder / name).is_file():
            return str(name)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return _TOKENIZERS[0]
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path.name} is missing", where=one_line(str(path.parent))) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("cannot be read as JSON", where=one_line(str(path))) from error
    if not isinstance(values, dict):
        raise UserError("is not a JSON object", where=one_line(str(path)))
    return values


# ---------------------------------------------------------------------------
# The hub


def _cached(model_id: str) -> Path | None:
    """The snapshot that the cache holds in full, without asking the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                model_id,
                allow_patterns=_FETCHED,
                ignore_patterns=_LEFT_OUT,
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        return None
    # Another tool may have cached a part of the model only, a configuration for one.
    whole = (folder / "config.json").is_file() and _missing_files(folder) is None
    return folder if whole else None


def _fetch(model_id: str, progress: Progress) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        disable_progress_bars,
        filter_repo_objects,
    )

    disable_progress_bars()
    # It logs every retry to the terminal, through the progress display.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    progress(f"looking up {model_id}", 0, 0)
    with _hub_errors_in_words(model_id):
        info = HfApi().model_info(model_id, files_metadata=True, timeout=_HUB_TIMEOUT_SECONDS)
        siblings = {file.rfilename: file for file in info.siblings or []}
        names = filter_repo_objects(siblings, allow_patterns=_FETCHED, ignore_patterns=_LEFT_OUT)
        files = [siblings[name] for name in names]
        if not any(file.rfilename.endswith(".safetensors") for file in files):
            raise UserError(
                "this model has no safetensors weights; other formats are never loaded",
                where=model_id,
            )
        # Before gigabytes are fetched: may we read it, and is it a model we can train?
        config = Path(hf_hub_download(model_id, "config.json", revision=info.sha))
        _check_architecture(config, model_id)

        storage = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=model_id, repo_type="model")
        blobs = storage / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        large = [file for file in files if file.lfs and not _blob(blobs, file).exists()]
        meter = _Meter(progress, f"downloading {model_id}", sum(file.size or 0 for file in large))
        _refuse_full_disk(blobs, large, model_id)
        for file in large:
            _fetch_blob(model_id, info.sha, file, blobs, build_hf_headers(), meter)
        progress(f"fetching small files of {model_id}", 0, 0)
        return Path(snapshot_download(model_id, allow_patterns=_FETCHED, ignore_patterns=_LEFT_OUT))


def _refuse_full_disk(blobs: Path, files: "list[RepoSibling]", model_id: str) -> None:
    needed = sum((file.size or 0) - _size(_partial(blobs, file)) for file in files)
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise _no_space(blobs, model_id, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _no_space(place: Path, model_id: str, figures: str) -> UserError:
    return UserError(
        f"not enough disk space for {model_id}: {figures}",
        where=one_line(str(place)),
        fix="free some space, or set HF_HOME to a folder on another disk",
    )


class _Meter:
    """The one method of a progress bar that the hub's client calls, over several files."""

    def __init__(self, progress: Progress, phase: str, total: int) -> None:
        self._progress, self._phase, self._total = progress, phase, total
        self._before, self._done = 0, 0

    def begin(self, **options: Any) -> "_Meter":
        """A file starts, at the byte where an earlier attempt had got to."""
        self._done = int(options.get("initial") or 0)
        return self

    def update(self, count: int) -> None:
        self._done += count
        self._progress(self._phase, self._before + self._done, self._total)

    def finish(self, size: int) -> None:
        """The file is there."""
        self._before, self._done = self._before + size, 0
        self._progress(self._phase, self._before, self._total)

    def __enter__(self) -> "_Meter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _fetch_blob(
    model_id: str,
    revision: str | None,
    file: "RepoSibling",
    blobs: Path,
    headers: dict[str, str],
    meter: _Meter,
) -> None:
    """Fetch one large file into the cache, going on where an earlier attempt ended."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    blob, partial = _blob(blobs, file), _partial(blobs, file)
    with partial.open("ab") as target:
        # Two starts at once would append to the same file; the second finds the blob then.
        fcntl.flock(target, fcntl.LOCK_EX)
        if not partial.exists():
            return meter.finish(file.size or 0)
        if target.tell() > (file.size or 0):
            target.truncate(0)
        http_get(
            hf_hub_url(model_id, file.rfilename, revision=revision),
            target,
            resume_size=partial.stat().st_size,
            headers=headers,
            expected_size=file.size,
            tqdm_class=meter.begin,  # type: ignore[arg-type]
        )
        target.flush()
        with partial.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        if digest != blob.name:
            partial.unlink()
            raise UserError(
                f"{one_line(file.rfilename, 80)} arrived damaged and was deleted",
                where=model_id,
                fix="start again; check the proxy in use if it happens twice",
            )
        partial.rename(blob)
    meter.finish(file.size or 0)


def _blob(blobs: Path, file: "RepoSibling") -> Path:
    """Where the hub's cache keeps the content of a large file: under its SHA-256."""
    digest = file.lfs.sha256 if file.lfs else ""
    # It becomes a file name, and came over the network.
    if not _SHA256.fullmatch(digest):
        raise UserError(f"the hub names no checksum for {one_line(file.rfilename, 80)}")
    return blobs / digest


def _partial(blobs: Path, file: "RepoSibling") -> Path:
    return _blob(blobs, file).with_suffix(".partial")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _hub_errors_in_words(model_id: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line.

    Raises:
        UserError: unknown, gated or unreachable model, or a full disk.
    """
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{model_id} is gated: its owner asks for consent first",
            where="model.id",
            fix=f"accept the terms on the page of {model_id}, then run `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no model called {model_id}, or it is private",
            where="model.id",
            fix="check the id; for a private model run `hf auth login`",
        ) from error
    except (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        LocalEntryNotFoundError,
        httpx2.TransportError,
    ) as error:
        # The client wraps an answer it did not expect as "not in the cache".
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(answer, HfHubHTTPError):
            raise UserError(
                f"the hub answered {answer.response.status_code} for {model_id}",
                fix="try again later",
            ) from error
        raise UserError(
            f"{model_id} is not in the cache and the hub cannot be reached "
            f"({type(error).__name__})",
            fix=f"check network and proxy, or use --model {EMBEDDED_MODEL} or a local folder",
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise UserError(
                f"{model_id} could not be fetched ({one_line(error.strerror or str(error))})",
                where=one_line(str(error.filename)) if error.filename else None,
                fix="start again: what has arrived is kept",
            ) from error
        from huggingface_hub.constants import HF_HUB_CACHE

        raise _no_space(Path(HF_HUB_CACHE), model_id, "the disk is full") from error
