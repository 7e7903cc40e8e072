"""A rollout, opened: its text, its reward line by line, its group, its outcome on demand."""

from engine.runs.reader import Rollout, StoreReader
from engine.runs.store import RolloutRecord
from engine.task import ComponentScore
from stonk_tui.screens.rollout import RolloutScreen
from stonk_tui.widgets.explained import completion, why
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until


def _one(run_name: str = "demo", **changes: object) -> Rollout:
    recording = recorded.new_run(run_name)
    values: dict[str, object] = {
        "group": 0,
        "sample": 0,
        "prompt": "prompt",
        "subject": {},
        "completion": "",
        "tokens": 3,
        "finished": True,
        "reward": 0.0,
        "advantage": 0.0,
        "prediction": {},
        "components": (),
        "cited": (),
    }
    recording.store.rollouts(1, [RolloutRecord(**(values | changes))])  # type: ignore[arg-type]
    recording.closes()
    reader = StoreReader(recording.run.database)
    rollout = reader.newest_rollouts()[0]
    reader.close()
    return rollout


def test_cited_spans_are_marked_at_their_place_also_after_control_characters() -> None:
    text = "a\x1b[31mb 691.28 \u202e c 66.1 d"
    spans = [(text.index(fact), text.index(fact) + len(fact)) for fact in ("691.28", "66.1")]
    content = completion(_one(completion=text, cited=tuple(spans)))
    marked = [
        content.plain[span.start : span.end] for span in content.spans if "gold" in str(span.style)
    ]
    assert marked == ["691.28", "66.1"]


def test_spans_that_make_no_sense_are_left_out() -> None:
    content = completion(_one(completion="short", cited=((3, 99), (-4, 2), (4, 1), (2, 4))))
    assert content.plain == "short"


def test_reward_lines_multiply_weight_and_value_and_sum_to_the_total() -> None:
    components = (
        ComponentScore("format", 1.0, 0.2, "one answer"),
        ComponentScore("confidence", -0.5, 0.1, "too sure"),
        ComponentScore("coherence", 0.75, 0.0, "watched only"),
    )
    # 1.0 × .20 = .200, −0.5 × .10 = −.050, together .150
    lines = why(_one(components=components, reward=0.15, advantage=-0.2), 90).plain.split("\n")
    assert "1.00 × .20 =   0.200  one answer" in lines[0]
    assert "−0.50 × .10 =  −0.050  too sure" in lines[1]
    assert "watched" in lines[2]
    assert "0.150" in lines[3]
    assert "−0.200 from its group's mean" in lines[3]
    assert len(lines) == 4


async def test_detail_walks_the_group_and_other_groups() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
        await settle(pilot)
        assert "group 1 of 4 · answer 1 of 8" in text_of(app)
        await pilot.press("n")
        await settle(pilot)
        assert "group 1 of 4 · answer 2 of 8" in text_of(app)
        await pilot.press("N", "N")
        await settle(pilot)
        assert "answer 8 of 8" in text_of(app)
        await pilot.press("right_square_bracket")
        await settle(pilot)
        assert "group 2 of 4 · answer 1 of 8" in text_of(app)
        await pilot.press("left_square_bracket")
        await settle(pilot)
        assert "group 1 of 4" in text_of(app)


async def test_outcome_is_hidden_until_it_is_asked_for() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
        await settle(pilot)
        assert "market  x shows it" in text_of(app)
        await pilot.press("x")
        await settle(pilot)
        assert "x shows it" not in text_of(app)


async def test_group_that_the_newest_rollouts_hold_in_part_is_completed_from_the_store() -> None:
    recording = recorded.record(5)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        assert app.model is not None
        app.model.rollouts = app.model.rollouts[:2]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
        await until(pilot, lambda: "answer 1 of 8" in text_of(app))
