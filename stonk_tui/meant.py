"""Which run a command is for: the one under the cursor among the runs, else the attached one."""

from typing import TYPE_CHECKING, NamedTuple

from engine.runs import checkpoint_names
from engine.runs.directory import RunDirectory
from stonk_tui.feed import RunModel
from stonk_tui.run_list import GOING, Listed

if TYPE_CHECKING:
    from textual.screen import Screen


class Meant(NamedTuple):
    """A run as far as commands need to know it."""

    run: RunDirectory
    state: str
    """Corrected by whether the worker lives."""
    is_commandable: bool
    """Whether somebody is there to take a command."""
    stage: str
    """Empty where it is not known."""
    has_checkpoint: bool


def run_meant(screen: "Screen[object]", model: RunModel | None) -> Meant | None:
    """The run that a command given on ``screen`` is for; None where there is none.

    Args:
        model: of the attached run.
    """
    listed = getattr(screen, "run_in_sight", None)
    if isinstance(listed, Listed):
        return Meant(
            listed.run,
            listed.state,
            listed.state in GOING,
            listed.stage,
            bool(checkpoint_names.names(listed.run)),
        )
    if model is None:
        return None
    stage = model.config.stage if model.config is not None else ""
    return Meant(
        model.run, model.state[0], model.commandable, stage, bool(model.history.checkpoints)
    )
