"""A process that has loaded the libraries once and forks a worker for every line it reads.

    python -m bench.fault_rows.fork_server FOLDER

Each worker is a process of its own in a session of its own, with its own connection to the store:
whoever kills it kills what ``engine.worker`` is, seconds earlier. The libraries are loaded, and
nothing else is done here, so that no thread exists when it forks.

FOLDER is given a tiny model and its configuration. Lines are JSON objects with ``run`` (its path),
``environment`` and, for a run that is to write many events, ``pace`` and ``steps`` a second (see
``bench.fault_rows.paced_store``); the answer to each is a process id.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.policy.quiet import quieten_libraries

READY = "ready"
CONFIG = "config.json"
_LIBRARIES = (
    "pandas",
    "talib",
    "tokenizers",
    "torch",
    "peft",
    "transformers.models.llama.modeling_llama",
    "engine.worker",
    "engine.direction_call",
    "engine.policy.adapters",
    "engine.policy.base_model",
    "engine.policy.embedded",
    "engine.policy.source",
    "engine.service",
    "engine.training.dry_run",
    "engine.training.loop",
    "engine.training.warmup",
    "bench.fault_rows.paced_store",
    "tests.tiny",
)


def main() -> None:
    folder = Path(sys.argv[1])
    quieten_libraries()
    for name in _LIBRARIES:
        importlib.import_module(name)
    living: set[int] = set()

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                living.discard(pid)

    os.waitpid(_fork(lambda: _make_model(folder)), 0)
    signal.signal(signal.SIGCHLD, reap)
    print(READY, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        # Held back meanwhile: a worker that ends at once must be known before it is reaped.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = _fork(lambda request=request: _work(request))
        living.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)
    # Whoever asked for them is gone.
    for pid in tuple(living):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _fork(work: Callable[[], int]) -> int:
    """Do ``work`` in a child that ends with the code it returns; the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _make_model(folder: Path) -> int:
    from tests.tiny import save_tiny_model, tiny_config

    config = tiny_config(save_tiny_model(folder / "model"))
    (folder / CONFIG).write_text(config.model_dump_json(), encoding="utf-8")
    return 0


def _work(request: dict[str, Any]) -> int:
    from bench.fault_rows import paced_store
    from engine import worker

    os.setsid()
    os.environ.update(request["environment"])
    run = Path(request["run"])
    files = (
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(run / "engine.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),) * 2,
    )
    for number, file in enumerate(files):
        os.dup2(file, number)
    if "pace" in request:
        worker.EventStore = paced_store.make(request["pace"], request["steps"])  # type: ignore[misc]
    return worker.main(run)


if __name__ == "__main__":
    main()
