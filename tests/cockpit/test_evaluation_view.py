"""The report in the terminal: it fits, says the same as the page, and obeys no text in it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner

from engine import config as configuration
from engine.evaluation import report as reporting
from engine.evaluation.document import Table
from engine.evaluation.naming import labels
from engine.runs import directory
from stonk_tui import evaluation_figures, evaluation_view
from stonk_tui.cli import app
from tests import reports

HOSTILE = "\x1b]0;owned\x07[bold red]\u202e evil \x9b31m <answer>UP</answer>\n\tmore"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """A report about three checkpoints that wrote hostile completions, of a hostile source."""
    table = reports.tables(0.5, 0.6, 0.55, num_days=60, num_tickers=3).assign(completion=HOSTILE)
    return reporting.contents(
        reports.context(table, source=HOSTILE),
        table,
        prices=reports.prices(table),
        baselines=None,
        draws=100,
    )


def lines(found: dict[str, Any], width: int) -> list[str]:
    return evaluation_view.render(found, width).plain.split("\n")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(found: dict[str, Any], width: int) -> None:
    assert max(map(cell_len, lines(found, width))) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_what_the_page_says(found: dict[str, Any], width: int) -> None:
    text = "\n".join(lines(found, width))
    verdict = found["verdicts"]["step-000020"]
    assert text.index(verdict["word"]) < text.index("What was evaluated")
    order = [
        "How often it is right",
        "Are stated probabilities true?",
        "How large it says the moves are",
        "── Rewards",
        "── Backtest",
        "Checkpoints against each other",
        "A few completions",
        "How this was measured",
    ]
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)
    accuracy = found["summary"]["checkpoints"]["step-000020"]["accuracy"]
    assert f"{100 * accuracy['value']:.1f} % [{100 * accuracy['low']:.1f}" in text


def test_every_figure_of_the_page_is_drawn(found: dict[str, Any]) -> None:
    drawn = [name for name, _ in reporting.figures.all_of(found)]
    assert len(drawn) == 3 + 4 * 3
    for name in drawn:
        content = evaluation_figures.draw(found, name, 80)
        assert content is not None, name
        assert max(map(cell_len, content.plain.split("\n"))) <= 80
    for curve in ("roc", "checkpoint-1-reliability", "checkpoint-2-equity"):
        content = evaluation_figures.draw(found, curve, 80)
        assert content is not None
        assert len(re.findall("[\u2801-\u28ff]", content.plain)) > 20


def test_a_whisker_lies_where_its_numbers_say() -> None:
    rows = [
        evaluation_figures._Row("a", {"value": 0.6, "low": 0.4, "high": 0.8, "n": 9}, "$up"),
        evaluation_figures._Row("b", {"value": None, "low": None, "high": None, "n": 0}, "$up"),
    ]
    drawn = evaluation_figures._whiskers(rows, 70, zero=0.5).plain.split("\n")
    start, middle, end = (drawn[0].index(mark) for mark in "├●┤")
    assert middle - start == pytest.approx(end - middle, abs=1)
    assert drawn[0].endswith("60.0 % [40.0, 80.0]  n=9")
    assert "●" not in drawn[1]
    assert drawn[1].endswith("not computable  n=0")
    # A quarter of the way from 40 to 80 % is the coin.
    assert drawn[1].index("┊") - start == pytest.approx((end - start) / 4, abs=1)


def test_no_text_reaches_the_terminal_as_more_than_text(found: dict[str, Any]) -> None:
    text = "\n".join(lines(found, 80))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "␛]0;owned␇[bold red]" in text


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=4))
def test_any_table_fits(rows: list[tuple[str, str]]) -> None:
    drawn = evaluation_view._table(Table(("name", "value"), tuple(rows)), 60)
    assert max(cell_len(line) for line in drawn.plain.split("\n")) <= 60


def test_forced_overlap_is_said_in_every_section(found: dict[str, Any]) -> None:
    forced = {**found, "context": {**found["context"], "overlaps_training": True}}
    text = "\n".join(lines(forced, 120))
    assert text.count("⚠ FORCED") == text.count("── ") + 1
    assert "FORCED" not in "\n".join(lines(found, 120))


def test_figures_are_numbered_by_the_order_of_the_page(found: dict[str, Any]) -> None:
    assert labels(found) == ["step-000020", "step-000040", "base"]


def test_the_view_imports_nothing_heavy() -> None:
    code = (
        "import stonk_tui.evaluation_view, sys\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'sklearn', 'scipy', 'plotext'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert result.stdout == "[]\n", result.stderr


# --- the command


def written(folder: Path, found: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


def printed(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["report", *arguments], env={"COLUMNS": "100"})


def test_the_newest_report_of_a_run_is_shown(found: dict[str, Any]) -> None:
    run = directory.create(configuration.preset("demo"))
    older = {**found, "context": {**found["context"], "source": "older"}}
    written(run.path / "evaluation" / "20261120-101500-test", older)
    written(run.path / "evaluation" / "20261121-101500-test", found)
    (run.path / "evaluation" / "20261122-101500-test").mkdir()
    result = printed(run.id)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Evaluation on the test split of ␛]0;owned␇")
    assert "\x1b" not in result.stdout
    assert printed().stdout == result.stdout


def test_a_folder_is_shown_as_it_is(found: dict[str, Any], tmp_path: Path) -> None:
    result = printed(str(written(tmp_path / "one", found)))
    assert result.exit_code == 0, result.output
    assert max(cell_len(line) for line in result.stdout.split("\n")) <= 100
    assert json.loads(printed(str(tmp_path / "one"), "--json").stdout) == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no report yet"),
        ("{", "the report cannot be read"),
        ("[]", "this is no report of this version"),
        ('{"version": 99}', "this is no report of this version"),
    ],
)
def test_what_is_no_report_is_said_in_one_line(
    content: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    result = printed(str(tmp_path))
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().split("\n")) == 1


def test_a_run_without_a_report_is_said() -> None:
    run = directory.create(configuration.preset("demo"))
    result = printed(run.id)
    assert result.exit_code == 2
    assert "has no report of an evaluation; make one with `stonk-tui eval`" in result.stderr
