"""Keep secrets out of what is written and shown: store, logs, reports, tracebacks.

A secret is the value of an environment variable that is named like one (``HF_TOKEN``,
``WANDB_API_KEY``), whatever is called so in a mapping, a token of the Hugging Face hub, and the
password in an address. Training tools have leaked tokens through logged arguments and
configurations; so what leaves this program goes through ``mask`` once, where it is written.

What this cannot know: a secret in a file, or one in the environment under an innocent name.
"""

import os
import re
import resource
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO, cast

from engine.errors import UserError

MASK = "[secret]"

_SHORTEST = 8
"""Characters. What is shorter is found in ordinary text, and masking it would spoil that."""
_OF_VARIABLES = frozenset(
    {
        "APIKEY", "AUTH", "COOKIE", "CREDENTIAL", "CREDENTIALS", "DSN", "KEY", "PASSPHRASE",
        "PASSWD", "PASSWORD", "PAT", "SECRET", "TOKEN", "WEBHOOK",
    }
)  # fmt: skip
"""Parts of an environment variable's name."""
_OF_KEYS = re.compile(
    r"(?:^|[^a-z])(?:token|secret|passw(?:or)?d|passphrase|credentials?|webhook|authorization"
    r"|(?:api|access|private|signing)[^a-z]?key)$"
)
"""Keys of a mapping. Not ``key`` alone nor ``tokens``, which are words of this program."""
_PLACES = ("PATH", "FILE", "DIR", "SOCK")
"""Last parts of the name of a variable that says where something is."""
_WORDS = re.compile(r"[a-z _.-]{0,15}|[\d.,:+-]*|https?://[^/?#@]*/?")
"""Values that are no secret, whatever they are called: a word or two, numbers, the bare address
of a machine. States and names of metrics are such words."""
_SHAPES = re.compile(r"\bhf_[A-Za-z0-9]{20,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""Tokens of the hub, which its client reads from a file, and ``user:password`` of an address."""


def mask(text: str) -> str:
    """``text`` without the secrets of this process."""
    return _masked(text, _pattern(_values()))


def masked(value: Any) -> Any:
    """``value``, of the types of JSON, without secrets."""
    # The environment is looked at once for all texts in it.
    return _walked(value, _pattern(_values()))


def _masked(text: str, known: re.Pattern[str] | None) -> str:
    if known is not None:
        text = known.sub(MASK, text)
    return _SHAPES.sub(MASK, text) if "hf_" in text or "://" in text else text


def _walked(value: Any, known: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        return _masked(value, known)
    if isinstance(value, Mapping):
        return {
            _walked(key, known): MASK
            if isinstance(item, str) and item and is_secret_key(str(key))
            else _walked(item, known)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_walked(item, known) for item in value]
    return value


@lru_cache(4096)
def is_secret_key(key: str) -> bool:
    """Whether what a mapping calls ``key`` is a secret."""
    return bool(_OF_KEYS.search(key.lower()))


def refuse(value: Any, where: str) -> None:
    """Refuse what would be kept in a file, where it holds a secret of the environment.

    Raises:
        UserError: naming the variable, never its value.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            refuse(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            refuse(item, where)
    elif isinstance(value, str):
        for name, secret in os.environ.items():
            if secret in value and _is_secret(name, secret):
                raise UserError(
                    f"it holds the value of ${name}, and would be kept in a file",
                    where=where,
                    fix="leave it in the environment",
                )


def guard_process() -> None:
    """For a process whose words go into a log: no memory on disk, no secret in its words, and what
    it writes for its owner alone."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = cast(TextIO, MaskedStream(sys.stdout))
    sys.stderr = cast(TextIO, MaskedStream(sys.stderr))


class MaskedStream:
    """A text stream that masks whole lines, since a secret may come in several pieces."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""
        # A signal handler may write while the thread that it interrupted does.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            self._line += text
            # A progress bar ends its lines with a carriage return.
            end = max(self._line.rfind("\n"), self._line.rfind("\r")) + 1
            if end:
                whole, self._line = self._line[:end], self._line[end:]
                self._stream.write(mask(whole))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lock:
            rest, self._line = self._line, ""
            if rest:
                self._stream.write(mask(rest))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _values() -> tuple[str, ...]:
    """The secrets of the environment, the longest first: one may begin with another."""
    found = {value for name, value in os.environ.items() if _is_secret(name, value)}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


@lru_cache(512)
def _is_secret(name: str, value: str) -> bool:
    parts = re.split(r"[^A-Z]+", name.upper())
    if parts[-1] in _PLACES or _OF_VARIABLES.isdisjoint(parts) or len(value) < _SHORTEST:
        return False
    return not (_WORDS.fullmatch(value) or (value.startswith("/") and os.path.exists(value)))


@lru_cache(8)
def _pattern(values: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, values))) if values else None
