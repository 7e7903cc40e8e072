"""Configurations and data files that are wrong in every way: one line says what, and where."""

import contextlib
import io
import json
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.fault_rows.command_line import Done, typed
from bench.fault_rows.row import Outcome, Row
from engine import config as configuration
from engine.errors import UserError
from engine.probe import examples
from engine.probe.request import Wanted
from tests import market_files, recorded
from tests.cockpit.hostile import PIECES, unsafe

FILES = 20
"""That one call spoils, each in a way of its own."""
_SECONDS = 2.0
_PLACE = re.compile(r"stonk-tui: \S.*?: ")

_CONFIG = """\
# A run of a person's own.
preset: demo
name: mine
seed: 3
data:
  source: ohlcv:{folder}/ohlcv
  horizon: 1
  embargo: 5
lora: {{r: 4, alpha: 8}}
rollout:
  group_size: 4
  temperature: 1.0
reward:
  scheme: {folder}/scheme.yaml
schedule:
  max_steps: 4
  save_every: 2
"""
_SCHEME = """\
weights:
  direction: 0.5
  confidence: 0.3
  data_use: 0.2
thresholds:
  min_words: 30
"""
_SETTINGS = """\
# How it looks.
theme = "light"
motion = "none"
bell = false

[keymap]
pause = "f9"
"stop" = "f10"
"""
_TYPED = """\
ticker: ABC
as_of: 2024-03-08
prices: [100, 101, 102.5, 101, 99, 100, 101, 102, 103, 102, 101, 100]
news:
  - Something happened at ABC
"""
_WEIRD = (
    b"NaN", b"-1", b"0", b"1e999", b"-Infinity", b"999999999999999999999", b"0x10", b"1_000",
    b"null", b"true", b"~", b"[]", b"{}", b'""', b"'", b'"', b"\\", b"\t", b"\r\n", b"\n\n", b"\0",
    b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b": ", b"- ", b"#", b"&a ", b"*a", b"!!python/",
    b"<<: ", b"---\n", b"...", b"%s", b"${HOME}", b"../../x", b"[" * 3000, b"{a: " * 300,
    b"x" * 100_000, b"1" * 5000, "\u202e\u0661".encode(), b"2014-02-30", b"0000-00-00",
)  # fmt: skip
_LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)


@dataclass(frozen=True)
class Kind:
    """A kind of file, and the command that reads it."""

    path: str
    """Below the folder of all the files."""
    command: Callable[[Path], Done]
    is_text: bool = True


def spoil_files(number: int, folder: Path) -> Outcome:
    """One good folder of all kinds of files; each of some files spoilt for a moment."""
    _make(folder)
    slowest = 0.0
    for seed in range(number, number + FILES):
        chance = random.Random(seed)
        name = chance.choice(sorted(KINDS))
        kind = KINDS[name]
        file = folder / kind.path
        good = file.read_bytes()
        bad = mutated(chance, good, is_text=kind.is_text)
        file.write_bytes(bad)
        started = time.process_time()
        try:
            done = kind.command(folder)
        except Exception as error:  # noqa: BLE001
            return Outcome(f"{name} {seed}: {type(error).__name__}: {str(error)[:200]!r}")
        seconds = time.process_time() - started
        file.write_bytes(good)
        slowest = max(slowest, seconds)
        if problem := _judged(done, kind, seconds):
            return Outcome(f"{name} {seed}: {problem}")
    return Outcome(figures={"slowest": slowest})


def mutated(chance: random.Random, data: bytes, *, is_text: bool) -> bytes:
    """``data`` with one to four things wrong."""
    if is_text and chance.random() < 0.01:
        return data + b"\n" + _LAUGHS.encode()
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randrange(1, 40))
        match chance.randrange(9 if is_text else 5):
            case 0:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at]
            case 3:
                data = data[:at] + chance.randbytes(chance.randrange(1, 20)) + data[at:]
            case 4:
                data = data[:at] + data[at:end] * chance.randrange(1, 5) + data[at:]
            case 5:
                data = data[:at] + chance.choice(_WEIRD) + data[at:]
            case 6:
                numbers = list(re.finditer(rb"\d[\d.]*", data)) or [re.match(b"", data)]
                found = chance.choice(numbers)
                assert found is not None
                data = data[: found.start()] + chance.choice(_WEIRD) + data[found.end() :]
            case 7:
                words = list(re.finditer(rb"[A-Za-z_]+", data)) or [re.match(b"", data)]
                found = chance.choice(words)
                assert found is not None
                said = chance.choice(PIECES).encode("utf-8", "surrogatepass")
                data = data[: found.start()] + said + data[found.end() :]
            case _:
                lines = data.split(b"\n")
                chance.shuffle(lines)
                data = b"\n".join(lines)
    return data


def _judged(done: Done, kind: Kind, seconds: float) -> str:
    """What is wrong with the answer; empty where nothing is."""
    if done.code not in (0, 2):
        return f"exit code {done.code}: {done.err[-300:]!r}"
    if "Traceback" in done.out + done.err:
        return "a traceback"
    if found := unsafe(done.out) or unsafe(done.err):
        return found
    if seconds > _SECONDS:
        return f"{seconds:.1f} s"
    said = [line for line in done.err.splitlines() if line]
    if done.code == 2:
        # Settings have a line for each thing that is wrong.
        if len(said) != 1 and kind is not KINDS["settings"]:
            return f"{len(said)} lines: {done.err[-300:]!r}"
        if not all(line.startswith("stonk-tui: ") for line in said):
            return f"not in one line: {done.err[-300:]!r}"
        # Another place than the file where that one is whole and names what is not there.
        if Path(kind.path).name not in done.err and not _PLACE.match(done.err):
            return f"does not say where: {done.err[-300:]!r}"
    return ""


def _command(*arguments: str) -> Callable[[Path], Done]:
    def run(folder: Path) -> Done:
        words = [word.replace("{folder}", str(folder)) for word in arguments]
        try:
            return typed(words, {"STONK_HOME": str(folder / "home")})
        finally:
            # What a file that is good all the same has made.
            for made in (folder / "home" / "runs").glob("*-mine*"):
                shutil.rmtree(made)

    return run


def _example(folder: Path) -> Done:
    """The file that `probe --file` takes; the command would start a worker."""
    err, code = io.StringIO(), 0
    file = folder / "typed.yaml"
    with contextlib.redirect_stderr(err):
        try:
            text = file.read_text(encoding="utf-8")
            examples.build(Wanted(text=text, where=str(file)), configuration.preset("demo"))
        except UnicodeDecodeError:
            pass  # said by the command before it gets here
        except UserError as error:
            err.write(f"stonk-tui: {error}\n")
            code = UserError.exit_code
    return Done(code, "", err.getvalue())


_STATS = ("data", "stats", "--source")
_SCORE = ("score", "--completion", "{folder}/said.txt")

KINDS: dict[str, Kind] = {
    "configuration": Kind("run.yaml", _command("train", "{folder}/run.yaml", "--prepare")),
    "frozen": Kind("home/runs/20251120-005320-demo/run.yaml", _command("status")),
    "settings": Kind("home/settings.toml", _command("settings", "check")),
    "scheme": Kind(
        "scheme.yaml",
        _command(*_SCORE, "--example", "{folder}/example.json", "--scheme", "{folder}/scheme.yaml"),
    ),
    "example": Kind("example.json", _command(*_SCORE, "--example", "{folder}/example.json")),
    "typed example": Kind("typed.yaml", _example),
    "csv": Kind("ohlcv/AAPL.csv", _command(*_STATS, "ohlcv:{folder}/ohlcv")),
    "parquet": Kind("pq/AAPL.parquet", _command(*_STATS, "ohlcv:{folder}/pq"), is_text=False),
    "jsonl": Kind("deep.jsonl", _command(*_STATS, "deepstock:{folder}/deep.jsonl")),
    "deep parquet": Kind(
        "deep.parquet", _command(*_STATS, "deepstock:{folder}/deep.parquet"), is_text=False
    ),
    "posts": Kind(
        "net/tweet/raw/AAPL/2014-01-06", _command(*_STATS, "stocknet:{folder}/net")
    ),
    "prices with posts": Kind(
        "net/price/raw/AAPL.csv", _command(*_STATS, "stocknet:{folder}/net")
    ),
    "adapter": Kind(
        "adapter/adapter_config.json",
        _command("promote", "--adapter", "{folder}/adapter", "--preset", "demo", "--set",
                 "name=mine", "--force", "--reason", "a trial"),
    ),
    "adapter weights": Kind(
        "adapter/adapter_model.safetensors",
        _command("promote", "--adapter", "{folder}/adapter", "--preset", "demo", "--set",
                 "name=mine", "--force", "--reason", "a trial"),
        is_text=False,
    ),
}  # fmt: skip


def _make(folder: Path) -> None:
    """One good file of each kind."""
    for path, data in _good().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data.replace(b"{folder}", str(folder).encode()))


@cache
def _good() -> dict[str, bytes]:
    """Path → content of every file, made once."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="faults-good-") as made:
        folder = Path(made)
        home = {"STONK_HOME": str(folder / "home")}
        prices = market_files.rows(120)
        market_files.write_csv(folder / "ohlcv", "AAPL", prices)
        market_files.write_csv(folder / "net/price/raw", "AAPL", prices)
        market_files.write_parquet(folder / "pq/AAPL.parquet", prices)
        deep = market_files.deepstock_rows(count=120)
        market_files.write_jsonl(folder / "deep.jsonl", deep)
        market_files.write_parquet(folder / "deep.parquet", deep)
        posts = [
            {"created_at": f"Mon Jan 06 0{n}:59:03 +0000 2014", "text": f"AAPL says {n}"}
            for n in range(9)
        ]
        day = folder / "net/tweet/raw/AAPL/2014-01-06"
        day.parent.mkdir(parents=True)
        day.write_text("".join(json.dumps(post) + "\n" for post in posts))
        (folder / "scheme.yaml").write_text(_SCHEME)
        (folder / "typed.yaml").write_text(_TYPED)
        (folder / "said.txt").write_text(
            "<think>AAPL rises.</think><answer>UP 0.5% confidence 60%</answer>"
        )
        recorded._write_checkpoint(folder / "adapter")
        shown = typed(
            ["data", "show", "--source", f"ohlcv:{folder}/ohlcv", "--ticker", "AAPL", "--date",
             "2014-05-01", "--style", "compact", "--json"],
            home,
        )  # fmt: skip
        assert shown.code == 0, shown.err
        (folder / "example.json").write_text(shown.out)
        run = "home/runs/20251120-005320-demo"
        (folder / run).mkdir(parents=True)
        values = {"schema": 1, "config": configuration.preset("demo").model_dump(mode="json")}
        frozen = configuration.yaml.safe_dump(values, sort_keys=False)
        (folder / run / "run.yaml").write_text(frozen)
        (folder / "home/settings.toml").write_text(_SETTINGS)
        (folder / "run.yaml").write_text(_CONFIG.replace("{{", "{").replace("}}", "}"))
        return {
            str(file.relative_to(folder)): file.read_bytes().replace(made.encode(), b"{folder}")
            for file in folder.rglob("*")
            if file.is_file()
        }


ROWS = (
    Row(
        "bad-input",
        "exit code 0 or 2, one line that names the file, no traceback, at most 2 s",
        trials=5_000,
        short=5 * FILES,
        trial=spoil_files,
        batch=FILES,
    ),
)
