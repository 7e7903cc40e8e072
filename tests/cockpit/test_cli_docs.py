"""docs/cli.md is held to what the program does: schemas, commands and options."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from engine import config as configuration
from engine.config import RunConfig
from engine.evaluation import report as reporting
from engine.runs import directory
from engine.runs.store import EventStore
from engine.task import Json
from stonk_tui.cli import app
from tests import market_files, reports

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
KEYWORDS = {"type", "enum", "required", "properties", "additionalProperties", "items"}


def schemas() -> dict[str, Any]:
    blocks = re.findall(r"^```json schema=(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return {name: json.loads(text) for name, text in blocks}


def problems(value: Any, schema: Any, at: str = "$") -> Iterator[str]:
    """What in ``value`` breaks ``schema``: the part of JSON Schema that the document uses."""
    assert set(schema) <= KEYWORDS, f"{at}: this check knows nothing of {set(schema) - KEYWORDS}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        allowed = tuple(kind for name in names for kind in TYPES[name])
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            yield f"{at}: {value!r} is no {' or '.join(names)}"
    if isinstance(value, dict):
        yield from (f"{at}: no {name}" for name in schema.get("required", []) if name not in value)
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            rule = schema.get("properties", {}).get(name, others)
            if rule is False:
                yield f"{at}: {name} is not in the schema"
            elif rule is not True:
                yield from problems(item, rule, f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], f"{at}[{index}]")


def printed(*arguments: str) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.isascii()
    return json.loads(result.stdout)


@pytest.fixture
def rich_run() -> None:
    """A run with everything in it that can be printed."""
    run = directory.create(configuration.preset("demo"))
    run.record_worker()
    store = EventStore(run.database)
    store.event("worker", {"pid": os.getpid(), "device": "cpu", "max_steps": 40})
    milestone: dict[str, Json] = {
        "name": "reward",
        "value": 0.5,
        "threshold": 0.7,
        "on": False,
        "streak": 0,
    }
    unknown: dict[str, Json] = milestone | {"name": "settled", "value": None}
    alarm: dict[str, Json] = {"name": "kl_blow_up", "on": True, "title": "KL 2.1", "value": 2.1}
    store.event(
        "step",
        {
            "metrics": {"reward/total": 0.5, "kl": float("nan"), "accuracy/n": 32},
            "seconds": {"rollout": 1.5, "total": 2},
            "epoch": 0.5,
            "eta_seconds": 30.0,
            "milestones": [milestone | {"needed": 10, "why": "too low"}, unknown],
            "power": 1284,
        },
        step=1,
    )
    change: dict[str, Json] = {"name": "optimizer.learning_rate", "old": 8e-5, "new": 5e-5}
    store.event("settings", {"changes": [change], "by": "user", "command": "one"})
    store.event("alarm", alarm | {"explanation": "far away", "advice": "stop"})
    store.event("validation", {"metrics": {"accuracy": 0.5}})
    store.event("checkpoint", {"name": "step-000001", "best": True, "validation_reward": 0.5})
    store.event("checkpoint", {"name": "step-000002", "best": False}, step=2)
    store.event("state", {"state": "training", "detail": ""})
    store.event(
        "progress",
        {"task": "validation", "done": 1, "total": 24, "eta_seconds": 3.5, "detail": "d"},
    )
    store.close()


@pytest.mark.usefixtures("rich_run")
def test_status_of_a_run_at_work_keeps_to_its_schema() -> None:
    found = printed("status", "--json")
    assert list(problems(found, schemas()["status"])) == []
    assert found["progress"]["task"] == "validation"
    assert found["eta_seconds"] == 30.0
    assert found["best"] == "step-000001"
    assert (found["power"], found["parent"]) == (1284, None)
    assert [alarm["title"] for alarm in found["alarms"]] == ["KL 2.1"]
    assert "kl" not in found["metrics"]


def test_status_of_a_run_without_a_store_keeps_to_its_schema() -> None:
    directory.create(RunConfig())
    found = printed("status", "--json")
    assert list(problems(found, schemas()["status"])) == []
    assert found["state"] == "stale"


@pytest.mark.usefixtures("rich_run")
def test_settings_that_can_change_keep_to_their_schema() -> None:
    found = printed("set", "--json")
    assert list(problems(found, schemas()["set"])) == []
    assert (found["message"], found["changes"]) == ("", [])
    rates = [one for one in found["settings"] if one["name"] == "optimizer.learning_rate"]
    assert [(one["value"], one["started"]) for one in rates] == [(5e-5, 8e-5)]
    assert found["settings"] == printed("status", "--json")["settings"]


@pytest.mark.usefixtures("rich_run")
def test_list_of_runs_keeps_to_its_schema() -> None:
    directory.create(RunConfig())
    broken = directory.create(RunConfig())
    (broken.path / "run.yaml").write_text("broken")
    listed = printed("runs", "--json")
    assert list(problems(listed, schemas()["runs"])) == []
    assert {row["state"] for row in listed} == {"training", "stale", "unreadable"}


def test_doctor_keeps_to_its_schema() -> None:
    assert list(problems(printed("doctor", "--json"), schemas()["doctor"])) == []


@pytest.fixture
def price_folder(tmp_path: Path) -> str:
    """A source in which everything occurs that can be reported: refused rows, a gap, a split."""
    table = market_files.rows(200)
    table[30]["Close"] = "many"
    table[40]["Open"] = -1
    del table[100:110]
    for row in table[:60]:
        for name in ("Open", "High", "Low", "Close"):
            if not isinstance(row[name], str):
                row[name] = 2 * float(str(row[name]))
    market_files.write_csv(tmp_path / "prices", "AAA", table)
    return f"ohlcv:{tmp_path / 'prices'}"


def test_statistics_of_a_source_keep_to_their_schema(price_folder: str) -> None:
    found = printed("data", "stats", "--source", price_folder, "--json")
    assert list(problems(found, schemas()["data_stats"])) == []
    reasons = {one["reason"]: one["count"] for one in found["read"][0]["refused"]}
    assert reasons == {"text in a number": 1, "price not above 0": 1}
    assert [split["ratio"] for split in found["stock_splits"]] == [2.0]
    assert [gap["days"] > 5 for gap in found["gaps"]] == [True]
    rows = sum(split["rows"] for split in found["splits"].values())
    assert rows == sum(found["tickers"][0][name] for name in found["splits"]) > 50


def test_an_example_keeps_to_its_schema(tmp_path: Path) -> None:
    market_files.write_csv(tmp_path / "price" / "raw", "AAA", market_files.rows(200))
    post = {"ticker": "AAA", "created_at": "2014-05-01T15:00:00Z", "text": "up \x1b[31m we go"}
    market_files.write_jsonl(tmp_path / "posts" / "AAA.jsonl", [post])
    where = ("--source", f"stocknet:{tmp_path}", "--ticker", "AAA", "--date", "2014-05-01")
    for style in ("full", "compact", "brief", "masked"):
        found = printed("data", "show", *where, "--style", style, "--json")
        assert list(problems(found, schemas()["data_show"])) == []
        assert found["style"] == style
        assert [message["role"] for message in found["messages"]] == ["system", "user"]
        told = [known for known in found["known"] if known["text"]]
        assert [known["what"] for known in told] == ["headline 1"]
        assert told[0]["known_at"] == "2014-05-01T15:00:00+00:00"


def test_the_leakage_suite_keeps_to_its_schema() -> None:
    found = printed("data", "check", "--source", "planted:seed=3", "--json")
    assert list(problems(found, schemas()["data_check"])) == []
    assert found["verdict"] == "green"
    assert found["examples"] == 2000
    assert {check["verdict"] for check in found["checks"]} == {"green", "skipped"}


def test_a_report_keeps_to_its_schema(tmp_path: Path) -> None:
    table = reports.tables(0.5, 0.6, num_days=30)
    found = reporting.contents(
        reports.context(table), table, prices=reports.prices(table), baselines=None, draws=50
    )
    (tmp_path / "report.json").write_text(json.dumps(found), encoding="utf-8")
    shown = printed("report", str(tmp_path), "--json")
    assert list(problems(shown, schemas()["report"])) == []
    assert shown == found


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its full name; commands of a group have a space in theirs."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_option_for_json_has_a_schema() -> None:
    with_json = {
        name.replace(" ", "_")
        for name, command in leaves(typer.main.get_command(app))
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert with_json == set(schemas())


def test_every_command_and_option_stands_in_the_document() -> None:
    table = DOCUMENT.partition("| command |")[2].partition("\n\n")[0]
    for name, command in leaves(typer.main.get_command(app)):
        rows = "\n".join(row for row in table.splitlines() if re.search(rf"\b{name}\b", row))
        assert rows, f"{name} is not in docs/cli.md"
        for parameter in command.params:
            if parameter.opts[0].startswith("--"):
                assert parameter.opts[0] in rows, f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1, {"type": "string"}),
        (True, {"type": "integer"}),
        (None, {"type": ["string", "number"]}),
        ("x", {"enum": ["y"]}),
        ({}, {"required": ["a"]}),
        ({"a": 1}, {"additionalProperties": False}),
        ({"a": {"b": 1}}, {"properties": {"a": {"additionalProperties": {"type": "string"}}}}),
        ([1, "x"], {"items": {"type": "integer"}}),
    ],
)
def test_the_check_finds_what_breaks_a_schema(value: Any, schema: Any) -> None:
    assert list(problems(value, schema))
