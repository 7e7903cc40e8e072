"""Tell someone outside what became of a run: a command of their own, a webhook, or both.

``STONK_NOTIFY_COMMAND`` is run without a shell and reads the notification as JSON on its
standard input; ``STONK_NOTIFY_WEBHOOK`` is an address to which the same JSON is posted. An
address holds a secret as a rule: it is never written anywhere, and neither is the command.

A thread does the telling, so that training never waits for it, and what fails is reported in
one line that ends no run.
"""

import contextlib
import http.client
import json
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from engine.runs.history import TERMINAL_STATES
from engine.task import Json
from engine.text import one_line

COMMAND_VARIABLE = "STONK_NOTIFY_COMMAND"
WEBHOOK_VARIABLE = "STONK_NOTIFY_WEBHOOK"
TIMEOUT_SECONDS = 10.0
_MOST_WAITING = 32
_END = None


class Notifier:
    """Sends notifications about one run, in order, from a thread of its own."""

    def __init__(
        self,
        run: str,
        report: Callable[[str], None],
        *,
        environment: Mapping[str, str] = os.environ,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """Read the two variables; where neither is set, nothing is ever sent.

        Args:
            run: the run's id.
            report: takes one line about a notification that failed; called from the thread.
            environment: holds the two variables.
            timeout: seconds that a command or a webhook may take.
        """
        self._run = run
        self._report = report
        self._command = environment.get(COMMAND_VARIABLE, "").strip()
        self._webhook = environment.get(WEBHOOK_VARIABLE, "").strip()
        self._timeout = timeout
        self._waiting: queue.Queue[dict[str, Json] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        if self._command or self._webhook:
            self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
            self._thread.start()

    def tell(self, kind: str, payload: Mapping[str, Any], step: int) -> None:
        """Send what is worth it: all lights on, an alarm that went on, a failure, the end.

        Args:
            kind: of an event.
            payload: of the same event.
            step: at which it happened.
        """
        message = describe(kind, payload)
        if message is None or self._thread is None:
            return
        message |= {"run": self._run, "step": step, "time": time.time()}
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._report("a notification was dropped: those before it are still being sent")

    def close(self) -> None:
        """Send what is waiting, for as long as one notification may take, and stop."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put(_END, timeout=self._timeout)
        # A command and a webhook, one after the other.
        self._thread.join(2 * self._timeout + 1)
        self._thread = None

    def _work(self) -> None:
        while (message := self._waiting.get()) is not _END:
            body = json.dumps(message).encode()
            if self._command and (problem := _run_command(self._command, body, self._timeout)):
                self._report(f"the notification command {problem}")
            if self._webhook and (problem := _post(self._webhook, body, self._timeout)):
                self._report(f"the notification webhook {problem}")


def describe(kind: str, payload: Mapping[str, Any]) -> dict[str, Json] | None:
    """``event``, ``title`` and ``text`` of a notification, cleaned; None where there is none."""
    match kind:
        case "super_saiyan":
            best = payload.get("suggestion")
            text = f"{best} is the checkpoint to promote" if best else "nothing is saved yet"
            event, title = "super_saiyan", "Super Saiyan: all four indicators are on"
        case "alarm" | "hang" if payload.get("on"):
            event, title, text = kind, payload["title"], payload["explanation"]
        case "state" if payload.get("state") == "paused" and payload.get("detail"):
            event, title, text = "paused", "the run paused by itself", payload["detail"]
        case "state" if payload.get("state") in TERMINAL_STATES:
            event, text = payload["state"], payload.get("detail", "")
            title = f"run {event}"
        case _:
            return None
    return {
        "event": event,
        "title": one_line(str(title), 80),
        "text": one_line(str(text), 500),
    }


def _run_command(command: str, body: bytes, timeout: float) -> str | None:
    """What went wrong with the command, in words that do not repeat it; None when it worked."""
    try:
        arguments = shlex.split(command)
    except ValueError:
        return f"cannot be split into words; check the quotes in {COMMAND_VARIABLE}"
    # The command has no use for the webhook's address.
    environment = {key: text for key, text in os.environ.items() if key != WEBHOOK_VARIABLE}
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    try:
        process.communicate(body, timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"was ended after {timeout:g} s"
    return f"ended with code {process.returncode}" if process.returncode else None


def _post(address: str, body: bytes, timeout: float) -> str | None:
    """What went wrong with the webhook, in words without its address; None when it worked."""
    try:
        is_web = urlsplit(address).scheme in ("http", "https")
        if not is_web:
            return f"is not an http or https address; check {WEBHOOK_VARIABLE}"
        request = urllib.request.Request(
            address,
            data=body,
            headers={"Content-Type": "application/json", "User-Agent": "stonk-tui"},
            method="POST",
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout):
            return None
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except TimeoutError:
        return f"did not answer within {timeout:g} s"
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return f"did not answer within {timeout:g} s"
        # Other messages may quote the address.
        reason = error.reason.strerror if isinstance(error.reason, OSError) else None
        return f"cannot be reached: {reason or 'no connection'}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"cannot be reached: {type(error).__name__}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected post would arrive as a request without its body, at an address unasked for."""

    def redirect_request(self, *_: object) -> None:
        return None
