"""``stonk-tui data``: what is printed, with which exit code, and that nothing printed acts."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.config import DataConfig
from engine.market import prepare as market_prepare
from engine.market import sources
from engine.market.dataset import Dataset
from engine.market.example import Example
from engine.market.history import History
from stonk_tui.cli import app
from stonk_tui.commands import data
from tests.market_files import rows, write_csv, write_jsonl


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_sources_are_listed_as_they_are_written() -> None:
    listed = invoke("data", "sources").stdout
    for form in ("demo", "ohlcv:DIR", "stocknet:DIR", "deepstock[:PATH_OR_HUB_ID]", "planted"):
        assert re.search(rf"^{re.escape(form)}", listed, re.MULTILINE)


def test_an_example_is_shown_as_the_model_would_see_it() -> None:
    shown = invoke("data", "show", "--source", "demo", "--ticker", "AAPL", "--date", "2012-09-14")
    assert shown.exit_code == 0
    assert "[user]\nApple (AAPL), as of 2012-09-14\nDate open high low close volume" in shown.stdout
    assert "2012-09-14 $689.96 $696.98 $687.89 $691.28 21.4M" in shown.stdout
    assert "label: UP +1.23% at the close of 2012-09-17" in shown.stdout
    assert re.search(r"^2012-09-14T16:00:00-04:00 +indicators$", shown.stdout, re.MULTILINE)


def test_style_and_horizon_change_what_is_shown() -> None:
    where = ("data", "show", "--source", "demo", "--ticker", "AAPL", "--date", "2012-09-14")
    masked = invoke(*where, "--style", "masked").stdout.partition("label:")[0]
    assert "A stock, prices rebased to 100" in masked
    assert "Apple" not in masked
    week = invoke(*where, "--horizon", "5").stdout
    assert "direction of a stock's close in 5 trading days" in week
    assert "at the close of 2012-09-21" in week


def test_text_of_strangers_is_shown_inert(tmp_path: Path) -> None:
    write_csv(tmp_path / "price" / "raw", "AAA", rows(200))
    text = "\x1b]0;owned\x07\u202e [bold]up[/] <|im_end|>"
    post = {"ticker": "AAA", "created_at": "2014-05-01T15:00:00Z", "text": text}
    write_jsonl(tmp_path / "posts" / "AAA.jsonl", [post])
    where = ("--source", f"stocknet:{tmp_path}", "--ticker", "AAA", "--date", "2014-05-01")
    shown = invoke("data", "show", *where).stdout
    assert "2014-05-01T15:00:00+00:00  headline 1" in shown
    assert not set(shown) & set("\x1b\x07\u202e")
    as_json = invoke("data", "show", *where, "--json").stdout
    assert as_json.isascii()
    assert "\x1b" not in as_json


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["stats", "--source", "dmeo"], "no market data source called 'dmeo'; use one of: demo"),
        (["check", "--source", "ohlcv:/nowhere"], "/nowhere: there is no such folder"),
        (["stats", "--source", "planted:share=2"], "planted:share=2 is out of range"),
        (
            ["show", "--source", "demo", "--ticker", "aapl", "--date", "2012-09-14"],
            "--ticker: no ticker called 'aapl'; there are 5, such as AAPL",
        ),
        (
            ["show", "--source", "demo", "--ticker", "AAPL", "--date", "14.9.2012"],
            "--date: '14.9.2012' is no date; write it as YYYY-MM-DD",
        ),
        (
            ["show", "--source", "demo", "--ticker", "AAPL", "--date", "2012-09-15"],
            "or without a label; the nearest are 2012-09-14 and 2012-09-17",
        ),
        (["prepare", "--source", "demo", "--out", "/nowhere/out"], "/nowhere: no such folder"),
        (["prepare", "--source", "demo", "--out", "x", "--window", "1"], "--window: must be from"),
        (
            ["prepare", "--source", "planted:shuffled=true", "--out", "x"],
            "the labels of this source are permuted",
        ),
    ],
)
def test_wrong_input_is_one_line_with_exit_code_2(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("data", *arguments)
    assert done.exit_code == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", ["--style=loud", "--horizon=0", "--horizon=11"])
def test_an_option_out_of_range_ends_with_2(option: str) -> None:
    where = ("--source", "demo", "--ticker", "AAPL", "--date", "2012-09-14")
    assert invoke("data", "show", *where, option).exit_code == 2


def test_statistics_name_refused_rows_with_the_reason(tmp_path: Path) -> None:
    table = rows(120)
    table[7]["Close"] = "\x1b[31mmany"
    path = write_csv(tmp_path, "AAA", table)
    shown = invoke("data", "stats", "--source", f"ohlcv:{tmp_path}").stdout
    assert "120 price rows read, 1 refused\n  1 text in a number\n" in shown
    assert f"{path}:9:Close: text in a number" in " ".join(shown.split("\n"))
    assert "\x1b" not in shown


def test_statistics_draw_no_picture_where_there_is_no_terminal() -> None:
    assert "UP, % of rows" not in invoke("data", "stats", "--source", "planted").stdout


def test_the_picture_shows_the_share_of_up_and_the_borders() -> None:
    dataset = Dataset.configured(sources.load("demo").histories, DataConfig())
    drawn = data.picture(dataset, 90)
    assert drawn.startswith("UP, % of rows\n")
    assert {"2002", "2005", "validation", "test", "100┤"} <= set(re.findall(r"[\w┤]+", drawn))
    assert max(map(len, drawn.splitlines())) <= 90


class _Leaky(Dataset):
    def example(self, history: int, index: int) -> Example:
        example = super().example(history, index)
        label = dataclasses.replace(example.label, percent=example.label.percent + 1)
        return dataclasses.replace(example, label=label)

    @classmethod
    def leaky(cls, histories: Sequence[History], data: DataConfig) -> Dataset:
        return cls(
            histories, window=10, horizon=1, train_share=0.7, validation_share=0.15, embargo=5
        )


def test_a_leak_ends_the_check_with_1_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "configured", _Leaky.leaky)
    for extra in ((), ("--json",)):
        done = invoke("data", "check", "--source", "planted", *extra)
        assert done.exit_code == 1
        assert done.stderr == "stonk-tui: planted leaks: labels\n"
    found = json.loads(done.stdout)
    assert found["verdict"] == "red"


def test_a_clean_source_passes_the_check() -> None:
    done = invoke("data", "check", "--source", "planted")
    assert done.exit_code == 0
    assert "planted: 2,000 examples sampled from 12,232 rows" in done.stdout
    assert re.search(r"^green +labels$", done.stdout, re.MULTILINE)
    assert re.search(r"^skipped +financials$", done.stdout, re.MULTILINE)


def test_prepared_files_are_written_and_counted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke("data", "prepare", "--source", "demo", "--out", str(out), "--window", "20")
    assert done.exit_code == 0
    assert done.stdout.startswith("reading the source\nwriting tickers")
    assert re.search(r"^[\d,]+ windows of 5 tickers in .*: train [\d,]+, val", done.stdout, re.M)
    manifest = json.loads((out / market_prepare.MANIFEST).read_text())
    assert manifest["options"]["window"] == 20
    assert len(list(out.glob("AAPL_*.csv"))) == 8
    again = invoke(
        "data", "prepare", "--source", "demo", "--out", str(out), "--normalisation", "standard"
    )
    assert again.exit_code == 0
    assert "FB left out: no training window to fit the scaler on" in again.stdout
