"""Shared fixtures: a home for every test; the converted model is made once a machine.

An audit hook watches the whole suite, see ``tests.audited``.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.audited import sitecustomize as audited

# Before torch is imported: spinning threads starve the worker processes that tests start.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from engine.policy.embedded import default_cache_dir, ensure_embedded_model

# Read before any test changes the environment. Converting takes long enough that
# repeated suites share the person's own cache.
_SHARED_CACHE = default_cache_dir()

_AUDIT_REPORT = pytest.StashKey[Path]()

_LEAKING = (
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "LINES",
    "TEXTUAL",
    "TEXTUAL_THEME",
    "TEXTUAL_COLOR_SYSTEM",
    "PY_COLORS",
    "HF_TOKEN",
)
"""Variables of the person's shell that would change what tests see."""


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests out of the person's runs, and the person's shell out of the tests."""
    monkeypatch.setenv("STONK_HOME", str(tmp_path / "stonk-home"))
    monkeypatch.setenv("STONK_CACHE", str(_SHARED_CACHE))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for name in _LEAKING:
        monkeypatch.delenv(name, raising=False)


def pytest_configure(config: pytest.Config) -> None:
    """Watch this process, and through the environment all that tests start, xdist's included."""
    if audited.REPORT not in os.environ:
        handle, report = tempfile.mkstemp(prefix="stonk-tui-audit-")
        os.close(handle)
        os.environ[audited.REPORT] = report
        config.stash[_AUDIT_REPORT] = Path(report)
    os.environ[audited.PLANTED] = "planted-Secret/0123456789"
    folders = [str(Path(audited.__file__).parent), os.environ.get("PYTHONPATH", "")]
    if folders[0] not in folders[1].split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    # A process of xdist has imported it at its start; two hooks would tell everything twice.
    if getattr(sys.modules.get("sitecustomize"), "__file__", None) != audited.__file__:
        sys.addaudithook(audited.hook)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for what a process that a test started was caught at."""
    if (report := session.config.stash.get(_AUDIT_REPORT, None)) is None:
        return
    if caught := report.read_text(encoding="utf-8"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"\nforbidden, see tests/audited:\n{caught}")
    report.unlink()
    del os.environ[audited.REPORT]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the converted SmolLM2-135M-Instruct; fetched on the first use."""
    return ensure_embedded_model(_SHARED_CACHE, lambda phase, done, total: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the model by its fixture, and skip GPU tests where there is no GPU."""
    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _cuda_is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _cuda_is_available() -> bool:
    if not os.path.exists("/dev/nvidiactl") and shutil.which("nvidia-smi") is None:
        return False
    import torch

    return torch.cuda.is_available()
