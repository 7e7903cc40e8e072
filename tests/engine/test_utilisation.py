"""GPU utilisation between two looks at it, without a GPU."""

import threading

import pytest

from engine.training import utilisation
from engine.training.utilisation import Utilisation
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation, "_INTERVAL_SECONDS", 0.001)


def test_it_is_the_mean_since_the_last_look() -> None:
    values = [0.2, 0.6]
    read = threading.Event()

    def reading(device: str) -> float | None:
        assert device == "cuda:1"
        if not values:
            read.set()
            return None
        return values.pop(0)

    sampled = Utilisation("cuda:1", reading)
    wait_for(read.is_set)
    assert sampled.take() == pytest.approx(0.4)
    assert sampled.take() is None
    sampled.close()


def test_nothing_is_sampled_on_a_processor() -> None:
    def never(device: str) -> float | None:
        raise AssertionError("there is no GPU to ask")

    before = threading.active_count()
    sampled = Utilisation("cpu", never)
    assert threading.active_count() == before
    assert sampled.take() is None


def test_the_thread_ends_when_the_training_does() -> None:
    sampled = Utilisation("cuda:0", lambda device: 0.5)
    wait_for(lambda: sampled.take() is not None)
    sampled.close()
    wait_for(lambda: "gpu-utilisation" not in {thread.name for thread in threading.enumerate()})
