"""A worker that was told to end is gone in time, whatever its main thread does.

Python runs a signal's handler in the main thread, between two of its instructions: a thread that
is deep in a library hears of nothing. So another one is woken by the signal itself, and ends the
process when the time is over.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def grace(seconds: float, heard: Callable[[], None], late: Callable[[], None]) -> Iterator[None]:
    """Call ``heard`` from a thread at a SIGTERM, and ``late`` where the block outlasts ``seconds``.

    Only in the main thread, and with a handler for the signal in place: without one it ends the
    process by itself.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    is_over = threading.Event()

    def wait() -> None:
        while numbers := receiver.recv(64):
            if signal.SIGTERM in numbers:
                heard()
                if not is_over.wait(seconds):
                    late()
                return

    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=wait, name="grace", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        is_over.set()
        sender.close()
        thread.join()
        receiver.close()
