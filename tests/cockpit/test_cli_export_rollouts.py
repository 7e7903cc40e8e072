"""``export --rollouts`` as it is typed: what it writes, what it prints, what it refuses."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from stonk_tui.cli import app
from tests import recorded
from tests.cockpit.test_cli_docs import problems, schemas


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments], env={"COLUMNS": "200"})


def test_rollouts_that_pass_a_filter_are_written_in_each_format(tmp_path: Path) -> None:
    recorded.record(5)
    counts = set()
    for form in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{form}"
        arguments = ("--rollouts", "--filter", "right:no step>3", "--out", str(out), "--json")
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert list(problems(found, schemas()["export"])) == []
        assert (found["as"], found["filter"]) == (form, "right:no step>3")
        counts.add(found["rows"])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["right"] for row in rows} == {"false"}
    assert [row["step"] for row in rows] == sorted((row["step"] for row in rows), reverse=True)
    assert counts == {len(rows)} == {pq.read_table(tmp_path / "out.parquet").num_rows}
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(rows)


def test_a_person_is_told_how_many_rows_went_where(tmp_path: Path) -> None:
    run = recorded.record(2).run
    out = tmp_path / "all.txt"
    result = invoke("demo", "--rollouts", "--format", "jsonl", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert f"64 rollouts of {run.id} as jsonl in {out}" in result.stdout
    assert len(out.read_text().splitlines()) == 64


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rollouts", "--filter", "tickr:A"), "filter, character 1: nothing is called tickr"),
        (("--rollouts", "--checkpoint", "best"), "do not go with --rollouts"),
        (("--filter", "right:no"), "go with --rollouts"),
        (("--checkpoint", "best"), "give --checkpoint and --as, or --rollouts"),
        (("nothing", "--rollouts"), "no run called"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    recorded.record(1)
    result = invoke(*arguments, "--out", str(tmp_path / "x.csv"))
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "x.csv").exists()


def test_existing_files_and_unknown_endings_are_refused(tmp_path: Path) -> None:
    recorded.record(1)
    (tmp_path / "x.csv").write_text("mine")
    taken = invoke("--rollouts", "--out", str(tmp_path / "x.csv"))
    assert (taken.exit_code, (tmp_path / "x.csv").read_text()) == (2, "mine")
    assert "exists already" in taken.output
    strange = invoke("--rollouts", "--out", str(tmp_path / "x.xlsx"))
    assert strange.exit_code == 2
    assert ".csv, .jsonl or .parquet" in strange.output
