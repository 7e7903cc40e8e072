"""Whoever else is on the machine, and whatever arrives at the socket: nobody gets in."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from bench.fault_rows.row import Outcome, Row
from engine.config import RunConfig
from engine.errors import UserError
from engine.runs import control, directory, home
from engine.runs.control import ControlServer
from engine.runs.directory import RunDirectory
from engine.runs.store import EventStore

FRAMES = 500
"""Hostile frames that one trial's call sends."""
_SENDERS = 16
"""Connections at once, as many as are served."""
_STEPS = 60
_NOISE = 0.25
"""How much slower the median step may be under attack. Two measurements without an attack differ
by up to this on a machine with two cores that others use too."""
_ATTEMPTS = 3
"""At a measurement that others who use the machine have spoilt; an attack slows all of them."""
_STRANGER = 65534
_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def listening(folder: Path) -> Iterator[tuple[RunDirectory, ControlServer]]:
    """A run in ``folder`` whose socket is served, as a worker does it."""
    kept = {name: os.environ.get(name) for name in ("STONK_HOME", "XDG_RUNTIME_DIR")}
    sockets = folder / "runtime"
    sockets.mkdir(exist_ok=True)
    os.environ |= {"STONK_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(sockets)}
    try:
        run = directory.create(RunConfig())
        store = EventStore(run.database)
        server = ControlServer(run.socket, store)
        try:
            yield run, server
        finally:
            server.close()
            store.close()
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


# ---------------------------------------------------------------------------
# A second user


def second_user(number: int, folder: Path) -> Outcome:
    """Another user tries to read a run, to command it, and to be in the way of its socket."""
    if os.getuid() != 0:
        return Outcome("only root can become another user: run it as root")
    # Folders for tests and temporary files are private themselves, which would prove nothing.
    open_folder = Path(tempfile.mkdtemp(prefix="faults-open-"))
    open_folder.chmod(0o755)
    try:
        return Outcome(_as_stranger(number, open_folder))
    finally:
        shutil.rmtree(open_folder)


def _as_stranger(number: int, folder: Path) -> str:
    (folder / "readable").write_text("anyone")
    with listening(folder) as (run, server):
        (folder / "home").chmod(0o755)
        run.path.parent.chmod(0o755)
        (run.path / "engine.log").write_text("what the worker said")
        (run.checkpoints / "step-000100").mkdir()
        path, private = run.socket, run.socket.parent
        tries: dict[str, Callable[[], object]] = {
            "list the run": lambda: os.listdir(run.path),
            "read run.yaml": (run.path / "run.yaml").read_bytes,
            "read the store": run.database.read_bytes,
            "read the log": (run.path / "engine.log").read_bytes,
            "list checkpoints": lambda: os.listdir(run.checkpoints),
            "write into the run": lambda: (run.path / "x").write_text("x"),
            "hold the run's lock": lambda: os.open(run.path / "worker.lock", os.O_RDWR),
            "list sockets": lambda: os.listdir(private),
            "remove the socket": path.unlink,
            "command": lambda: _command(path),
        }
        stranger = _STRANGER - number % 30
        got = _what_works({"read what is readable": (folder / "readable").read_bytes}, stranger)
        if not got:
            return "the second user could not read a public file: the trial proves nothing"
        if got := _what_works(tries, stranger):
            return f"a second user could {', '.join(got)}"
        # Were the folders open by mistake, the socket still asks who it is.
        private.chmod(0o755)
        path.chmod(0o777)
        if _what_works({"command": lambda: _command(path)}, stranger):
            return "a second user could command through an open socket"
        if not server.commands.empty():
            return "a command of a second user was queued"
    return _in_the_way(number, folder, stranger)


def _in_the_way(number: int, folder: Path, stranger: int) -> str:
    """The stranger was first to make what the socket's folder would be called."""
    theirs = folder / f"runtime-{number}"
    theirs.mkdir()
    taken = theirs / "stonk-tui"
    match number % 4:
        case 0:
            (folder / "elsewhere").mkdir(mode=0o700)
            taken.symlink_to(folder / "elsewhere")
        case 1:
            taken.mkdir(mode=0o700)
            os.chown(taken, stranger, stranger)
        case 2:
            taken.mkdir()
            taken.chmod(0o777)
        case _:
            taken.write_text("a file")
    kept = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(theirs)
    try:
        home.socket_directory()
    except UserError as error:
        return "" if "\n" not in str(error) else "the refusal takes several lines"
    finally:
        os.environ.pop("XDG_RUNTIME_DIR") if kept is None else os.environ.update(
            XDG_RUNTIME_DIR=kept
        )
    return f"a folder for sockets that is not ours was used (kind {number % 4})"


def _command(path: Path) -> None:
    """Send a command; an error unless it was accepted."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(b'{"id": "theirs", "verb": "stop"}\n')
        if not json.loads(client.makefile("rb").readline()).get("ok"):
            raise PermissionError("refused")


def _what_works(tries: dict[str, Callable[[], object]], user: int) -> list[str]:
    """Which of ``tries`` work for ``user``, made in a process of theirs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens here, only the pipe tells of it.
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            worked = []
            for name, attempt in tries.items():
                with contextlib.suppress(OSError, ValueError):
                    attempt()
                    worked.append(name)
            os.write(writing, json.dumps(worked).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        return ["end its process without a word"]
    return list(json.loads(told))


# ---------------------------------------------------------------------------
# Frames


def hostile_frames(number: int, folder: Path) -> Outcome:
    """``FRAMES`` frames that no cockpit would send, from another process, while steps are taken."""
    with listening(folder) as (run, server):
        loop = _Loop(server)
        for attempt in range(_ATTEMPTS):
            quiet = loop.median()
            with _senders(number + attempt, run) as count:
                attacked = loop.median(until=count)
            again = loop.median()
            is_slow = attacked > (1 + _NOISE) * max(quiet, again)
            if not is_slow or count.problem:
                break
        problem = count.problem
        if not problem and loop.commands:
            problem = f"the loop was told {loop.commands[0].verb}"
        elif not problem and count.refused != FRAMES:
            problem = f"{count.refused} of {FRAMES} frames were refused"
        elif not problem and is_slow:
            problem = f"steps took {attacked * 1e3:.2f} ms, {max(quiet, again) * 1e3:.2f} without"
        elif not problem:
            control.send(run, "pause")
            if server.commands.get(timeout=5).verb != "pause":
                problem = "a real command was not taken afterwards"
    return Outcome(
        problem, {"step_ratio": 2 * attacked / (quiet + again), "noise_ratio": again / quiet}
    )


def frames(seed: int, count: int) -> Iterator[bytes]:
    """Frames that must all be refused or hung up on."""
    random_ = random.Random(seed)
    for _ in range(count):
        yield _frame(random_)


def _frame(random_: random.Random) -> bytes:
    good = {"id": f"x{random_.random()}", "verb": "probe", "payload": {}}
    match random_.randrange(14):
        case 0:
            return random_.randbytes(random_.randrange(1, 200)).replace(b"\n", b"x")
        case 1:
            return b"[" * random_.choice((5, 40, 2000, 30_000))
        case 2:
            return b'{"a":' * random_.choice((40, 5000))
        case 3:
            return json.dumps(
                good | {"verb": random_.choice(("exec", "", "STOP", 7, None))}
            ).encode()
        case 4:
            bad = random_.choice(("../x", "", "a" * 65, 5, None, [], "\ud800", "a b", "x\x00"))
            return json.dumps(good | {"id": bad}).encode()
        case 5:
            return json.dumps(good | {"verb": "stop", "payload": {"a": random_.random()}}).encode()
        case 6:
            deep: object = 1
            for _ in range(random_.choice((3, 17, 300))):
                deep = {"changes": deep} if random_.random() < 0.5 else [deep]
            return json.dumps(good | {"verb": "set", "payload": {"changes": deep}}).encode()
        case 7:
            value = random_.choice(("1e999", "NaN", "-Infinity", "1" * 5000, '"x"', "true", "{}"))
            return b'{"id": "a", "verb": "set", "payload": {"changes": {"patience": %s}}}' % (
                value.encode()
            )
        case 8:
            return b"x" * (control.FRAME_BYTES + random_.randrange(1, 5000))
        case 9:
            return json.dumps(good | {"payload": {"x" * 100: "y" * 1000}}).encode()
        case 10:
            names = {f"{n}": n for n in range(40)}
            return json.dumps(good | {"verb": "set", "payload": {"changes": names}}).encode()
        case 11:
            return json.dumps([good] * random_.randrange(1, 20)).encode()
        case 12:
            half = json.dumps(good).encode()
            return half[: random_.randrange(1, len(half) - 1)]
        case _:
            return b'{"id": "\xff\xfe", "verb": "stop"}'


class _Loop:
    """Steps that take some milliseconds of arithmetic, half of them Python's own, and a look at
    the commands after each."""

    def __init__(self, server: ControlServer) -> None:
        self.commands: list[control.Command] = []
        self._server = server
        self._matrix = np.ones((192, 192), np.float32)

    def median(self, until: "_Senders | None" = None) -> float:
        """Seconds of the median step, over a number of them or as long as senders send."""
        seconds: list[float] = []
        while len(seconds) < _STEPS or (until is not None and until.is_sending):
            started = time.perf_counter()
            for _ in range(8):
                self._matrix @ self._matrix
            sum(range(60_000))
            while not self._server.commands.empty():
                self.commands.append(self._server.commands.get_nowait())
            seconds.append(time.perf_counter() - started)
        return median(seconds)


class _Senders:
    """A process that sends frames, and what it told."""

    refused = 0
    problem = ""
    is_sending = True


@contextmanager
def _senders(seed: int, run: RunDirectory) -> Iterator[_Senders]:
    count = _Senders()
    command = [sys.executable, "-m", "bench.fault_rows.intruders", str(run.socket), str(seed)]
    environment = dict(os.environ, PYTHONPATH=str(_ROOT))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=_ROOT)

    # Its imports take longer than its frames.
    assert process.stdout is not None
    process.stdout.readline()

    def wait() -> None:
        said, _ = process.communicate()
        try:
            count.refused, count.problem = json.loads(said)
        except ValueError:
            count.problem = f"the sender ended with code {process.returncode}"
        count.is_sending = False

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield count
    finally:
        waiting.join()


def send_all(path: str, seed: int) -> tuple[int, str]:
    """(frames refused, what went wrong), by several connections at once."""
    results: list[tuple[int, str]] = []
    shares = [FRAMES // _SENDERS + (at < FRAMES % _SENDERS) for at in range(_SENDERS)]

    def send(offset: int) -> None:
        results.append(_send(path, frames(seed * _SENDERS + offset, shares[offset])))

    print("begun", flush=True)
    threads = [threading.Thread(target=send, args=(offset,)) for offset in range(_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused, problems = zip(*results, strict=True)
    return sum(refused), next(filter(None, problems), "")


def _send(path: str, hostile: Iterator[bytes]) -> tuple[int, str]:
    refused = 0
    client: socket.socket | None = None
    for frame in hostile:
        if client is None:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(20)
            client.connect(path)
        try:
            client.sendall(frame + b"\n")
            reply = b""
            while not reply.endswith(b"\n") and (more := client.recv(65_536)):
                reply += more
        except (BrokenPipeError, ConnectionResetError):
            reply = b""
        except OSError as error:
            return refused, f"{type(error).__name__} after {frame[:60]!r}"
        if not reply:
            client.close()
            client = None
        elif json.loads(reply).get("ok"):
            return refused, f"accepted {frame[:100]!r}"
        refused += 1  # or hung up on
    return refused, ""


ROWS = (
    Row(
        "second-user",
        "another user reads nothing, commands nothing and is not in the way",
        trials=30,
        short=3,
        trial=second_user,
    ),
    Row(
        "hostile-frames",
        "every frame is refused, nothing crashes, steps take as long as without",
        trials=100_000,
        short=FRAMES,
        trial=hostile_frames,
        batch=FRAMES,
    ),
)

if __name__ == "__main__":
    print(json.dumps(send_all(sys.argv[1], int(sys.argv[2]))))
