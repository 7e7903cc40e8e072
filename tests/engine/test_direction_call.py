"""The task as the trainer sees it."""

import random
import re
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from engine.config import RunConfig, build, preset, with_overrides
from engine.direction_call import DirectionCall
from engine.errors import UserError
from engine.evaluation.calls import batch_metrics
from engine.market.prompts import estimated_tokens
from engine.rewards.components import COMPONENTS
from engine.task import Assessment, Item, Task
from tests.market_files import business_days, rows, write_csv, write_jsonl


@pytest.fixture(scope="module")
def task() -> DirectionCall:
    return DirectionCall.from_config(with_overrides(preset("demo"), ["warmup.silent_share=0"]))


def with_data(**data: object) -> RunConfig:
    return build({"data": data}, where="test")


def demonstration(task: DirectionCall, item: Item, rng: random.Random) -> str:
    return task.demonstrations(item, 1, rng)[0]


def component(assessment: Assessment, name: str) -> float:
    return next(one.value for one in assessment.components if one.name == name)


def judged(
    task: DirectionCall, items: list[Item], answers: list[str]
) -> list[tuple[Item, Assessment]]:
    return [(item, task.assess(item, text)) for item, text in zip(items, answers, strict=True)]


def answer(direction: object, confidence: int = 60) -> str:
    return f"<think>reason</think><answer>{direction} 1.0% confidence {confidence}%</answer>"


def test_it_is_a_task(task: DirectionCall) -> None:
    as_task: Task = task
    assert as_task.name == "direction_call"


def test_an_unknown_source_is_the_persons_mistake() -> None:
    with pytest.raises(UserError, match="use one of: demo"):
        DirectionCall.from_config(with_data(source="dmeo"))


def test_one_epoch_holds_as_many_up_as_down(task: DirectionCall) -> None:
    epoch = [task.training_item(index) for index in range(task.num_training_items)]
    sides = Counter(item.subject["actual_direction"] for item in epoch)
    assert task.num_training_items == 2000
    assert sides == {"UP": 1000, "DOWN": 1000}
    assert len({item.key for item in epoch}) == 2000
    second = [task.training_item(2000 + index).key for index in range(2000)]
    assert second != [item.key for item in epoch]
    assert sorted(second) == sorted(item.key for item in epoch)


def test_every_batch_of_stage_one_holds_as_many_up_as_down(task: DirectionCall) -> None:
    for step in range(20):
        batch = [task.training_item(4 * step + number) for number in range(4)]
        sides = Counter(item.subject["actual_direction"] for item in batch)
        assert sides == {"UP": 2, "DOWN": 2}


def test_training_items_are_reproducible_by_index(task: DirectionCall) -> None:
    again = DirectionCall.from_config(preset("demo"))
    assert again.training_item(3117) == task.training_item(3117)
    other = DirectionCall.from_config(build({"seed": 8}, where="test"))
    assert other.training_item(3117) != task.training_item(3117)


def test_natural_sampling_keeps_every_training_row() -> None:
    task = DirectionCall.from_config(with_data(sampling="natural", max_train_samples=100_000))
    sides = Counter(
        task.training_item(index).subject["actual_direction"]
        for index in range(task.num_training_items)
    )
    assert sides["UP"] != sides["DOWN"]
    assert task.num_training_items == sides.total() > 7000


def test_validation_is_later_than_training_and_fixed(task: DirectionCall) -> None:
    items = task.validation_items(60)
    assert [item.key for item in items] == [item.key for item in task.validation_items(60)]
    assert len({item.key for item in items}) == 60
    last_trained = max(str(task.training_item(at).subject["as_of"]) for at in range(2000))
    days = [str(item.subject["as_of"]) for item in items]
    assert min(days) > last_trained
    assert days == sorted(days)
    assert len(set(days)) > 50
    assert len(task.validation_items(10**6)) < 10**6


def test_an_item_says_what_the_cockpit_shows(task: DirectionCall) -> None:
    item = task.training_item(0)
    subject = item.subject
    assert item.key == f"{subject['ticker']}:{subject['as_of']}"
    assert [message["role"] for message in item.messages] == ["system", "user"]
    percent, closes, change = (subject[name] for name in ("actual_percent", "closes", "day_change"))
    assert isinstance(percent, float)
    assert isinstance(closes, list)
    assert isinstance(change, float)
    assert subject["actual_direction"] == ("UP" if percent > 0 else "DOWN")
    assert len(closes) == 10
    assert change == pytest.approx((closes[-1] / closes[-2] - 1) * 100)


def test_no_outcome_stands_in_a_prompt(task: DirectionCall) -> None:
    # The next close, where it differs from every close shown, must not be printed.
    for index in range(300):
        item = task.training_item(index)
        last = item.subject["closes"][-1]
        following = f"${last * (1 + item.subject['actual_percent'] / 100):.2f}"
        shown = {f"${close:.2f}" for close in item.subject["closes"]}
        facts = item.messages[1]["content"].split("SMA")[0]
        assert following in shown or following not in facts


def test_an_item_of_another_task_is_refused(task: DirectionCall) -> None:
    with pytest.raises(KeyError):
        task.assess(Item("XXXX:2012-09-14", (), {}), answer("UP"))


@pytest.fixture(scope="module")
def demonstrations(task: DirectionCall) -> list[tuple[Item, str, Assessment]]:
    rng = random.Random(7)
    drawn = []
    for index in range(600):
        item = task.training_item(index)
        text = demonstration(task, item, rng)
        drawn.append((item, text, task.assess(item, text)))
    return drawn


def test_every_demonstration_has_the_asked_for_form(
    demonstrations: list[tuple[Item, str, Assessment]],
) -> None:
    for _, text, assessment in demonstrations:
        assert component(assessment, "format") == 1, text
        assert assessment.prediction["error"] is None


def test_a_share_of_demonstrations_can_be_silent_about_confidence() -> None:
    task = DirectionCall.from_config(with_overrides(preset("demo"), ["warmup.silent_share=0.6"]))
    rng = random.Random(3)
    silent = 0
    for index in range(1000):
        item = task.training_item(index)
        prediction = task.assess(item, demonstration(task, item, rng)).prediction
        assert prediction["direction"] is not None
        assert prediction["percent"] is not None
        silent += prediction["confidence"] is None
    # Three standard errors are below 0.05.
    assert silent / 1000 == pytest.approx(0.6, abs=0.05)


def test_answers_to_a_prompt_call_both_sides_and_are_silent_in_equal_numbers() -> None:
    settings = ["warmup.silent_share=0.6", "warmup.facts_cited=[1,3]", "data.style=brief"]
    task = DirectionCall.from_config(with_overrides(preset("demo"), settings))
    rng = random.Random(3)
    orders, silences = set(), []
    for index in range(200):
        item = task.training_item(index)
        answers = [task.assess(item, text) for text in task.demonstrations(item, 8, rng)]
        calls = [answer.prediction["direction"] for answer in answers]
        assert Counter(calls) == {"UP": 4, "DOWN": 4}
        orders.add(tuple(calls))
        assert Counter(min(len(answer.cited), 3) for answer in answers)[1] == 4
        silences.append(sum(answer.prediction["confidence"] is None for answer in answers))
    assert len(orders) > 50  # of 70
    assert set(silences) == {4, 5}
    # 4.8 of 8, within 3 standard errors of √(.8 · .2 / 200).
    assert statistics.mean(silences) == pytest.approx(4.8, abs=0.09)


def test_demonstrations_cite_as_many_facts_as_asked_or_all_there_are() -> None:
    def cited(count: int, style: str) -> set[int]:
        settings = [f"warmup.facts_cited=[{count}]", f"data.style={style}"]
        task = DirectionCall.from_config(with_overrides(preset("demo"), settings))
        rng = random.Random(3)
        items = [task.training_item(index) for index in range(50)]
        return {len(task.assess(item, demonstration(task, item, rng)).cited) for item in items}

    assert cited(0, "compact") == {0}
    # Two changes of the same size are one citation.
    assert max(cited(3, "compact")) == 3
    # Name and ticker are one citation; then date, close and three changes.
    assert max(cited(8, "brief")) == 6


def test_the_direction_of_a_demonstration_is_a_coin_flip(
    demonstrations: list[tuple[Item, str, Assessment]],
) -> None:
    ups = sum(assessment.prediction["direction"] == "UP" for _, _, assessment in demonstrations)
    hits = sum(component(assessment, "direction") for _, _, assessment in demonstrations)
    # 300 ± 4 standard deviations of √(600/4) = 12.2
    assert abs(ups - 300) < 49
    assert abs(hits - 300) < 49


def test_a_demonstrations_reasoning_concludes_its_answer(
    demonstrations: list[tuple[Item, str, Assessment]],
) -> None:
    for _, text, assessment in demonstrations:
        reason = next(one.reason for one in assessment.components if one.name == "coherence")
        assert "conclude the answer" not in reason, text
        assert "repeats" not in reason, text


def test_demonstrations_cite_none_to_three_facts_and_leave_room_to_learn(
    demonstrations: list[tuple[Item, str, Assessment]],
) -> None:
    counts = Counter(len(assessment.cited) for _, _, assessment in demonstrations)
    assert set(counts) == {0, 1, 2, 3}
    assert counts[1] + counts[2] > 0.6 * counts.total()
    scores = [component(assessment, "data_use") for _, _, assessment in demonstrations]
    assert 0.3 < statistics.mean(scores) < 0.6


def test_demonstrations_vary_their_numbers_within_bounds(
    demonstrations: list[tuple[Item, str, Assessment]],
) -> None:
    confidences = [one.prediction["confidence"] for _, _, one in demonstrations]
    assert min(confidences) >= 0.5
    assert max(confidences) <= 0.95
    assert len(set(confidences)) == 46
    assert all(one.prediction["percent"] >= 0.1 for _, _, one in demonstrations)
    assert len({text for _, text, _ in demonstrations}) > 590


def test_demonstrations_are_short(
    demonstrations: list[tuple[Item, str, Assessment]],
) -> None:
    # An upper estimate of tokens: every digit and sign is one, a word at most three.
    def estimate(text: str) -> int:
        words = re.findall(r"[A-Za-z]+|\d|[^\sA-Za-z\d]", text)
        return sum(1 + (len(word) > 4) for word in words)

    sizes = [estimate(text) for _, text, _ in demonstrations]
    assert max(sizes) < 90
    assert statistics.mean(sizes) < 60


def test_a_demonstration_is_reproducible_by_its_generator(task: DirectionCall) -> None:
    item = task.training_item(5)
    drawn = [demonstration(task, item, random.Random(3)) for _ in range(2)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("style", ["full", "brief", "masked"])
def test_demonstrations_of_every_style_are_well_formed_and_cite(style: str) -> None:
    task = DirectionCall.from_config(with_data(style=style))
    rng = random.Random(7)
    counts: Counter[int] = Counter()
    for index in range(300):
        item = task.training_item(index)
        text = demonstration(task, item, rng)
        assessment = task.assess(item, text)
        assert component(assessment, "format") == 1, text
        assert "\n" not in text.partition("</think>")[0]
        counts[len(assessment.cited)] += 1
        # Of the table only the last day is spoken of.
        for date in re.findall(r"\d{4}-\d\d-\d\d", text):
            assert date == item.subject["as_of"]
    assert set(counts) == {0, 1, 2, 3}
    assert counts[1] + counts[2] > 0.6 * counts.total()


def news_task(folder: Path, text: str, **config: object) -> DirectionCall:
    """A task whose every example holds one post."""
    write_csv(folder / "price" / "raw", "AAA", rows(200))
    posts = [
        {"ticker": "AAA", "created_at": f"{day}T15:00:00Z", "text": text}
        for day in business_days(200)
    ]
    write_jsonl(folder / "posts" / "AAA.jsonl", posts)
    data = {"source": f"stocknet:{folder}", "style": "full"}
    return DirectionCall.from_config(build({"data": data, **config}, where="test"))


def test_a_demonstration_quotes_four_to_six_words_of_a_headline(tmp_path: Path) -> None:
    headline = "shares of the maker: rose again, on a large new order from abroad"
    task = news_task(tmp_path, headline)
    rng = random.Random(3)
    texts = [demonstration(task, task.training_item(index), rng) for index in range(400)]
    quoted = [quote for text in texts for quote in re.findall(r'"([^"]+)"', text)]
    assert {len(re.findall(r"\w+", quote)) for quote in quoted} == {4, 5, 6}
    assert all(quote in headline for quote in quoted)
    assert len(set(quoted)) > 5
    item = task.training_item(0)
    cited = task.assess(item, f'<think>I see "{quoted[0]}".</think>').cited
    assert len(cited) == 1


def test_a_headline_too_short_to_be_quoted_is_not_cited(tmp_path: Path) -> None:
    task = news_task(tmp_path, "rose again")
    rng = random.Random(3)
    texts = [demonstration(task, task.training_item(index), rng) for index in range(100)]
    assert not any('"' in text or "rose again" in text for text in texts)


def test_the_prompt_leaves_room_for_the_answer_in_the_runs_context(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(30))
    wide = news_task(tmp_path / "a", text)
    tight = news_task(tmp_path / "b", text, rollout={"context": 1000, "max_new_tokens": 128})
    prompts = [task.training_item(0).messages[1]["content"] for task in (wide, tight)]
    assert "News:" in prompts[0]
    assert "News:" not in prompts[1]
    spent = sum(estimated_tokens(m["content"]) for m in tight.training_item(0).messages)
    assert spent + 128 <= 1000


def sides(task: DirectionCall, *directions: str) -> list[Item]:
    """The first training items whose markets went as ``directions`` say."""
    pool = [task.training_item(index) for index in range(200)]
    chosen = []
    for direction in directions:
        item = next(one for one in pool if one.subject["actual_direction"] == direction)
        pool.remove(item)
        chosen.append(item)
    return chosen


def test_metrics_by_hand(task: DirectionCall) -> None:
    items = sides(task, "UP", "UP", "UP", "DOWN", "DOWN")
    answers = [answer("UP", 80), answer("UP", 60), answer("DOWN", 70), answer("UP", 90), "garbage"]
    metrics = task.metrics(judged(task, items, answers))
    # Right: the first two of five. Up calls: 3 of the 4 that were read.
    expected = {
        "accuracy": 0.4,
        "accuracy/n": 5,
        "accuracy/up": 2 / 3,
        "accuracy/down": 0.0,
        "parsed": 0.8,
        "calls/up_share": 0.75,
        "market/up_share": 0.6,
        "baseline/always_up": 0.6,
        "confidence/mean": 0.75,
        "confidence/hit_rate": 0.5,
        # (.8-1)² + (.6-1)² + .7² + .9² = .04 + .16 + .49 + .81 = 1.5, of 4
        "brier": 0.375,
        # Of the four that state a confidence, three went up: .75·.25
        "brier/base_rate": 0.1875,
        "reward/format": 0.8,
        "reward/direction": 0.4,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["accuracy/low"] < 0.4 < metrics["accuracy/high"]
    repeats = [
        (item.subject["day_change"] > 0) == (item.subject["actual_direction"] == "UP")
        for item in items
    ]
    assert metrics["baseline/momentum"] == statistics.mean(repeats)
    weighed = [assessment.reward for _, assessment in judged(task, items, answers)]
    assert metrics["reward/total"] == pytest.approx(statistics.mean(weighed))
    assert metrics["rubric/total"] == pytest.approx(
        metrics["rubric/prediction"] + metrics["rubric/reasoning"]
    )
    assert {f"reward/{name}" for name in COMPONENTS} <= set(metrics)


def test_the_brier_score_is_that_of_the_probability_of_up(task: DirectionCall) -> None:
    rng = random.Random(5)
    items = [task.training_item(index) for index in range(60)]
    calls = [(rng.choice(("UP", "DOWN")), rng.randint(0, 100)) for _ in items]
    metrics = task.metrics(judged(task, items, [answer(*call) for call in calls]))
    up = [item.subject["actual_direction"] == "UP" for item in items]
    p_up = [q / 100 if direction == "UP" else 1 - q / 100 for direction, q in calls]
    assert metrics["brier"] == pytest.approx(brier_score_loss(up, p_up))
    always = [statistics.mean(up)] * len(up)
    assert metrics["brier/base_rate"] == pytest.approx(brier_score_loss(up, always))


def test_unknown_metrics_are_left_out_and_not_zero(task: DirectionCall) -> None:
    assert task.validation_metrics([]) == {}
    metrics: Mapping[str, float] = task.metrics(judged(task, sides(task, "UP"), ["garbage"]))
    assert metrics["accuracy"] == 0
    assert metrics["parsed"] == 0
    unknown = {"accuracy/down", "calls/up_share", "confidence/mean", "brier", "brier/base_rate"}
    assert not unknown & set(metrics)


def test_a_validation_has_every_metric_beside_its_baselines(task: DirectionCall) -> None:
    items = list(task.validation_items(80))
    rng = random.Random(5)
    answers = [answer(rng.choice(("UP", "DOWN")), rng.randint(50, 95)) for _ in items]
    together = judged(task, items, answers)
    metrics = task.validation_metrics(together)
    of_a_batch = batch_metrics(together)
    assert of_a_batch.items() <= metrics.items()
    assert metrics.keys() - of_a_batch.keys() == {
        "accuracy/days",
        "accuracy/day_low",
        "accuracy/day_high",
        "accuracy/balanced",
        "auc",
        "brier/skill",
        "ece",
        "ece/calibrated",
    }
    assert metrics["accuracy/days"] == len({item.key.split(":")[1] for item in items})
    assert metrics["accuracy/day_low"] < metrics["accuracy"] < metrics["accuracy/day_high"]
    assert metrics["baseline/always_up"] + metrics["baseline/always_down"] == pytest.approx(1)
    assert task.validation_metrics(together) == metrics
    assert task.validation_metrics([]) == {}


def test_the_area_under_the_curve_is_that_of_the_probability_of_up(task: DirectionCall) -> None:
    rng = random.Random(6)
    items = [task.training_item(index) for index in range(60)]
    calls = [(rng.choice(("UP", "DOWN")), rng.randint(0, 100)) for _ in items]
    metrics = task.validation_metrics(judged(task, items, [answer(*call) for call in calls]))
    up = [item.subject["actual_direction"] == "UP" for item in items]
    p_up = [q / 100 if direction == "UP" else (100 - q) / 100 for direction, q in calls]
    assert metrics["auc"] == pytest.approx(roc_auc_score(up, p_up))


def test_calls_on_one_day_count_as_one_day(task: DirectionCall) -> None:
    # Two tickers on the same day, and one of them on another.
    pool = [task.training_item(index) for index in range(2000)]
    by_day: dict[object, list[Item]] = {}
    for item in pool:
        by_day.setdefault(item.subject["as_of"], []).append(item)
    pair = next(items for items in by_day.values() if len(items) > 1)[:2]
    other = next(item for item in pool if item.subject["as_of"] != pair[0].subject["as_of"])
    together = judged(task, [*pair, other], [answer("UP")] * 3)
    assert task.validation_metrics(together)["accuracy/days"] == 2
