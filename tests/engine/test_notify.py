"""Notifications: a local server and a small script hear what they should, and nothing leaks."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.runs.notify import COMMAND_VARIABLE, WEBHOOK_VARIABLE, Notifier, describe
from tests.waiting import wait_for

FINISHED = {"state": "finished", "detail": "all 40 steps done"}
ALARM: dict[str, Any] = {"name": "a", "on": True, "title": "KL 2.3", "explanation": "far away"}


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what was posted to it and answers with ``code``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posted: list[dict[str, Any]] = []
        self.code = 204
        self.released = threading.Event()
        self.released.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/SECRET"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(body))
        self.server.released.wait(30)
        self.send_response(self.server.code)
        if self.server.code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def script(tmp_path: Path, body: str) -> str:
    """A command line that runs ``body`` in Python, with a space in its path."""
    file = tmp_path / "my hook.py"
    file.write_text(body)
    return f"{sys.executable} '{file}'"


def told(
    environment: dict[str, str], *events: tuple[str, dict[str, Any]], timeout: float = 10.0
) -> list[str]:
    """Tell ``events`` of a run and wait for the end; the lines that were reported."""
    reported: list[str] = []
    notifier = Notifier("my-run", reported.append, environment=environment, timeout=timeout)
    for step, (kind, payload) in enumerate(events):
        notifier.tell(kind, payload, step)
    notifier.close()
    return reported


def test_webhook_gets_what_is_worth_telling_in_order(receiver: Receiver) -> None:
    reported = told(
        {WEBHOOK_VARIABLE: receiver.address},
        ("state", {"state": "training", "detail": ""}),
        ("alarm", ALARM),
        ("alarm", ALARM | {"on": False}),
        ("super_saiyan", {"suggestion": "step-000040"}),
        ("state", FINISHED),
        # By command, and by itself.
        ("state", {"state": "paused", "detail": ""}),
        ("state", {"state": "paused", "detail": "loss not finite"}),
    )
    assert reported == []
    assert [one["event"] for one in receiver.posted] == [
        "alarm",
        "super_saiyan",
        "finished",
        "paused",
    ]
    assert [one["step"] for one in receiver.posted] == [1, 3, 4, 6]
    assert receiver.posted[0]["title"] == "KL 2.3"
    assert receiver.posted[0]["run"] == "my-run"
    assert "step-000040" in receiver.posted[1]["text"]
    assert receiver.posted[2]["text"] == "all 40 steps done"


def test_command_reads_the_event_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "heard.json"
    command = script(
        tmp_path, f"import pathlib, sys; pathlib.Path({str(out)!r}).write_text(sys.stdin.read())"
    )
    failed = {"state": "failed", "detail": "out of memory"}
    assert told({COMMAND_VARIABLE: command}, ("state", failed)) == []
    heard = json.loads(out.read_text())
    assert (heard["event"], heard["text"]) == ("failed", "out of memory")


def test_command_is_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "touched"
    told({COMMAND_VARIABLE: f"true; touch {out}"}, ("state", FINISHED))
    told({COMMAND_VARIABLE: f"true $(touch {out})"}, ("state", FINISHED))
    assert not out.exists()


def test_both_are_told(tmp_path: Path, receiver: Receiver) -> None:
    out = tmp_path / "heard"
    command = script(tmp_path, f"open({str(out)!r}, 'w').close()")
    environment = {COMMAND_VARIABLE: command, WEBHOOK_VARIABLE: receiver.address}
    assert told(environment, ("state", FINISHED)) == []
    assert out.exists()
    assert len(receiver.posted) == 1


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("/no/such/SECRET", "the notification command cannot be started: No such file"),
        ("'SECRET", "the notification command cannot be split into words"),
        (f"{sys.executable} -c 'exit(3)' SECRET", "the notification command ended with code 3"),
    ],
)
def test_command_that_fails_is_one_line_without_the_command(command: str, line: str) -> None:
    (reported,) = told({COMMAND_VARIABLE: command}, ("state", FINISHED))
    assert reported.startswith(line)
    assert "SECRET" not in reported


def test_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = script(
        tmp_path,
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(child.pid))\n"
        "child.wait()\n",
    )
    reported = told({COMMAND_VARIABLE: command}, ("state", FINISHED), timeout=2.0)
    assert reported == ["the notification command was ended after 2 s"]
    process = Path("/proc") / pid.read_text()
    wait_for(lambda: not process.exists() or "Z (zombie)" in (process / "status").read_text())


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("file:///etc/SECRET", "the notification webhook is not an http or https address"),
        ("http://[SECRET", "the notification webhook cannot be reached: ValueError"),
        ("http://127.0.0.1:SECRET/", "the notification webhook cannot be reached: InvalidURL"),
        ("http://127.0.0.1:1/SECRET", "the notification webhook cannot be reached: Connection"),
        ("http://a b/SECRET", "the notification webhook cannot be reached: InvalidURL"),
    ],
)
def test_webhook_that_fails_is_one_line_without_its_address(address: str, line: str) -> None:
    (reported,) = told({WEBHOOK_VARIABLE: address}, ("state", FINISHED))
    assert reported.startswith(line)
    assert "SECRET" not in reported


@pytest.mark.parametrize("code", [302, 404, 500])
def test_webhook_that_refuses_or_redirects_is_reported_by_its_code(
    receiver: Receiver, code: int
) -> None:
    receiver.code = code
    reported = told({WEBHOOK_VARIABLE: receiver.address}, ("state", FINISHED))
    assert reported == [f"the notification webhook answered {code}"]
    assert len(receiver.posted) == 1


def test_webhook_that_never_answers_is_given_up(receiver: Receiver) -> None:
    receiver.released.clear()
    reported = told({WEBHOOK_VARIABLE: receiver.address}, ("state", FINISHED), timeout=0.5)
    assert reported == ["the notification webhook did not answer within 0.5 s"]


def test_telling_waits_for_nobody(receiver: Receiver) -> None:
    receiver.released.clear()
    reported: list[str] = []
    notifier = Notifier(
        "my-run", reported.append, environment={WEBHOOK_VARIABLE: receiver.address}, timeout=30
    )
    for step in range(40):
        notifier.tell("alarm", ALARM, step)
    assert reported
    assert set(reported) == {"a notification was dropped: those before it are still being sent"}
    receiver.released.set()
    wait_for(lambda: len(receiver.posted) >= 32)
    notifier.close()


def test_nothing_is_started_where_nobody_listens() -> None:
    before = threading.active_count()
    notifier = Notifier("my-run", pytest.fail, environment={})
    assert threading.active_count() == before
    notifier.tell("state", FINISHED, 1)
    notifier.close()


def test_hostile_text_is_cleaned_before_it_leaves() -> None:
    alarm = ALARM | {"title": "KL\x1b]52;c;x\x07\nnew line" + "x" * 200, "explanation": "a\u202eb"}
    message = describe("alarm", alarm)
    assert message is not None
    for text in message.values():
        assert isinstance(text, str)
        assert text.isprintable()
    assert len(str(message["title"])) <= 80
