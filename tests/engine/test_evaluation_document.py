"""The worked example of the document gives the numbers that it states."""

import re
from pathlib import Path

from engine.evaluation.calls import validation_metrics
from engine.task import Assessment, Item

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "validation.md"
EXAMPLE = DOCUMENT.read_text(encoding="utf-8").partition("## A worked example")[2]
RUBRIC = {"prediction": 0.0, "reasoning": 0.0, "total": 0.0}


def documented_rows() -> list[tuple[Item, Assessment]]:
    rows = re.findall(
        r"^\| (\w{3}) \| (\S+) % \| (\w+) \| ([\w ]+) \| (\w+)(?: %)? \|$", EXAMPLE, re.MULTILINE
    )
    judged = []
    for day, before, market, called, confidence in rows:
        subject = {
            "as_of": day,
            "actual_direction": market,
            "day_change": float(before.replace("−", "-")),
        }
        prediction = {
            "direction": None if called == "not read" else called,
            "confidence": None if confidence == "none" else int(confidence) / 100,
        }
        judged.append((Item(day, (), subject), Assessment((), prediction, RUBRIC)))
    return judged


def test_the_worked_example_is_computed() -> None:
    rows = documented_rows()
    assert len(rows) == 10
    metrics = validation_metrics(rows, seed=1)
    stated = re.findall(r"^\| `([\w/]+)` \| ([\d.−]+) \|", EXAMPLE, re.MULTILINE)
    assert len(stated) > 15
    for name, figure in stated:
        decimals = len(figure.partition(".")[2])
        assert f"{metrics[name]:.{decimals}f}".replace("-", "−") == figure, name


def test_the_document_explains_every_metric_of_a_validation() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").replace("`…/", "`accuracy/")
    for name in validation_metrics(documented_rows(), seed=1):
        assert f"`{name}`" in text, name
