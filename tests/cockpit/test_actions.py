"""One table of actions feeds keys, footer, palette and help; each one does something."""

import queue
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding

from engine.runs.control import ControlServer
from engine.runs.store import EventStore
from stonk_tui import actions, keymap, modes
from stonk_tui.app import Cockpit
from stonk_tui.palette import ActionProvider
from stonk_tui.screens import confirm
from stonk_tui.screens.compare import CompareScreen
from stonk_tui.screens.confirm import ConfirmScreen
from stonk_tui.screens.evaluate import EvaluateScreen
from stonk_tui.screens.help import HelpScreen, help_text
from stonk_tui.screens.log import LogScreen
from stonk_tui.screens.probe import ProbeScreen
from stonk_tui.screens.rollout import RolloutScreen
from stonk_tui.screens.rollouts import RolloutsScreen
from stonk_tui.screens.runs import RunsScreen
from stonk_tui.screens.train import TrainScreen
from stonk_tui.widgets.keys import KeyBar
from stonk_tui.widgets.table import Table
from tests import recorded
from tests.cockpit.helpers import cockpit, opened, settle, text_of, until

OWNERS: dict[str, type] = {
    "app": Cockpit,
    "train": TrainScreen,
    "runs": RunsScreen,
    "rollouts": RolloutsScreen,
    "compare": CompareScreen,
    "rollout": RolloutScreen,
    "log": LogScreen,
    "probe": ProbeScreen,
    "evaluate": EvaluateScreen,
}


@pytest.mark.parametrize("action", actions.ACTIONS, ids=lambda action: action.id)
def test_every_action_has_a_handler_a_label_and_help(action: actions.Action) -> None:
    assert callable(getattr(OWNERS[action.scope], f"do_{action.handler or action.id}", None))
    assert action.label
    assert action.help.endswith(".")


@pytest.mark.parametrize("scope", OWNERS)
def test_every_handler_has_an_action(scope: str) -> None:
    ours = [kind for kind in OWNERS[scope].__mro__ if kind.__module__.startswith("stonk_tui")]
    handlers = {name for kind in ours for name in vars(kind) if name.startswith("do_")}
    mine = [action for action in actions.ACTIONS if action.scope == scope]
    assert handlers == {f"do_{action.handler or action.id}" for action in mine}


@pytest.mark.parametrize("scope", OWNERS)
def test_every_key_of_a_screen_comes_from_the_table(scope: str) -> None:
    bound = [item for item in vars(OWNERS[scope])["BINDINGS"] if isinstance(item, Binding)]
    ids = {item.id for item in bound if item.id}
    assert ids == {action.id for action in actions.ACTIONS if action.scope == scope}
    assert all(item.id or "detach" in item.action for item in bound)


def test_no_key_means_two_things_on_one_screen() -> None:
    anywhere = _keys("app")
    for scope in OWNERS.keys() - {"app"}:
        keys = _keys(scope)
        assert len(keys) == len(set(keys))
        assert not set(keys) & set(anywhere)


def _keys(scope: str) -> list[str]:
    return [
        key
        for action in actions.ACTIONS
        if action.scope == scope
        for key in action.key.split(",")
        if key
    ]


def test_help_names_every_action_and_its_command() -> None:
    text = help_text(width=200).plain
    for action in actions.ACTIONS:
        assert action.help in text
        if action.cli:
            assert f"stonk-tui {action.cli}" in text


async def test_palette_offers_the_actions_of_the_screen() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        provider = ActionProvider(app.screen)
        offered = [hit.help async for hit in provider.discover()]
        expected = [item.help for item in actions.ACTIONS if item.scope in ("app", "train")]
        assert offered == expected
        found = [hit.help async for hit in provider.search("checkpoint")]
        assert actions.BY_ID["checkpoint"].help in found
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Keep a checkpoint" in text_of(app))


async def test_keys_go_to_every_screen_and_escape_comes_back() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        for key, kind in (("l", LogScreen), ("r", RunsScreen), ("t", TrainScreen)):
            await pilot.press("g", key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RolloutScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await until(pilot, lambda: "1 run" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_help_explains_the_panel_in_focus_first() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("5", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await settle(pilot)
        assert "Health. KL is the policy's distance" in text_of(app)


async def test_dimmed_key_says_why_it_does_nothing() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run, read_only=True)
    async with opened(app) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: "opened read-only" in text_of(app))
        await pilot.press("S")
        await settle(pilot)
        assert not isinstance(app.screen, ConfirmScreen)


async def test_run_whose_worker_is_gone_takes_no_command() -> None:
    recording = recorded.record(3, state="stale")
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("c")
        await until(pilot, lambda: "no worker listens" in text_of(app))


async def test_footer_entries_can_be_clicked() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        row = text_of(app).split("\n")[-1]
        await pilot.click(KeyBar, offset=(row.index("? help"), 0))
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))


class Worker:
    """Answers commands as a training loop does, between two steps."""

    def __init__(self, recording: recorded.Recording) -> None:
        self.store = EventStore(recording.run.database)
        self.server = ControlServer(recording.run.socket, self.store)
        self.verbs: list[str] = []
        self.payloads: list[Mapping[str, Any]] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._obey, daemon=True)
        self.thread.start()

    def _obey(self) -> None:
        while not self.ended.is_set():
            try:
                command = self.server.commands.get(timeout=0.05)
            except queue.Empty:
                continue
            self.verbs.append(command.verb)
            self.payloads.append(command.payload)
            self.store.answer(command.id, command.verb, ok=True, message=f"done: {command.verb}")
            if command.verb in ("pause", "resume"):
                state = "paused" if command.verb == "pause" else "training"
                self.store.event("state", {"state": state, "detail": ""})

    def ends(self) -> None:
        self.ended.set()
        self.thread.join()
        self.server.close()
        self.store.close()


async def test_commands_are_acknowledged_and_their_answers_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(3)
    worker = Worker(recording)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: "pause: accepted" in text_of(app))
        await until(pilot, lambda: "pause: done: pause" in text_of(app))
        await until(pilot, lambda: "‖ paused" in text_of(app))
        await until(pilot, lambda: "p resume" in text_of(app))
        await pilot.press("p")
        await until(pilot, lambda: "● training" in text_of(app))
        await pilot.press("c")
        await until(pilot, lambda: "checkpoint" in worker.verbs)
    worker.ends()
    assert worker.verbs == ["pause", "resume", "checkpoint"]


async def test_stop_asks_first_and_ignores_keys_that_were_typed_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(3)
    worker = Worker(recording)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        monkeypatch.setattr(confirm, "DEAF_SECONDS", 3600.0)
        await pilot.press("S", "y")
        await settle(pilot)
        assert isinstance(app.screen, ConfirmScreen)
        text = re.sub(r"\W+", " ", text_of(app))
        assert "a checkpoint is kept" in text
        assert "train resume" in text
        monkeypatch.setattr(confirm, "DEAF_SECONDS", 0.01)
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(app.screen, ConfirmScreen))
        assert worker.verbs == []
        await pilot.press("S")
        await until(pilot, lambda: getattr(app.screen, "listens", False))
        await pilot.press("y")
        await until(pilot, lambda: worker.verbs == ["stop"])
    worker.ends()


async def test_command_that_nobody_answers_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: "no worker answers" in text_of(app))


async def test_leaving_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    recording = recorded.record(3)
    worker = Worker(recording)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    worker.ends()
    assert worker.verbs == []


async def test_second_key_is_waited_for_and_the_footer_says_which_there_are() -> None:
    recording = recorded.record(3)
    app = cockpit(recording.run)
    async with opened(app) as pilot:
        await pilot.press("g")
        await settle(pilot)
        footer = text_of(app).split("\n")[-1]
        assert footer.startswith(" g  ")
        for mode in modes.MODES:
            assert f"{mode.letter} {mode.name}" in footer
        await pilot.press("escape")
        await settle(pilot)
        assert "q detach" in text_of(app).split("\n")[-1]
        assert isinstance(app.screen, TrainScreen)
        await pilot.press("g", "x")
        await until(pilot, lambda: "g x leads nowhere" in text_of(app))
        await pilot.press("g")
        await settle(pilot)
        row = text_of(app).split("\n")[-1]
        await pilot.click(KeyBar, offset=(row.index("l log"), 0))
        await until(pilot, lambda: isinstance(app.screen, LogScreen))
        assert app.prefix == ""


async def test_many_second_keys_take_as_many_lines_as_they_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = cockpit(recorded.record(3).run)
    many = {str(number): actions.BY_ID["checkpoint"] for number in range(9)}
    monkeypatch.setattr(app.keymap, "seconds", lambda scopes: many)
    async with opened(app, (60, 20)) as pilot:
        bar = app.screen.query_one(KeyBar)
        await pilot.press("g")
        await until(pilot, lambda: bar.size.height == 3)
        await until(pilot, lambda: text_of(app).count("checkpoint") == 9)
        await pilot.press("escape")
        await until(pilot, lambda: bar.size.height == 1)


@pytest.mark.parametrize("name", [mode.name for mode in modes.MODES])
def test_every_mode_leads_back_to_one_that_exists_and_opens(name: str) -> None:
    mode = modes.BY_NAME[name]
    assert mode.back in modes.BY_NAME
    assert mode.open().scope == name


async def test_vim_keys_move_through_tables_and_scrollers() -> None:
    recording = recorded.record(30)
    recording.run.log.write_text("a line\n" * 99)
    app = cockpit(recording.run)
    async with opened(app, (80, 22)) as pilot:
        table = app.screen.query_one("#rollout-table", Table)
        keys = [row.key for row in table.rows]
        places = {"G": len(keys) - 1, "k": len(keys) - 2, "gg": 0, "j": 1, "ctrl+d": None}
        for key, place in places.items():
            await pilot.press(*(key if key == "gg" else [key]))
            await pilot.pause()
            if place is not None:
                assert table.cursor_key == keys[place], key
        half = (table.size.height - 1) // 2
        assert table.cursor_key == keys[1 + half]
        await pilot.press("ctrl+u")
        await pilot.pause()
        assert table.cursor_key == keys[1]
        await pilot.press("g", "l")
        await until(pilot, lambda: isinstance(app.screen, LogScreen))
        await settle(pilot)
        await pilot.press("tab")
        box = app.screen.query_one("#engine-box")
        await pilot.press("g", "g")
        await until(pilot, lambda: box.scroll_y == 0)
        await pilot.press("j")
        await until(pilot, lambda: box.scroll_y == 1)
        await pilot.press("G")
        await until(pilot, lambda: box.scroll_y == box.max_scroll_y > 1)


@pytest.mark.parametrize(
    ("action", "keys", "problem"),
    [
        ("stop", "c", "c is the key of checkpoint already"),
        ("pauze", "x", "there is no action pauze; did you mean pause?"),
        ("zoom", "j", "j moves down"),
        ("help", "ctrl+bananas", "ctrl+bananas is no key that a terminal knows"),
        ("runs", "z r", "z r: at most two keys, of which the first is g"),
        ("runs", "g r r", "g r r: at most two keys, of which the first is g"),
        ("runs", "g t", "g t is the key of train already"),
        ("go", "t", "g stays the first of two keys"),
    ],
)
def test_key_that_cannot_be_is_refused_and_the_others_hold(
    action: str, keys: str, problem: str
) -> None:
    others = {"pause": "f10", "motion": "g m, f9", "log": "g l,", "promote": ""}
    kept, refused = keymap.checked(others | {action: keys})
    assert kept == others
    assert refused == {action: problem}


def test_two_choices_may_swap_keys_but_not_share_one() -> None:
    swapped = {"pause": "c", "checkpoint": "p"}
    assert keymap.checked(swapped) == (swapped, {})
    kept, refused = keymap.checked({"pause": "x", "zoom": "x"})
    assert kept == {}
    assert "x is the key of zoom already, which was chosen too" in refused["pause"]
    # Where one falls, the table's key comes back and the other one clashes with it.
    kept, refused = keymap.checked({"pause": "c", "checkpoint": "j"})
    assert kept == {}
    assert refused["pause"] == "c is the key of checkpoint already"


async def test_keys_typed_in_one_go_are_two_keys_and_a_question_hears_none_of_them() -> None:
    app = cockpit(recorded.record(3).run)
    async with opened(app) as pilot:
        for key in "gl":
            app.simulate_key(key)
        await until(pilot, lambda: isinstance(app.screen, LogScreen))
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("g", "r")
        await settle(pilot)
        assert app.prefix == ""
        assert isinstance(app.screen, ConfirmScreen)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Keep a checkpoint" in text_of(app))
        await pilot.press("g", "o")
        await settle(pilot)
        assert app.prefix == ""
