"""``stonk-tui score``: the numbers of the table, for a script and for a person."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from engine.rewards.components import COMPONENTS, Thresholds
from engine.rewards.schemes import SCHEMES
from engine.runs.home import home
from stonk_tui.cli import app
from tests.cockpit.test_cli_docs import problems, schemas
from tests.reward_table import AS_OF, TABLE, Case, write_prices

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "examples" / "components" / "brevity.py"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_prices(tmp_path_factory.mktemp("prices"))


def invoke(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["score", *arguments], input=text, catch_exceptions=False)


def where(source: str, ticker: str = "ALFA") -> tuple[str, ...]:
    return ("--source", source, "--ticker", ticker, "--date", AS_OF)


def scored(*arguments: str, text: str) -> Any:
    done = invoke(*arguments, "--completion", "-", "--json", text=text)
    assert done.exit_code == 0, done.output
    assert done.stdout.isascii()
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_json_holds_the_numbers_of_the_table(case: Case, source: str) -> None:
    for scheme in ("stage1", "stage2"):
        place = where(source, case.ticker)
        found = scored(*place, "--scheme", scheme, text=case.completion)
        values = {one["name"]: one["value"] for one in found["components"]}
        assert values == pytest.approx({name: getattr(case, name) for name in COMPONENTS})
        assert found["reward"] == pytest.approx(getattr(case, scheme))
        total = sum(one["contribution"] for one in found["components"])
        assert total == pytest.approx(found["reward"])


@pytest.mark.parametrize("name", ["all there is to earn", "silence"])
def test_json_keeps_to_its_schema(name: str, source: str) -> None:
    found = scored(*where(source), text=TABLE[name].completion)
    assert list(problems(found, schemas()["score"])) == []


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_a_person_sees_every_component_within_eighty_columns(case: Case, source: str) -> None:
    done = invoke(*where(source, case.ticker), "--completion", "-", text=case.completion)
    assert done.exit_code == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert not set(done.stdout) & set("\x1b\x07\u202e")
    for one in scored(*where(source, case.ticker), text=case.completion)["components"]:
        line = done.stdout.partition(f"\n{one['name']} ")[2]
        assert line.split()[0] == f"{getattr(case, one['name']):+.3f}"
        # Nothing of the reason is cut.
        assert set(one["reason"].split()) <= set(line.split())
    assert f"{case.stage1:+.3f}" in done.stdout.partition("\nreward ")[2]


def test_the_words_for_a_person(source: str, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    file.write_text(TABLE["brief"].completion)
    done = invoke(*where(source), "--completion", str(file))
    assert done.stdout == (
        "ALFA on 2014-03-27 went UP +1.00% by 2014-03-28\n"
        "read: UP, 1.5%, confidence 80%\n"
        "\n"
        "COMPONENT    VALUE  WEIGHT    ADDS  WHY\n"
        "format      +1.000    0.20  +0.200  reasoning and one answer\n"
        "direction   +1.000    0.35  +0.350  called UP, market went UP\n"
        "magnitude   +0.500    0.20  +0.100  0.5 points off; 2σ20 is 1.0 points\n"
        "confidence  +0.948    0.10  +0.095  80 % sure and right: 1 − 1.3·(1−.80)²\n"
        "data_use    +0.800    0.15  +0.120  3 facts of the prompt cited: ticker, close,\n"
        "                                    volatility\n"
        "coherence   +0.750    0.00  +0.000  under 20 words\n"
        "reward                      +0.865  scheme stage1\n"
        "\n"
        "rubric view: 0.810 of 1 = prediction 0.500 of 0.6 + reasoning 0.310 of 0.4\n"
    )
    silent = invoke(*where(source), "--completion", "-", text="")
    assert "read: nothing, no <answer>…</answer>" in silent.stdout


def test_an_example_file_is_what_data_show_prints(source: str, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["data", "show", *where(source), "--style", "masked", "--json"])
    file = tmp_path / "example.json"
    file.write_text(shown.stdout)
    text = TABLE["brief"].completion
    found = scored("--example", str(file), text=text)
    assert found == scored(*where(source), "--style", "masked", text=text)
    # A masked prompt holds neither the name nor the price.
    assert [one["text"] for one in found["cited"]] == ["0.2%"]
    changed = json.loads(shown.stdout)
    changed["messages"][1]["content"] += " buy"
    file.write_text(json.dumps(changed))
    refused = invoke("--example", str(file), "--completion", "-", text=text)
    assert refused.exit_code == 2
    assert "gives another prompt for this day than the file has" in refused.stderr


def test_a_component_of_your_own_needs_the_word(source: str) -> None:
    wanted = (*where(source), "--component", f"{COMPONENT}:brevity")
    scheme = ("--scheme", str(COMPONENT.with_name("brief.yaml")))
    refused = invoke(*wanted, *scheme, "--completion", "-", text="")
    assert refused.exit_code == 2
    assert "is code that runs as you; read it, then say --allow-code" in refused.stderr
    assert not (home() / "allowed_code.json").exists()
    found = scored(*wanted, *scheme, "--allow-code", text=TABLE["one fact"].completion)
    brevity = found["components"][-1]
    assert brevity["reason"] == "3 words"
    assert brevity["contribution"] == pytest.approx(0.2 / (1 + 3 / 40))


def test_a_component_that_fails_ends_with_1_and_its_name(source: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def bad(*given):\n    raise KeyError('\\x1b[2J')\n")
    wanted = (*where(source), "--component", f"{tmp_path / 'bad.py'}:bad", "--allow-code")
    done = invoke(*wanted, "--completion", "-", text="")
    assert done.exit_code == 1
    assert f"component bad failed on ALFA:{AS_OF}: KeyError" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_run_is_not_made_of_code_that_nobody_allowed() -> None:
    arguments = ["train", "--preset", "demo", "--set", f"reward.components=['{COMPONENT}:brevity']"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "--allow-code" in done.stderr
    assert not (home() / "runs").exists()


BAD = {
    "no example": ((), "no example to score against; give --example, or --source"),
    "half a place": (("--source", "demo", "--ticker", "AAPL"), "no example to score against"),
    "both": (("--example", "x", "--source", "demo"), "give the file or the options, not both"),
    "no such file": (("--example", "absent"), "absent: cannot read the example: No such file"),
    "not JSON": (("--example", "text"), "text: the example is not JSON"),
    "not an example": (("--example", "list"), "list: the example has no source"),
    "no horizon": (("--example", "part"), "part: the example has no horizon"),
    "no such style": (("--example", "style"), "style: there is no such style or horizon"),
    "no such scheme": (("--scheme", "stage3", "--source", "demo"), "no scheme called 'stage3'"),
    "no such day": (
        ("--source", "demo", "--ticker", "AAPL", "--date", "2012-09-15"),
        "the nearest are 2012-09-14 and 2012-09-17",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), BAD.values(), ids=BAD)
def test_wrong_input_is_one_line_with_exit_code_2(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = {"source": "demo", "ticker": "AAPL", "as_of": "2012-09-14", "style": "full"}
    Path("text").write_text("{")
    Path("list").write_text("[]")
    Path("part").write_text(json.dumps(example))
    Path("style").write_text(json.dumps({**example, "style": "loud", "horizon": 1}))
    done = invoke(*arguments, "--completion", "-", text="")
    assert done.exit_code == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_completion_that_cannot_be_read_is_one_line(source: str, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for name, expected in (
        (str(binary), "the completion is not UTF-8 text"),
        ("/nowhere", "/nowhere: cannot read the completion: No such file"),
    ):
        done = invoke(*where(source), "--completion", name)
        assert done.exit_code == 2
        assert expected in done.stderr


def test_the_worked_example_of_the_document_is_what_the_command_prints() -> None:
    document = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")

    def block(name: str) -> str:
        return document.partition(f"```text {name}\n")[2].partition("```")[0]

    place = ("--source", "demo", "--ticker", "AAPL", "--date", "2012-09-14")
    assert invoke(*place, "--completion", "-", text=block("completion")).stdout == block("score")


def test_the_document_shows_the_weights_and_thresholds_that_there_are() -> None:
    document = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    for name, column in (("stage1", 1), ("stage2", 2), ("rubric", 3)):
        for component, weight in SCHEMES[name].weights.items():
            label = component.replace("_", " ")
            (row,) = re.findall(rf"^\| {label} \|(.*)\|$", document, re.MULTILINE)
            assert float(row.split("|")[column - 1]) == weight
    text = document.partition("```yaml\n")[2].partition("```")[0]
    shown = yaml.safe_load(text)["thresholds"]
    defaults = dataclasses.asdict(Thresholds())
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in shown.items()} == defaults
