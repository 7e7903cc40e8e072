"""An evaluation that is killed at random moments repeats and loses nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = 20


def test_twenty_kills_at_random_leave_the_table_of_an_evaluation_that_nobody_disturbed(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.evaluations", str(tmp_path), str(KILLS), "7"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert found["rows"] == found["distinct"] == 3 * 30 * 2
    assert len(found["counts"]) == KILLS
    # Most kills came after some work and before the end.
    assert len(set(found["counts"])) > KILLS // 2
    assert found["counts"] == sorted(found["counts"])
    # The same request found its folder every time.
    assert found["folders"] == 1
