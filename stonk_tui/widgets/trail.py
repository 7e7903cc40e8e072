"""Where one is: project, run, screen, each a way back for the mouse."""

from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from stonk_tui.widgets.text import line


class Trail(Static):
    """The line on top of a screen."""

    DEFAULT_CSS = """
    Trail { height: 1; width: 1fr; padding: 0 1; background: $surface; text-wrap: nowrap; }
    """

    def __init__(self, *, id: str = "title") -> None:
        super().__init__(id=id, markup=False)
        # Links in the theme's colours would hide which part is where one is.
        self.auto_links = False


def trail(run_id: str | None, *places: str) -> Content:
    """``stonk-tui › run › place``; what stands before the last leads there on a click."""
    pieces = [_leads("runs", Content.styled("stonk-tui", "bold $gold"))]
    if run_id is not None:
        pieces.append(_leads("train", line(run_id, "bold $ink", limit=60)))
    pieces += [Content.styled(place, "$ink") for place in places]
    return Content.assemble(" › ").stylize("$quiet").join(pieces)


def _leads(action_id: str, content: Content) -> Content:
    return content.stylize(Style.from_meta({"@click": f"app.do('{action_id}')"}))
