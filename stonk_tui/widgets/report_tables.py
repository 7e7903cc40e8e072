"""Tables of a report: figures in rows, checkpoints in columns beside each other."""

from collections.abc import Callable, Sequence

from textual.content import Content

from stonk_tui.evaluation_report import Report
from stonk_tui.theme import DOWN, UNKNOWN, UP
from stonk_tui.widgets import figures
from stonk_tui.widgets.evaluations import accuracy
from stonk_tui.widgets.text import line

NAME = 24
"""Cells of the column of names."""
CELL = 24
"""Cells of each column beside it."""
Form = Callable[[object], str]
Metric = tuple[str, tuple[str, ...], Form | None]
"""What it is called, where a checkpoint's figures have it, and how it is written; without a form
it is a share that is told with its n."""


def share(value: object) -> str:
    """A share of 1 as ``52.3 %``."""
    number = figures.known(value)
    return UNKNOWN if number is None else f"{figures.fixed(100 * number, 1)} %"


def points(value: object) -> str:
    """A difference of shares as ``+2.1``, in percentage points."""
    number = figures.known(value)
    return UNKNOWN if number is None else figures.signed(100 * number, 1)


def three(value: object) -> str:
    """With three digits after the point."""
    return figures.fixed(value, 3)


def two(value: object) -> str:
    """With two digits after the point."""
    return figures.fixed(value, 2)


def signed(value: object) -> str:
    """With its sign."""
    return figures.signed(value, 3)


METRICS: tuple[Metric, ...] = (
    ("right", ("accuracy",), share),
    ("balanced", ("balanced_accuracy",), share),
    ("MCC", ("mcc",), signed),
    ("ROC-AUC", ("roc_auc",), three),
    ("Pesaran–Timmermann p", ("pesaran_timmermann", "p"), three),
    ("within-day p", ("within_day", "p"), three),
    ("Brier", ("brier", "score"), three),
    ("Brier of the base rate", ("brier", "base_rate"), three),
    ("Brier skill", ("brier", "skill"), signed),
    ("log loss", ("log_loss", "score"), three),
    ("ECE", ("calibration", "ece"), three),
    ("ECE by chance", ("calibration", "ece_by_chance"), three),
    ("size error, points", ("magnitude", "error"), two),
    ("that of persistence", ("magnitude", "persistence"), two),
    ("could be read", ("parsed",), share),
    ("cut at the length", ("truncated",), share),
    ("reward", ("rewards", "reward"), three),
    ("reasoning, rubric", ("rewards", "rubric/reasoning"), three),
)
SIDES: tuple[Metric, ...] = (
    (f"right on {UP.glyph} days", ("sides", "actual_up"), None),
    (f"right on {DOWN.glyph} days", ("sides", "actual_down"), None),
    (f"right saying {UP.glyph}", ("sides", "called_up"), None),
    (f"right saying {DOWN.glyph}", ("sides", "called_down"), None),
    (f"said {UP.glyph}", ("up_share", "calls"), None),
    (f"market {UP.glyph}", ("up_share", "market"), None),
)


def cell(value: object, form: Form | None) -> Content:
    """A value and its interval; of a bare number that alone; without a form, a share with its n."""
    if form is None:
        return accuracy(value)
    if not isinstance(value, dict):
        return Content(form(value))
    number = figures.known(value.get("value"))
    if number is None:
        return Content.styled(UNKNOWN, "$quiet")
    ends = [figures.known(value.get(name)) for name in ("low", "high")]
    interval = ""
    if None not in ends:
        low, high = (form(end).removesuffix(" %") for end in ends)
        interval = f" [{low}, {high}]"
    return Content.assemble((form(number), "bold"), interval)


def groups(report: Report, width: int) -> list[tuple[str, ...]]:
    """The checkpoints in groups that fit beside each other."""
    room = max(1, (width - NAME) // CELL)
    labels = report.labels
    return [labels[start : start + room] for start in range(0, len(labels), room)]


def row(name: str, cells: Sequence[Content]) -> Content:
    """A line: a name, and a cell for each column."""
    fitted = [one.truncate(CELL - 1, ellipsis=True, pad=True) for one in cells]
    return Content.assemble((f"{name:<{NAME}}", "$quiet"), Content(" ").join(fitted))


def head(name: str, labels: Sequence[str]) -> Content:
    """The names of the checkpoints above their columns."""
    return row(name, [line(label, "bold $gold", limit=80) for label in labels])


def table(
    name: str,
    metrics: Sequence[Metric],
    report: Report,
    width: int,
) -> list[Content | str]:
    """``metrics`` of all checkpoints; without a name it begins with their numbers of rows."""
    lines: list[Content | str] = []
    for labels in groups(report, width):
        lines.append(head(name, labels))
        lines += [
            row(title, [cell(report.of(label, *path), form) for label in labels])
            for title, path, form in metrics
        ]
        if not name:
            lines.insert(-len(metrics) + 1, _sizes(report, labels))
    return lines


def _sizes(report: Report, labels: Sequence[str]) -> Content:
    cells = [
        Content(
            f"{figures.whole(report.of(label, 'n'))} rows, "
            f"{figures.whole(report.of(label, 'days'))} days"
        )
        for label in labels
    ]
    return row("n", cells)
