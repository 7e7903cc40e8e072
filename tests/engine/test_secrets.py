"""Secrets of the environment reach no store, log, report, file or argument."""

import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import secrets
from engine.config import RunConfig, with_overrides
from engine.errors import UserError
from engine.runs import directory
from engine.runs.store import EventStore, RolloutRecord
from stonk_tui.commands import output

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "s3cret-Value/with+signs=="


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_API_KEY", "0123456789abcdef0123"),
        ("DB_PASSWORD", "hunter2hunter2"),
        ("MY_SECRET", "x" * 20),
        ("STONK_NOTIFY_WEBHOOK", "https://hooks.example/services/T0/B0"),
        ("GH_PAT", "github_pat_11AAAA"),
    ],
)
def test_value_of_a_variable_named_like_a_secret_is_masked(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert secrets.mask(f"a {value} b") == "a [secret] b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSH_AUTH_SOCK", "/tmp/ssh-1/agent"),
        ("HF_TOKEN_PATH", "/home/x/.cache/token"),
        ("SESSION_KEY", "training"),
        ("SOME_KEY", "12345678.25"),
        ("SOME_KEY", "short"),
        ("SOME_KEY", ""),
        ("MONKEYS", "Bananas/2026"),
        ("TOKENIZERS_PARALLELISM", "False-or-True"),
    ],
)
def test_ordinary_words_are_left_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert secrets.mask(f"a {value} b") == f"a {value} b"


def test_secret_that_begins_with_another_is_masked_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_TOKEN", f"{TOKEN}-and-more")
    assert secrets.mask(f"{TOKEN}-and-more") == "[secret]"


def test_tokens_of_the_hub_and_passwords_in_addresses_are_known_by_their_shape() -> None:
    token = "hf_" + "aB3" * 11
    assert secrets.mask(f"bad {token}!") == "bad [secret]!"
    assert secrets.mask("at http://me:pw@host:80/x") == "at http://[secret]@host:80/x"
    assert secrets.mask("at http://host:80/x hf_hub") == "at http://host:80/x hf_hub"


def test_mapping_is_masked_by_key_and_by_value() -> None:
    given_ = {
        "api_key": "abc",
        "Authorization": "Bearer x",
        "nested": [{"password": "pw", "tokens": 5, "key": "left"}],
        f"k {TOKEN}": (TOKEN, 1.5, None, True),
        "token": "",
    }
    assert secrets.masked(given_) == {
        "api_key": "[secret]",
        "Authorization": "[secret]",
        "nested": [{"password": "[secret]", "tokens": 5, "key": "left"}],
        "k [secret]": ["[secret]", 1.5, None, True],
        "token": "",
    }


@given(st.text(), st.text())
def test_no_text_around_it_saves_a_secret(before: str, after: str) -> None:
    assert TOKEN not in secrets.mask(before + TOKEN + after)


@given(st.lists(st.integers(1, len(TOKEN) - 1), max_size=4))
def test_secret_in_pieces_is_masked_in_the_log(cuts: list[int]) -> None:
    inner = io.StringIO()
    stream = secrets.MaskedStream(inner)
    edges = [0, *sorted(cuts), len(TOKEN)]
    for first, last in pairwise(edges):
        stream.write(TOKEN[first:last])
    stream.write(" said\rand again\nrest")
    stream.flush()
    assert inner.getvalue() == "[secret] said\rand again\nrest"


def test_nothing_in_the_store_is_secret() -> None:
    run = directory.create(RunConfig())
    store = EventStore(run.database)
    store.event("notice", {"level": "error", "text": f"401 for {TOKEN}", "token": "abc"})
    store.command("one", "probe", {"example": {"source": TOKEN}})
    store.answer("one", "probe", ok=False, message=f"no {TOKEN}")
    store.draft("one", {"texts": [TOKEN]})
    record = RolloutRecord(
        0, 0, f"p {TOKEN}", {"ticker": TOKEN}, f"c {TOKEN}", 1, True, 0.0, 0.0, {}, (), ()
    )
    store.rollouts(1, [record])
    store.close()
    for file in run.path.iterdir():
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes(), file.name
    assert b"401 for [secret]" in run.database.read_bytes()


def test_configuration_that_holds_a_secret_is_refused_and_leaves_no_run() -> None:
    config = with_overrides(RunConfig(), [f"data.source=deepstock:{TOKEN}"])
    with pytest.raises(
        UserError, match=r"data\.source: it holds the value of \$HF_TOKEN.*environment"
    ) as caught:
        directory.create(config)
    assert TOKEN not in str(caught.value)
    assert directory.list_runs() == []


def test_commands_print_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"a {TOKEN}")
    output.note(f"b {TOKEN}")
    output.say_json({"c": TOKEN, "token": "x"})
    output.show_traceback(ValueError(f"d {TOKEN}"))
    printed = "".join(capsys.readouterr())
    assert printed.count("[secret]") == 5
    assert TOKEN not in printed


def test_worker_leaves_no_secret_in_its_log_and_no_memory_on_disk(tmp_path: Path) -> None:
    code = (
        "import resource\n"
        "from engine.secrets import guard_process\n"
        "guard_process()\n"
        "import os, sys, threading\n"
        "open(sys.argv[1], 'w').close()\n"
        "print(os.environ['HF_TOKEN'], resource.getrlimit(resource.RLIMIT_CORE))\n"
        "def fail(): raise ValueError('in a thread ' + os.environ['HF_TOKEN'])\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "raise ValueError('at the end ' + os.environ['HF_TOKEN'])\n"
    )
    log = tmp_path / "engine.log"
    with log.open("wb") as stream:
        subprocess.run(
            [sys.executable, "-P", "-c", code, str(tmp_path / "made")],
            cwd=ROOT, stdout=stream, stderr=stream,
            env={"HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert TOKEN not in text
    assert text.startswith("[secret] (0, 0)")
    assert "in a thread [secret]" in text
    assert "at the end [secret]" in text
