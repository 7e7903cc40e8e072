"""A table of completions against values and rewards worked out by hand."""

import pytest

from engine.config import DataConfig
from engine.market import sources
from engine.market.dataset import Dataset
from engine.market.prompts import compose
from engine.rewards.components import COMPONENTS
from engine.rewards.schemes import SCHEMES, assess
from tests.reward_table import AS_OF, PASTED, TABLE, Case, write_prices


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    source = write_prices(tmp_path_factory.mktemp("prices"))
    return Dataset.configured(sources.load(source).histories, DataConfig())


def test_the_table_is_large_and_its_examples_are_what_it_says(dataset: Dataset) -> None:
    assert len(TABLE) >= 40
    moves = {t: dataset.find(f"{t}:{AS_OF}").label.percent for t in ("ALFA", "BETA")}
    assert moves == pytest.approx({"ALFA": 1.0, "BETA": -2.0})
    assert compose(dataset.find(f"ALFA:{AS_OF}")).messages[1]["content"] == PASTED


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_a_completion_earns_what_was_worked_out_by_hand(case: Case, dataset: Dataset) -> None:
    example = dataset.find(f"{case.ticker}:{AS_OF}")
    for name in ("stage1", "stage2"):
        assessment = assess(example, compose(example), case.completion, SCHEMES[name])
        values = {one.name: one.value for one in assessment.components}
        assert values == pytest.approx({name: getattr(case, name) for name in COMPONENTS})
        assert assessment.reward == pytest.approx(getattr(case, name))
        prediction = 0.4 * case.direction + 0.2 * case.magnitude
        reasoning = 0.2 * case.data_use + 0.2 * case.coherence
        expected = {
            "prediction": prediction,
            "reasoning": reasoning,
            "total": prediction + reasoning,
        }
        assert assessment.rubric == pytest.approx(expected)
