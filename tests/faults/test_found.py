"""What the rows about hostile input have found: each fails without its fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from engine import config as configuration
from engine.errors import UserError
from engine.policy.source import check_model_folder
from engine.runs import directory
from engine.runs.history import History
from engine.runs.reader import Event
from engine.runs.replay import fold
from engine.text import MAX_CELLS, MAX_MARKS, one_line, sanitize
from stonk_tui import chart_choices, settings
from stonk_tui.app import Cockpit
from stonk_tui.commands import output
from tests.cockpit.hostile import unsafe

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[" * 5000, "too many brackets inside one another"),
        ("1" * 5000, "a number has too many digits"),
    ],
    ids=["deep", "long"],
)
def test_settings_that_python_cannot_read_are_a_problem_in_words(
    value: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"theme = {value}\n")
    (problem,) = settings.load(file).problems
    assert problem == f"{file}: {said}"
    with pytest.raises(UserError, match=said):
        settings.change(file, "theme", "light")


@pytest.mark.parametrize(
    "value", ["2014-02-30", "[" * 1200, "{a: " * 400], ids=["no day", "lists", "mappings"]
)
def test_value_that_yaml_cannot_make_is_refused_in_words(value: str) -> None:
    with pytest.raises(UserError, match="the value is not valid YAML"):
        configuration.with_overrides(configuration.RunConfig(), [f"seed={value}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema: 1\nconfig: {seed: 2014-02-30}\n", "run.yaml: cannot read the run's"),
        ("schema: 1\nconfig: " + "[" * 1200, "run.yaml: cannot read the run's"),
        ("schema: 1\nconfig: {\n", "run.yaml:3: not valid YAML"),
    ],
    ids=["no day", "deep", "no end"],
)
def test_frozen_configuration_that_cannot_be_read_is_told_with_its_place(
    text: str, said: str
) -> None:
    run = directory.create(configuration.RunConfig())
    (run.path / "run.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        run.config()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metric_that_is_no_number_is_left_out() -> None:
    history = History()
    payload = {"metrics": {"kl": "\x1b[2J", "loss": 0.5, "entropy": True, "reward/total": None}}
    assert fold(history, [Event(1, 1, 1.0, "step", 1, payload)]) == ""
    assert history.metrics == {"loss": 0.5}
    assert chart_choices.choice(history, "kl").no_log


def test_name_of_a_metric_is_cleaned_where_a_chart_takes_it() -> None:
    assert chart_choices.choice(History(), "a\x1b[2J").label == "a\u241b[2J"


def test_marks_are_piled_no_higher_than_a_script_needs() -> None:
    assert sanitize("e" + "\u0301" * 50 + "x") == "e" + "\u0301" * MAX_MARKS + "x"
    assert sanitize("a" + "\u200d" * 50) == "a" + "\u200d" * MAX_MARKS
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert sanitize(family * 20) == family * 20


def test_lines_have_an_end() -> None:
    for letter, cells in (("a", 1), ("漢", 2), ("\t", 8)):
        many = MAX_CELLS // cells
        assert sanitize(letter * many) == letter * many
        cut = sanitize(f"{letter * (many + 1)}\nnext")
        assert cut.endswith("…\nnext")
        assert len(cut.split("\n")[0]) <= many
    assert len(one_line("a" * 50_000, 60_000)) == MAX_CELLS


def test_what_stands_before_a_note_counts_too(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("a" * MAX_CELLS)
    assert len(capsys.readouterr().err.rstrip("\n")) == MAX_CELLS


def test_json_is_whole_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_json({"a": "x" * 50_000})
    assert len(capsys.readouterr().out) > 50_000


def test_crash_of_the_cockpit_tells_no_variables_no_secret_and_no_sequences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret-Value/1")
    app = Cockpit(None)
    monkeypatch.setattr(app, "bell", lambda: None)
    monkeypatch.setattr(app, "_close_messages_no_wait", lambda: None)
    try:
        kept = "a local variable"
        raise ValueError(f"\x1b[2J s3cret-Value/1 {len(kept)}")
    except ValueError as error:
        app._handle_exception(error)
    (told,) = app._exit_renderables
    assert isinstance(told, Text)
    assert "ValueError: \u241b[2J [secret] 16" in told.plain
    assert "a local variable" not in told.plain.replace('kept = "a local variable"', "")
    assert unsafe(told.plain) == ""


def test_worker_tells_nobody_a_secret_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = "s3cret-Value/2"
    monkeypatch.setenv("HF_TOKEN", token)
    config = configuration.with_overrides(
        configuration.preset("demo"), [f"model.id={tmp_path / 'absent'}"]
    )
    run = directory.create(config)
    # As if a library put it into its error.
    (run.path / "run.yaml").write_text(f"schema: 1\nconfig: {{name: '{token} x'}}\n")
    with run.log.open("wb") as log:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "engine.worker", str(run.path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
        )  # fmt: skip
    assert ended.returncode == 2
    (run.path / "run.yaml").unlink()
    for file in run.path.iterdir():
        if file.is_file():
            assert token.encode() not in file.read_bytes(), file.name
    assert "[secret] x" in run.log.read_text()


def test_base_model_with_code_beside_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    (tmp_path / "modeling_x.py").write_text("")
    with pytest.raises(UserError, match=r"modeling_x\.py: this model brings code of its own"):
        check_model_folder(tmp_path)
