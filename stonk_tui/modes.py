"""ONE table of modes: the full screens that `g` and a second key lead to.

Adding one is a line here: its action, keys, palette entry, help, footer hint and way back
are made from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from stonk_tui.screens.base import CockpitScreen


@dataclass(frozen=True)
class Mode:
    """A full screen of its own."""

    name: str
    letter: str
    """The key that leads there after `g`."""
    help: str
    screen: str
    """``module:Class`` below ``stonk_tui.screens``, imported when it is first gone to."""
    back: str = "train"
    """The mode that esc leads to."""
    needs_run: bool = True
    cli: str = ""
    """The same on the command line."""

    def open(self) -> "CockpitScreen":
        """Make the screen."""
        module, _, name = self.screen.partition(":")
        made = getattr(import_module(f"stonk_tui.screens.{module}"), name)
        return cast("Callable[[], CockpitScreen]", made)()


MODES: tuple[Mode, ...] = (
    Mode(
        "runs", "r", "All runs, and how they are doing.", "runs:RunsScreen",
        needs_run=False, cli="runs",
    ),
    Mode(
        "train", "t", "The run that is attached.", "train:TrainScreen",
        back="runs", cli="attach RUN",
    ),
    Mode(
        "rollouts", "o", "Every rollout of the run: filter, sort, open, export.",
        "rollouts:RolloutsScreen", cli="export RUN --rollouts",
    ),
    Mode(
        "probe", "b", "Ask checkpoints about an example; the run goes on.",
        "probe:ProbeScreen", cli="probe RUN --checkpoint NAME",
    ),
    Mode(
        "evaluate", "e", "Evaluate checkpoints on unseen days, and read the reports of before.",
        "evaluate:EvaluateScreen", cli="eval RUN --checkpoint NAME --split test",
    ),
    Mode("log", "l", "The event log, and the worker's own output.", "log:LogScreen"),
)  # fmt: skip

BY_NAME = {mode.name: mode for mode in MODES}
