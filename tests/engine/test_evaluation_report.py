"""The report of an evaluation: what is in its files, in which order, and that nothing escapes."""

import datetime as dt
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from engine.evaluation import document, figures, pictures, report, sections
from engine.evaluation import table as predictions
from engine.evaluation.document import Heading, Mark, Quote, Table, Verdict
from engine.evaluation.wording import NOT_COMPUTABLE
from tests import reports

HOSTILE = (
    "</pre><script>alert(1)</script>\x1b]0;owned\x07 ``` `````\n| a | [x](javascript:1) & \u202e"
    "<img src=x onerror=alert(1)>"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report about two checkpoints that wrote hostile completions."""
    table = reports.tables(0.5, 0.6, num_days=60, num_tickers=3).assign(completion=HOSTILE)
    table.loc[3:9, "called_up"] = None
    place = tmp_path_factory.mktemp("evaluation")
    source = "<b>ohlcv</b>:/data|x"
    reports.write(place, table, source=source, trials=5, trial_sharpes=(0.02, -0.03))
    report.build(place, draws=200)
    return place


class Page(HTMLParser):
    """Tags, texts and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        assert not [name for name in found if name.startswith("on")]
        self.addresses += [
            str(found[name]) for name in ("src", "srcset", "href", "action") if name in found
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_everything_is_written(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"report.md", "report.json", "report.html", "predictions.parquet", "figures"} <= names
    assert not [name for name in names if name.startswith(".")]
    for path in (folder / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    shown = set(re.findall(r"\(figures/([\w-]+)\.png\)", (folder / "report.md").read_text()))
    assert shown == drawn
    assert {
        "accuracy",
        "roc",
        "rewards",
        "checkpoint-1-reliability",
        "checkpoint-2-equity",
    } <= drawn


def test_the_json_holds_every_number_and_no_nan(folder: Path) -> None:
    found = reports.report(folder)
    assert set(found) == {
        "version", "context", "verdicts", "summary", "backtest", "curves", "examples",
    }  # fmt: skip
    assert all(math.isfinite(number) for number in numbers(found))
    assert set(found["verdicts"]) == set(found["summary"]["checkpoints"]) == {"base", "step-000020"}


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, float):
        yield value


def test_the_same_predictions_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    for name in ("evaluation.json", "predictions.db", "prices.parquet", "baselines.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    report.build(tmp_path, draws=200)
    for name in ("report.json", "report.md", "report.html", "predictions.parquet"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_table_beside_it_is_the_one_it_was_computed_from(folder: Path) -> None:
    kept = pd.read_parquet(folder / "predictions.parquet")
    table = predictions.read(folder)
    pd.testing.assert_frame_equal(
        kept, table.assign(called_up=table["called_up"].astype("boolean"))
    )
    assert kept["called_up"].isna().sum() == 7


def test_the_verdict_stands_first(folder: Path) -> None:
    blocks = sections.blocks(reports.report(folder))
    assert isinstance(blocks[0], Heading)
    assert isinstance(blocks[1], Verdict)
    assert blocks[1].checkpoint == "step-000020"
    headings = [one.text for one in blocks if isinstance(one, Heading) and one.level == 2]
    assert headings == [
        "What was evaluated",
        "How often it is right",
        "Are stated probabilities true?",
        "How large it says the moves are",
        "Rewards",
        "Backtest",
        "Checkpoints against each other",
        "A few completions",
        "How this was measured",
    ]


def test_the_page_runs_nothing_and_loads_nothing(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert (
        page.tags.count("img")
        == page.tags.count("source")
        == len(list((folder / "figures").iterdir()))
    )
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "default-src 'none'" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_a_model_wrote_is_shown_as_it_wrote_it(folder: Path) -> None:
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert any("<script>alert(1)</script>␛]0;owned␇" in text for text in page.texts)
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    # A fence longer than any inside, so that nothing after it is taken for Markdown.
    assert "``````text\n</pre><script>" in markdown
    assert "\n``````\n" in markdown
    for text in (markdown, "".join(page.texts)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


@given(st.text(max_size=200))
def test_no_text_breaks_out_of_a_cell_or_a_fence(text: str) -> None:
    markdown = document.to_markdown([Table(("a", "b"), ((text, text),))])
    lines = markdown.rstrip("\n").split("\n")
    assert len(lines) == 3
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3, 3, 3]
    quoted = document.to_markdown([Quote("t", text, True)]).split("\n")
    fence = quoted[2].removesuffix("text")
    assert quoted[-2] == fence
    assert not [line for line in quoted[3:-2] if fence in line]
    page = Page(document.to_html([Quote(text, text, False), Heading(text)], text, str))
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "main", "div", "p", "pre", "h2",
    }  # fmt: skip


def test_forced_overlap_marks_every_section(tmp_path: Path) -> None:
    found = made(reports.tables(0.5, num_days=30), overlaps_training=True)
    blocks = sections.blocks(found)
    for at, block in enumerate(blocks):
        if isinstance(block, Heading) and block.level <= 2:
            assert blocks[at + 1] == Mark(sections.OVERLAP)
    count = sum(isinstance(block, Heading) and block.level <= 2 for block in blocks)
    assert count > 5
    assert document.to_markdown(blocks).count("FORCED") == count
    assert document.to_html(blocks, "t", lambda _: "").count('class="mark"') == count


def test_made_up_prices_are_said_in_the_title() -> None:
    found = made(reports.tables(0.5, num_days=30), is_synthetic=True, source="planted:seed=3")
    assert (
        sections.title(found) == "Evaluation on the test split of planted:seed=3 (made-up prices)"
    )


def made(table: pd.DataFrame, *, has_prices: bool = True, **about: Any) -> dict[str, Any]:
    return report.contents(
        reports.context(table, **about),
        table,
        prices=reports.prices(table) if has_prices else None,
        baselines=None,
        draws=100,
    )


def unread() -> pd.DataFrame:
    nothing = {"called_up": None, "percent": math.nan, "confidence": math.nan}
    return reports.tables(0.5, 0.5, num_days=30).assign(**nothing)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (unread(), "no completion could be read"),
        (reports.tables(0.5, 0.6, num_days=1, num_tickers=5), "1 day of returns"),
        (reports.tables(0.6, num_days=1, num_tickers=1), "rows of one outcome only"),
        (reports.tables(0.6, num_days=19), "fewer than 20"),
        (reports.tables(0.6, num_days=30).assign(actual_up=True), "rows of one outcome only"),
        (reports.tables(0.6, num_days=30).assign(confidence=math.nan), "no answer states a confid"),
        (reports.tables(0.6, num_days=30).assign(percent=math.nan), "no answer states a move"),
    ],
    ids=["unread", "one day", "one row", "few days", "one outcome", "unsure", "no moves"],
)
def test_what_cannot_be_computed_says_why(table: pd.DataFrame, reason: str) -> None:
    found = made(table)
    text = document.to_markdown(sections.blocks(found))
    assert reason in text
    assert NOT_COMPUTABLE in text
    assert not re.search(r"\b(nan|None|inf)\b", text)
    for _, draw in figures.all_of(found):
        draw(pictures.LIGHT)


def test_without_prices_there_is_no_backtest_and_no_picture_of_one() -> None:
    found = made(reports.tables(0.5, num_days=30), has_prices=False)
    assert found["backtest"]["checkpoints"] == {}
    text = document.to_markdown(sections.blocks(found))
    assert f"{NOT_COMPUTABLE}: 120 of 120 calls are of days without a price" in text
    assert not [name for name, _ in figures.all_of(found) if name.endswith("equity")]


def test_a_report_that_is_interrupted_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports.write(tmp_path, reports.tables(0.5, num_days=30))
    monkeypatch.setattr(figures, "all_of", lambda found: [("accuracy", draw_nothing)])
    report.build(tmp_path, draws=50)
    before = {path: path.read_bytes() for path in written(tmp_path)}

    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "png", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report.build(tmp_path, draws=60)
    assert {path: path.read_bytes() for path in before} == before
    assert list(tmp_path.glob(".report-*"))
    monkeypatch.undo()
    monkeypatch.setattr(figures, "all_of", lambda found: [("roc", draw_nothing)])
    report.build(tmp_path, draws=60)
    assert not list(tmp_path.glob(".report-*"))
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["roc.png"]
    assert reports.report(tmp_path)["summary"]["draws"] == 60


def written(folder: Path) -> list[Path]:
    return [*folder.glob("report.*"), *folder.glob("figures/*"), folder / "predictions.parquet"]


def draw_nothing(look: pictures.Look) -> Any:
    return pictures.sheet(look, "nothing", 1)[0]


def test_tables_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    reports.write(tmp_path, reports.tables(0.5, num_days=30))
    (tmp_path / "prices.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"prices\.parquet: cannot be read as a table"):
        report.build(tmp_path)


def test_a_folder_without_an_evaluation_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no evaluation"):
        report.build(tmp_path)


def test_examples_are_right_wrong_and_unread_ones(folder: Path) -> None:
    shown = reports.report(folder)["examples"]
    assert [one["right"] for one in shown["step-000020"]] == [True, True, False, False]
    assert [one["called_up"] is None for one in shown["base"]] == [False] * 4 + [True] * 2


def test_long_completions_are_shortened() -> None:
    found = made(reports.tables(0.5, num_days=30).assign(completion="x" * 5000))
    assert {one["completion"] for one in found["examples"]["base"]} == {
        f"{'x' * 1200}… 3,800 more characters"
    }


def test_a_deflated_ratio_uses_what_the_ledger_knows(folder: Path) -> None:
    found = reports.report(folder)
    assert found["context"]["trials"] == 5
    headline = found["backtest"]["checkpoints"]["step-000020"]["portfolios"]["long_short/open"]
    assert headline["deflated_sharpe"]["value"] < headline["probabilistic_sharpe"]["value"]
    assert headline["deflated_sharpe"]["benchmark"] > 0


def test_dates_of_the_context_are_words(folder: Path) -> None:
    found = reports.report(folder)
    first, last = map(dt.date.fromisoformat, found["context"]["dates"])
    assert f"test, {first} to {last}" in json.dumps(
        [block.rows for block in sections.blocks(found) if isinstance(block, Table)]
    )
