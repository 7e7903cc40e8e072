"""Let the file system fail at the n-th call that changes something, or die there.

The calls are wrapped where Python makes them, so what writes past ``os`` is not seen: whoever
counts on this writes through ``os`` alone (``engine.runs.durable``).
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")
"""Functions of ``os`` that open, write, make durable, name and remove."""


Fault = Callable[[str, Callable[[], None]], None]
"""Given the name of a call and a function that makes half of it; may raise, or never return."""


class Points:
    """Counts calls, and lets ``fault`` act at one of them."""

    def __init__(
        self, at: int | None = None, fault: Fault | None = None, *, lasting: bool = False
    ) -> None:
        """``lasting``: what takes room on the disk fails from there on as well."""
        self.names: list[str] = []
        self._at, self._fault, self._lasting = at, fault, lasting

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Inside the block, calls are counted."""
        real = {name: getattr(os, name) for name in CALLS}
        try:
            for name in CALLS:
                setattr(os, name, self._wrapped(name, real[name]))
            yield
        finally:
            for name in CALLS:
                setattr(os, name, real[name])

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            number = len(self.names)
            self.names.append(name)
            if self._fault is not None and self._strikes(number, name, args):

                def half() -> None:
                    if name == "write":
                        call(args[0], args[1][: len(args[1]) // 2])

                self._fault(name, half)
            return call(*args, **kwargs)

        return counted

    def _strikes(self, number: int, name: str, args: Sequence[Any]) -> bool:
        if self._at is None or number < self._at:
            return False
        takes_room = name in ("write", "mkdir") or (name == "open" and args[1] & os.O_CREAT)
        return number == self._at or (self._lasting and bool(takes_room))


def die(name: str, half: Callable[[], None]) -> None:
    """Die in the middle of a write, and before any other call."""
    half()
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(number: int) -> Fault:
    """A fault: the error ``number`` in the middle of a write, and instead of any other call."""

    def fail(name: str, half: Callable[[], None]) -> None:
        half()
        raise OSError(number, os.strerror(number))

    return fail
