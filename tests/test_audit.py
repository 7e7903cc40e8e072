"""The audit hook that watches the suite fires, here and in the processes that tests start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audited import sitecustomize as audited

ROOT = Path(__file__).resolve().parents[1]
UNPICKLES = "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path('x')))"


def run_as_ours(code: str) -> None:
    """Run ``code`` as if it stood in a file of the engine."""
    exec(compile(code, f"{ROOT}/engine/made_up.py", "exec"), {})  # noqa: S102


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of the session's own, which fails it."""
    file = tmp_path / "caught"
    monkeypatch.setenv(audited.REPORT, str(file))
    return file


def test_unpickling_by_our_code_is_caught(report: Path) -> None:
    with pytest.raises(RuntimeError, match=r"engine/made_up\.py:1 unpickles pathlib"):
        run_as_ours(UNPICKLES)
    assert "unpickles" in report.read_text()


def test_pickles_that_others_send_themselves_are_not_ours(report: Path) -> None:
    exec(UNPICKLES, {})  # noqa: S102
    assert not report.exists()


@pytest.mark.parametrize("weights_only", [True, False])
def test_torch_load_by_our_code_is_caught(weights_only: bool, report: Path, tmp_path: Path) -> None:
    import torch

    file = tmp_path / "weights.any"
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(RuntimeError, match=r"torch\.load"):
        run_as_ours(f"import torch; torch.load({str(file)!r}, weights_only={weights_only})")


def test_process_that_a_test_starts_is_watched_too(report: Path, tmp_path: Path) -> None:
    code = f"exec(compile({UNPICKLES!r}, {str(ROOT / 'engine/made_up.py')!r}, 'exec'))"
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert "ForbiddenError" in ended.stderr
    assert "unpickles pathlib" in report.read_text()


def test_secret_among_the_words_of_a_process_is_caught(report: Path) -> None:
    with pytest.raises(RuntimeError, match="a secret among its words"):
        subprocess.run(["true", os.environ[audited.PLANTED]])
