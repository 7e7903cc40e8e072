"""The two lines on top: which run, what it does, how far it is, on what machine."""

from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from stonk_tui.feed import RunModel
from stonk_tui.machine import Machine
from stonk_tui.theme import state_look
from stonk_tui.widgets import figures
from stonk_tui.widgets.text import line
from stonk_tui.widgets.trail import trail

_SAMPLING = {"balanced": "balanced", "natural": "natural market"}


class StateLine(Widget):
    """Run, state and progress, always in the same places."""

    DEFAULT_CSS = """
    StateLine { height: 2; width: 1fr; background: $surface; padding: 0 1; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.auto_links = False
        self._view: RunModel | None = None
        self._machine = Machine()
        self._read_only = False
        self._content = Content("")

    def show(self, view: RunModel, machine: Machine, *, read_only: bool) -> None:
        self._view, self._machine, self._read_only = view, machine, read_only
        content = self._build(view)
        if not content.is_same(self._content):
            self._content = content
            self.refresh()

    def render(self) -> RenderResult:
        return self._content

    def on_resize(self) -> None:
        if self._view is not None:
            self._content = self._build(self._view)

    def _build(self, view: RunModel) -> Content:
        width = max(20, self.size.width)
        return Content("\n").join([self._identity(view, width), self._progress(view, width)])

    def _identity(self, view: RunModel, width: int) -> Content:
        state, _ = view.state
        look = state_look(state)
        left = trail(view.run.id, "train")
        right = Content.assemble((f"{look.glyph} {look.word}", f"bold {look.style}"))
        short = trail(view.run.id)
        origins = _origins(view)
        # Where a run comes from says more than that this is its train screen.
        for place, origin in [(left, item) for item in origins] + [
            (short, i) for i in origins[-1:]
        ]:
            if place.cell_length + origin.cell_length + right.cell_length + 4 <= width:
                left = Content.assemble(place, "  ", origin)
                break
        extras = [self._device(view), self._memory(view)]
        if self._read_only:
            extras.insert(0, Content.styled("read-only", "$warn"))
        for extra in filter(None, extras):
            longer = Content.assemble(right, ("  ·  ", "$faint"), extra)
            if left.cell_length + longer.cell_length + 2 <= width:
                right = longer
        gap = width - left.cell_length - right.cell_length
        if gap < 2:
            left = left.truncate(max(0, width - right.cell_length - 2), ellipsis=True)
            gap = 2
        return Content.assemble(left, " " * gap, right)

    def _progress(self, view: RunModel, width: int) -> Content:
        history = view.history
        pieces: list[Content] = []
        if view.config is not None:
            sampling = _SAMPLING[view.config.data.sampling]
            pieces.append(Content.assemble(f"Stage {view.config.stage} ", (sampling, "$quiet")))
        total = history.max_steps
        digits = len(str(total)) if total else len(str(history.step))
        count = f"{history.step:>{digits}}/{total}" if total else f"{history.step}"
        pieces.append(Content.assemble(("step ", "$quiet"), (count, "bold")))
        done = history.step / total if total else None
        bar_at = len(pieces)
        pieces.append(Content(f"{figures.share(done):>5}" if total else ""))
        if history.step:
            pieces += self._pace(view)
        activity = self._activity(view)
        if activity:
            pieces.insert(bar_at + 1, activity)
        # What does not fit goes from the end, whole: never half a word.
        while len(pieces) > 2 and _length(pieces) > width:
            pieces.pop()
        room = width - _length(pieces) - 4
        if done is not None and room >= 8:
            filled, rest = figures.meter(done, min(room, 48))
            pieces[bar_at] = Content.assemble((filled, "$gold"), (rest, "$faint"), pieces[bar_at])
        return Content("   ").join(pieces)

    def _pace(self, view: RunModel) -> list[Content]:
        history = view.history
        return [
            Content.assemble(("ETA ", "$quiet"), f"{figures.duration(self._eta(view)):<8}"),
            Content.assemble(
                f"{figures.whole(history.metrics.get('tokens_per_second')):>6}",
                (" tok/s", "$quiet"),
            ),
            Content.assemble(("epoch ", "$quiet"), figures.fixed(history.epoch)),
        ]

    def _activity(self, view: RunModel) -> Content | None:
        """What else goes on between two steps, such as a validation."""
        progress = view.history.progress
        if progress is None or not view.history.step or view.state[0] == "stale":
            return None
        count = f" {figures.whole(progress.done)}/{figures.whole(progress.total)}"
        return Content.assemble(
            line(progress.task, "$secondary", limit=24), count if progress.total else ""
        )

    def _eta(self, view: RunModel) -> float | None:
        return view.history.eta_seconds if view.state[0] in ("training", "evaluating") else None

    def _device(self, view: RunModel) -> Content | None:
        facts = view.history.facts
        if not facts.get("device"):
            return None
        device = line(facts["device"], limit=12)
        name = facts.get("device_name")
        return (
            Content.assemble(device, (" ", ""), line(name, "$quiet", limit=24)) if name else device
        )

    def _memory(self, view: RunModel) -> Content | None:
        worker = self._machine.worker_memory
        peak = figures.known(view.history.metrics.get("memory_gib"))
        if worker is not None:
            return Content.assemble(figures.gib(worker), (" GiB", "$quiet"))
        if peak is None:
            return None
        return Content.assemble(figures.fixed(peak, 1), (" GiB peak", "$quiet"))


def _origins(view: RunModel) -> list[Content]:
    """Where a Stage II run comes from, in full and in short; nothing for others."""
    record = view.promotion or {}
    if not record:
        return []
    parent, name = record.get("parent"), line(record.get("checkpoint"), "$quiet", limit=40)
    if parent is None:
        return [Content.assemble(("from ", "$quiet"), name)]
    run = Content.assemble(("from ", "$quiet"), line(parent, "$quiet", limit=60))
    return [Content.assemble(run, (":", "$quiet"), name), run]


def _length(pieces: list[Content]) -> int:
    return sum(piece.cell_length for piece in pieces) + 3 * (len(pieces) - 1)
