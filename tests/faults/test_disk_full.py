"""A short form of the bench of faults: a disk that fills up."""

import resource
import socket
from pathlib import Path

import pytest

from bench.fault_rows import disk_full, small_disk, tiny_runs

(ROW,) = disk_full.ROWS


@pytest.mark.parametrize("number", range(ROW.short))
def test_a_full_disk_pauses_the_run_until_there_is_space(number: int, tmp_path: Path) -> None:
    assert ROW.trial(number, tmp_path).problem == ""


def test_the_same_where_no_disk_may_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_disk.os, "geteuid", lambda: 1000)
    assert ROW.trial(2, tmp_path).problem == ""


def test_a_worker_that_is_told_to_end_is_gone_though_no_byte_can_be_written(
    tmp_path: Path,
) -> None:
    schedule = {"max_steps": 10**6, "grace_seconds": 2.0}
    with tiny_runs.new_run(tmp_path, schedule=schedule) as run:
        tiny_runs.workers().start(run)
        tiny_runs.until(lambda: tiny_runs.state(run) == "training")
        worker = run.worker()
        assert worker is not None
        # Its files can grow no more, which no ballast helps against.
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2.0)
            client.connect(str(run.socket))
            client.sendall(b'{"id": "%s", "verb": "checkpoint"}\n' % (b"c" * 32))
            # It waits to be made durable, and with it whoever wants to close the worker's socket.
            with pytest.raises(TimeoutError):
                client.recv(1)
            worker.terminate()
            assert tiny_runs.until(lambda: run.worker() is None) < 20
