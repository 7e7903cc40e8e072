"""How busy the GPU was, sampled by a thread while the step runs."""

import threading
from collections.abc import Callable

from engine.runs import devices

_INTERVAL_SECONDS = 1.0


class Utilisation:
    """Mean utilisation of one device between two looks at it."""

    def __init__(self, device: str, read: Callable[[str], float | None] | None = None) -> None:
        """Begin to sample; on a CPU nothing is sampled.

        Args:
            device: as in ``devices.resolve``.
            read: gives the utilisation in [0, 1] of this moment; by default from the driver.
        """
        self._read = read or _from_driver
        self._device = device
        self._samples: list[float] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        if device != "cpu":
            threading.Thread(target=self._sample, name="gpu-utilisation", daemon=True).start()

    def close(self) -> None:
        """Stop sampling."""
        self._ended.set()

    def take(self) -> float | None:
        """Mean since the last call, in [0, 1]; None where nothing was sampled."""
        with self._lock:
            samples, self._samples = self._samples, []
        return sum(samples) / len(samples) if samples else None

    def _sample(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            value = self._read(self._device)
            if value is None:
                # The driver does not tell, as on a slice of a GPU, and will not later.
                return
            with self._lock:
                self._samples.append(value)


def _from_driver(device: str) -> float | None:
    index = int(device.partition(":")[2] or 0)
    present = devices.gpus()
    percent = present[index].utilisation if index < len(present) else None
    return None if percent is None else percent / 100
