"""What examples/ and bench/ hold is what the documentation says it is."""

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from engine.config import DataConfig, build
from engine.direction_call import DirectionCall
from engine.market import leakage, sources
from engine.market.dataset import Dataset
from stonk_tui.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "ohlcv" / "EXAMPLE.csv"
SOURCE = f"ohlcv:{EXAMPLE.parent}"


def test_the_example_prices_are_what_their_recipe_prints() -> None:
    (recipe,) = re.findall(r"^```python recipe=example\n(.*?)^```$", DOCUMENT, re.M | re.S)
    made = subprocess.run(
        [sys.executable, "-c", recipe], capture_output=True, text=True, check=True
    )
    assert made.stdout == EXAMPLE.read_text(encoding="utf-8")
    header, first, *_ = made.stdout.splitlines()
    assert f"{header}\n{first}\n" in DOCUMENT


def test_the_documented_commands_take_the_example() -> None:
    for arguments in (
        ["stats"],
        ["show", "--ticker", "EXAMPLE", "--date", "2024-01-10"],
        ["check"],
    ):
        done = CliRunner().invoke(app, ["data", *arguments, "--source", SOURCE])
        assert done.exit_code == 0, done.output
    task = DirectionCall.from_config(build({"data": {"source": SOURCE}}, where="test"))
    assert task.num_training_items > 100


def test_the_document_names_every_check() -> None:
    market = sources.load(SOURCE)
    subject = leakage.Subject(market, lambda h: Dataset.configured(h, DataConfig()), sample=10)
    names = [check.name for check in leakage.audit(subject).checks]
    table = DOCUMENT.partition("| check | green says |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.M) == names
    assert "Fifteen checks" in DOCUMENT
    assert len(names) == 15


def test_the_benchmark_measures_a_file_that_it_makes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "market.py"), "--rows", "1300"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STOCKNET_DIR": ""},
    )
    assert done.returncode == 0, done.stderr
    for figure in ("rows 1,300", "peak_memory_mib", "examples_per_second_best", "machine: "):
        assert figure in done.stdout
