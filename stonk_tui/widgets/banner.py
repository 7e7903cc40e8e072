"""One or two lines that say what happened and what to do; nothing while all is well."""

from textual.content import Content
from textual.widgets import Static

from stonk_tui.feed import RunModel
from stonk_tui.keymap import DEFAULT, Keymap
from stonk_tui.theme import state_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line


class Banner(Static):
    """The state of the run in a sentence, when it is not simply training."""

    DEFAULT_CSS = """
    Banner {
        height: auto; max-height: 4; padding: 0 1; display: none;
        background: $panel; color: $ink;
    }
    Banner.-speaks { display: block; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._said = Content("")

    def show(self, view: RunModel, now: float, keymap: Keymap = DEFAULT) -> None:
        said = sentence(view, now, keymap)
        if not said.is_same(self._said):
            self._said = said
            self.update(said)
            self.set_class(bool(said), "-speaks")


def sentence(view: RunModel, now: float, keymap: Keymap = DEFAULT) -> Content:
    """What a person should know about the state, and what can be done about it."""
    trouble = view.problem or view.misread
    if trouble:
        return Content.assemble(("! ", "bold $bad"), line(trouble, "$ink"))
    state, detail = view.state
    look = state_look(state)
    head = Content.styled(f"{look.glyph} {look.word}", f"bold {look.style}")
    history = view.history
    kept = history.checkpoints[-1].name if history.checkpoints else ""
    if state == "paused":
        return Content.assemble(
            head,
            "  ",
            # The reason, where the run paused by itself.
            line(detail) if detail else "it waits between two steps and keeps the device.",
            "  ",
            (keymap.of("pause"), "bold $gold"),
            " goes on",
        )
    if state == "prepared":
        return Content.assemble(
            head,
            "  nothing runs yet; run.yaml may be edited.  ",
            (keymap.of("start"), "bold $gold"),
            " starts it",
        )
    if state == "stale":
        ago = _ago(history.last_time, now)
        return Content.assemble(
            head,
            f"{ago}  ",
            line(detail),
            Content.assemble(" from ", line(kept, limit=40)) if kept else "",
        )
    if state == "failed":
        return Content.assemble(
            head,
            "  ",
            line(detail or "the worker gave no reason"),
            ("   goes on from " if kept else "   no checkpoint yet, begins anew", "$quiet"),
            line(kept, "$quiet", limit=40),
            (": ", "$quiet"),
            line(f"stonk-tui train --resume {view.run.id}"),
        )
    if state == "stopped":
        count = f" of {figures.whole(history.max_steps)}" if history.max_steps else ""
        return Content.assemble(
            head,
            f"  at step {figures.whole(history.step)}{count}.  ",
            line(detail),
            Content.assemble(" from ", line(kept, limit=40)) if kept else "",
        )
    if state == "finished":
        best = history.best or kept
        return Content.assemble(
            head,
            "  ",
            line(detail) if detail else f"{figures.whole(history.step)} steps done",
            Content.assemble(("   best by validation: ", "$quiet"), line(best, limit=40))
            if best
            else "",
        )
    if state == "stopping":
        return Content.assemble(head, "  the step in hand ends, then a checkpoint is kept")
    return Content("")


def _ago(moment: float | None, now: float) -> str:
    return f" for {figures.duration(now - moment)}" if moment is not None else ""
