"""Models from a folder and from a hub that runs in the test: safe, resumed, refused in words."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.errors import UserError
from engine.policy.source import check_model_folder, ensure_model, local_folder
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"


def nothing(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


# ---------------------------------------------------------------------------
# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    return model


def test_whole_folder_is_taken_by_its_absolute_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert ensure_model("model", progress=nothing) == folder
    assert ensure_model("./model", progress=nothing) == folder
    assert local_folder("organisation/name") is None


def test_shards_of_an_index_must_all_be_there(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (folder / "model-1.safetensors").touch()
    with pytest.raises(UserError, match=r"model-2\.safetensors is missing"):
        check_model_folder(folder)
    (folder / "model-2.safetensors").touch()
    check_model_folder(folder)


def change(folder: Path, name: str, content: str | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)


BAD_FOLDERS = {
    "no configuration": ("config.json", None, r"config\.json is missing"),
    "configuration that is no JSON": ("config.json", "{", r"config\.json: cannot be read as JSON"),
    "configuration that is a list": ("config.json", "[]", "is not a JSON object"),
    "architecture that was never tested": (
        "config.json",
        '{"model_type": "mamba\\u001b[2J"}',
        "is not supported; use a model of type llama, qwen2, qwen3",
    ),
    "attention with soft-capped scores": (
        "config.json",
        '{"model_type": "gemma2", "attn_logit_softcapping": 50.0}',
        "model_type 'gemma2' is not supported",
    ),
    "attention within a window": (
        "config.json",
        '{"model_type": "mistral", "sliding_window": 4096}',
        "model_type 'mistral' is not supported",
    ),
    "code of its own": (
        "config.json",
        '{"model_type": "qwen2", "auto_map": {"AutoModel": "evil.Model"}}',
        r"config\.json: this model brings code of its own .*; use a model without any",
    ),
    "code beside it": ("modeling_evil.py", "raise SystemExit", "code of its own, which is never"),
    "code in the tokenizer": ("tokenizer_config.json", '{"auto_map": {}}', "code of its own"),
    "no tokenizer": ("tokenizer.json", None, r"tokenizer\.json is missing"),
    "no weights in safetensors": (
        "model.safetensors",
        None,
        r"model\.safetensors is missing",
    ),
    "shard outside the folder": (
        "model.safetensors.index.json",
        '{"weight_map": {"a": "../model/model.safetensors"}}',
        "is missing",
    ),
    "an adapter": ("adapter_config.json", "{}", "holds an adapter, not a base model"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_folder_that_is_not_safe_or_not_whole_is_refused(
    name: str, content: str | None, message: str, folder: Path
) -> None:
    change(folder, name, content)
    with pytest.raises(UserError, match=message) as caught:
        ensure_model(str(folder), progress=nothing)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_pickled_weights_are_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.safetensors is missing; save .* as safetensors"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    "name", ["gpt2", "a/b/c", "org/na me", "org/..", "-o/x", "org/\x1b[2J", "https://x/y", "o/é"]
)
def test_name_that_can_be_no_model_is_refused_without_asking_anyone(name: str) -> None:
    with pytest.raises(
        UserError, match=r"no model called .*; use smollm2-135m, a folder"
    ) as caught:
        ensure_model(name, progress=nothing)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./absent", "~/absent-model", "../absent"])
def test_path_without_a_folder_is_not_taken_for_a_hub_id(name: str) -> None:
    with pytest.raises(UserError, match="there is no such model folder"):
        ensure_model(name, progress=nothing)


# ---------------------------------------------------------------------------
# The hub


@dataclass
class Hub:
    """What the hub would answer, and what it was asked."""

    files: dict[str, bytes]
    error: tuple[int, str] | None = None
    """Status and error code in place of every file."""
    unknown: bool = False
    stated_size: int | None = None
    """Size of the weights in the listing, where it is not the true one."""
    false_digest: str | None = None
    """Checksum of the weights in the listing, where it is not the true one."""
    stall_after: int | None = None
    """Bytes of the weights after which the connection stands still."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, Range."""
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def is_large(self, name: str) -> bool:
        return name.endswith((".safetensors", ".bin"))

    def digest(self, name: str) -> str:
        if self.false_digest and self.is_large(name):
            return self.false_digest
        kind = hashlib.sha256 if self.is_large(name) else hashlib.sha1
        return kind(self.files[name]).hexdigest()

    def size(self, name: str) -> int:
        if self.is_large(name) and self.stated_size is not None:
            return self.stated_size
        return len(self.files[name])

    def fetched(self, name: str) -> list[str]:
        """Ranges asked for when the content of ``name`` was fetched."""
        return [
            wanted for method, path, wanted in self.requests if method == "GET" and name in path
        ]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if self.hub.unknown:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/models/org/name/tree/"):
            self._json([self._leaf(name) for name in self.hub.files])
        elif path.startswith("/api/models/org/name"):
            siblings = [self._sibling(name) for name in self.hub.files]
            self._json({"id": "org/name", "sha": SHA, "siblings": siblings})
        elif self.hub.error:
            status, code = self.hub.error
            self._send(status, b"{}", {"X-Error-Code": code})
        else:
            self._file(path.rpartition("/")[2])

    def _leaf(self, name: str) -> dict[str, Any]:
        size = self.hub.size(name)
        leaf: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": "0" * 40}
        if self.hub.is_large(name):
            leaf["lfs"] = {"oid": self.hub.digest(name), "size": size, "pointerSize": 1}
        return leaf

    def _sibling(self, name: str) -> dict[str, Any]:
        size = self.hub.size(name)
        sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": "0" * 40}
        if self.hub.is_large(name):
            sibling["lfs"] = {"sha256": self.hub.digest(name), "size": size, "pointerSize": 1}
        return sibling

    def _file(self, name: str) -> None:
        content = self.hub.files[name]
        headers = {"ETag": f'"{self.hub.digest(name)}"', "X-Repo-Commit": SHA}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        status = 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        stall = self.hub.stall_after if name == "model.safetensors" else None
        if stall is None or self.command == "HEAD":
            self._send(status, content[start:], headers)
            return
        self._begin(status, len(content) - start, headers)
        self.wfile.write(content[start:stall])
        self.wfile.flush()
        self.hub.stalled.set()
        self.hub.released.wait()
        self.close_connection = True

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._begin(status, len(body), headers)
        if self.command == "GET":
            self.wfile.write(body)

    def _begin(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()


WEIGHTS = bytes(range(256)) * 120_000  # 30 MB: several chunks of the client


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(
        {
            "config.json": b'{"model_type": "llama"}',
            "tokenizer.json": b"{}",
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": b"pickle",
            "modeling_evil.py": b"raise SystemExit",
            "original/params.json": b"{}",
            "README.md": b"hello",
        }
    )
    handler = type("Handler", (_Answers,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    hub.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


CLIENT = """
import json, signal, sys
# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from engine.errors import UserError
from engine.policy.source import ensure_model
assert "huggingface_hub" not in sys.modules
told = []
try:
    path = ensure_model("org/name", progress=lambda *facts: told.append(facts))
    print(json.dumps({"path": str(path), "told": told}))
except UserError as error:
    print(json.dumps({"error": str(error), "told": told}))
assert "torch" not in sys.modules
"""


def client(hub_url: str, tmp_path: Path, **more: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k}
    environment = kept | {
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "*",
    }
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | more,
    )


def ask(hub_url: str, tmp_path: Path, **more: str) -> dict[str, Any]:
    out, err = client(hub_url, tmp_path, **more).communicate(timeout=120)
    assert err == "", err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_model_is_fetched_once_without_code_or_pickles(hub: Hub, tmp_path: Path) -> None:
    first = ask(hub.url, tmp_path)
    folder = Path(first["path"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [[phase, total] for phase, done, total in first["told"] if done == len(WEIGHTS)]
    assert not hub.fetched("pytorch_model.bin")
    assert not hub.fetched("modeling_evil.py")

    asked = len(hub.requests)
    assert ask(hub.url, tmp_path)["path"] == first["path"]
    assert len(hub.requests) == asked, "a cached model needs no network"
    assert ask(hub.url, tmp_path, HF_HUB_OFFLINE="1")["path"] == first["path"]


def test_killed_download_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.stall_after = 25_000_000
    killed = client(hub.url, tmp_path)
    assert hub.stalled.wait(60)
    (partial,) = tmp_path.glob("hf/hub/models--org--name/blobs/*.partial")
    wait_for(lambda: partial.stat().st_size > 0)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    arrived = partial.stat().st_size
    assert arrived < len(WEIGHTS)

    hub.released.set()
    hub.stall_after = None
    answer = ask(hub.url, tmp_path)
    assert (Path(answer["path"]) / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.fetched("model.safetensors") == ["", f"bytes={arrived}-"]
    done = [done for phase, done, total in answer["told"] if total]
    assert min(done) > arrived, "what had arrived counts as done"
    assert not partial.exists()


def test_ctrl_c_ends_a_download_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.stall_after = 1_000_000
    process = client(hub.url, tmp_path)
    assert hub.stalled.wait(60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in err


REFUSALS = {
    "gated": ({"error": (403, "GatedRepo")}, "org/name is gated.*hf auth login"),
    "unknown": ({"unknown": True}, "the hub has no model called org/name, or it is private"),
    "broken hub": ({"error": (418, "Teapot")}, "the hub answered 418 for org/name"),
    "more than the disk holds": (
        {"stated_size": 10**18},
        r"not enough disk space for org/name: 1000000000\.0 GB needed",
    ),
}


@pytest.mark.parametrize(("state", "message"), REFUSALS.values(), ids=REFUSALS)
def test_model_that_cannot_be_had_is_refused_before_its_weights(
    state: dict[str, Any], message: str, hub: Hub, tmp_path: Path
) -> None:
    for name, value in state.items():
        setattr(hub, name, value)
    error = ask(hub.url, tmp_path)["error"]
    assert re.search(message, error), error
    assert "\n" not in error
    assert not hub.fetched("model.safetensors")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b'{"model_type": "mamba"}', "model_type 'mamba' is not supported"),
        (b"<html>", "cannot be read as JSON"),
    ],
)
def test_wrong_model_costs_no_gigabytes(
    config: bytes, message: str, hub: Hub, tmp_path: Path
) -> None:
    hub.files["config.json"] = config
    assert message in ask(hub.url, tmp_path)["error"]
    assert not hub.fetched("model.safetensors")


def test_model_without_safetensors_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    assert "has no safetensors weights" in ask(hub.url, tmp_path)["error"]
    assert not hub.fetched("pytorch_model.bin")


def test_weights_that_are_not_what_the_listing_says_are_deleted(hub: Hub, tmp_path: Path) -> None:
    hub.false_digest = "f" * 64
    assert "model.safetensors arrived damaged" in ask(hub.url, tmp_path)["error"]
    assert list(tmp_path.rglob("*.partial")) == []


def test_checksum_that_is_a_path_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.false_digest = "../../../../evil"
    assert "names no checksum" in ask(hub.url, tmp_path)["error"]


def test_hub_out_of_reach_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    error = ask("http://127.0.0.1:9", tmp_path)["error"]
    assert "the hub cannot be reached" in error
    assert "--model smollm2-135m" in error
    offline = ask("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")["error"]
    assert "the hub cannot be reached" in offline
