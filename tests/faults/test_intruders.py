"""The short form of the rows about other users and hostile frames."""

import os
import tempfile
from pathlib import Path

import pytest

from bench.fault_rows.intruders import ROWS

SECOND_USER, HOSTILE_FRAMES = ROWS


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_second_user_gets_nowhere(tmp_path: Path) -> None:
    for number in range(SECOND_USER.short):
        assert SECOND_USER.trial(number, tmp_path).problem == ""


def test_hostile_frames_are_refused() -> None:
    # The folder of a test may have a longer path than a socket.
    with tempfile.TemporaryDirectory(prefix="frames-") as folder:
        for number in range(0, HOSTILE_FRAMES.short, HOSTILE_FRAMES.batch):
            assert HOSTILE_FRAMES.trial(number, Path(folder)).problem == ""
