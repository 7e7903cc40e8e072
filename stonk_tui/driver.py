"""The terminal, and that it may go at any moment.

When a connection breaks, the kernel sends the programs of its terminal a hang-up and, lest they be
asleep, a continue. Textual takes any continue for the end of a suspension and starts a second time:
a second thread reads keys, and of the two only one is told to end, so the process never does. What
is written from then on fails, which ends the thread that writes while others wait for it.
"""

from types import FrameType
from typing import IO, Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size


class TerminalDriver(LinuxDriver):
    """Textual's driver, for a terminal that may go.

    It leans on two names of Textual's that are not public: the handler of a continue and the file
    that is written to.
    """

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=Size(*size) if size else None)
        self._file = _LastingFile(self._file)  # type: ignore[assignment, arg-type]

    def _sigcont_application(self, *_: int | FrameType | None) -> None:
        if self._must_signal_resume:
            super()._sigcont_application()


class _LastingFile:
    """A file whose writer need not know that nobody reads any more."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write; to a terminal that has gone, nothing."""
        try:
            return self._file.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flush; to a terminal that has gone, nothing."""
        try:
            self._file.flush()
        except OSError:
            return

    def fileno(self) -> int:
        """The terminal's descriptor."""
        return self._file.fileno()
