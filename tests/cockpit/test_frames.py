"""What is sent to the terminal leaves on it what Textual meant it to show, and no more."""

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from stonk_tui.frames import Frames

WIDTH, HEIGHT = 24, 4
CONSOLE = Console(color_system="truecolor", force_terminal=True)
STYLES = [Style(), Style(color="red"), Style(bgcolor="blue", bold=True)]


class Screen:
    """An emulator that is sent updates."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self.stream = pyte.Stream(self.screen)
        self.sent = 0

    def send(self, text: str) -> None:
        self.sent += len(text)
        # A terminal in raw mode gets the carriage return from its driver.
        self.stream.feed(text.replace("\n", "\r\n"))

    def cells(self) -> list[list[tuple[str, str, str, bool]]]:
        return [
            [
                (cell.data, cell.fg, cell.bg, cell.bold)
                for cell in (self.screen.buffer[y][x] for x in range(WIDTH))
            ]
            for y in range(HEIGHT)
        ]


def layout(rows: list[Strip]) -> LayoutUpdate:
    return LayoutUpdate([[row] for row in rows], Region(0, 0, WIDTH, HEIGHT))


def partial(rows: list[Strip], spans: list[tuple[int, int, int]]) -> ChopsUpdate:
    half = WIDTH // 2
    chops = [{0: row.crop(0, half), half: row.crop(half, WIDTH)} for row in rows]
    return ChopsUpdate(chops, spans, [[half, WIDTH]] * HEIGHT)


def strip(text: str, style: int = 0) -> Strip:
    return Strip([Segment(text, STYLES[style])]).adjust_cell_length(WIDTH, STYLES[0])


def whole_rows(*numbers: int) -> list[tuple[int, int, int]]:
    return [(number, 0, WIDTH) for number in numbers]


def test_first_repaint_and_the_one_after_forgetting_are_sent_as_they_are() -> None:
    rows = [strip(f"row {number}", number % 3) for number in range(HEIGHT)]
    frames = Frames()
    for _ in range(2):
        sent = frames.changes(layout(rows)).render_segments(CONSOLE)
        assert sent == layout(rows).render_segments(CONSOLE)
        assert frames.changes(layout(rows)).render_segments(CONSOLE) == ""
        frames.forget()


def test_what_has_not_changed_is_not_sent() -> None:
    rows = [strip(f"row {number}", number % 3) for number in range(HEIGHT)]
    frames = Frames()
    frames.changes(layout(rows)).render_segments(CONSOLE)
    assert frames.changes(partial(rows, whole_rows(0, 1, 2, 3))).render_segments(CONSOLE) == ""
    rows[2] = strip("row x", 2)
    sent = frames.changes(partial(rows, whole_rows(0, 1, 2, 3))).render_segments(CONSOLE)
    assert "x" in sent
    assert "row" not in sent
    assert sent.startswith("\x1b[3;5H")


def test_update_that_is_never_written_is_not_taken_for_shown() -> None:
    rows = [strip("before")] * HEIGHT
    frames = Frames()
    frames.changes(layout(rows)).render_segments(CONSOLE)
    frames.changes(partial([strip("after")] * HEIGHT, whole_rows(0)))
    sent = frames.changes(partial([strip("after")] * HEIGHT, whole_rows(0)))
    assert "after"[:4] in sent.render_segments(CONSOLE)


def test_update_before_any_full_one_is_sent_whole() -> None:
    update = partial([strip("x")] * HEIGHT, whole_rows(0, 1))
    assert Frames().changes(update).render_segments(CONSOLE) == update.render_segments(CONSOLE)


def _fitting(text: str) -> str:
    while cell_len(text) > WIDTH:
        text = text[:-1]
    return text


ROW = st.builds(
    lambda text, style: strip(_fitting(text), style),
    # Wide ones, and marks of no width, beside what charts and panels are made of.
    st.text(st.sampled_from("abc 漢字⣿▁é─│"), max_size=WIDTH),
    st.integers(0, 2),
)
ROWS = st.lists(ROW, min_size=HEIGHT, max_size=HEIGHT)


@given(st.lists(ROWS, min_size=2, max_size=5), st.data())
@settings(max_examples=150, deadline=None)
def test_terminal_ends_up_showing_the_same_whichever_way_it_is_sent(
    frames_of_rows: list[list[Strip]], data: st.DataObject
) -> None:
    ours, theirs, frames = Screen(), Screen(), Frames()
    first, *others = frames_of_rows
    ours.send(frames.changes(layout(first)).render_segments(CONSOLE))
    theirs.send(layout(first).render_segments(CONSOLE))
    for rows in others:
        numbers = sorted(data.draw(st.sets(st.integers(0, HEIGHT - 1), min_size=1)))
        update = data.draw(st.sampled_from([layout(rows), partial(rows, whole_rows(*numbers))]))
        ours.send(frames.changes(update).render_segments(CONSOLE))
        theirs.send(update.render_segments(CONSOLE))
        assert ours.cells() == theirs.cells()
    assert ours.sent <= theirs.sent
