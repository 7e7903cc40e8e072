"""``export --rollouts``: what passes a filter, as a file that other tools read."""

import contextlib
from pathlib import Path

from engine.errors import UserError
from engine.runs import directory, rollout_export
from engine.runs.reader import StoreReader
from engine.runs.rollout_filter import Order, parse
from engine.text import one_line
from stonk_tui.commands.output import say, say_json
from stonk_tui.commands.progress import progress_display


def export_rollouts(
    name: str | None, selection: str, form: str | None, out: Path, *, as_json: bool
) -> None:
    """Write the rollouts of the run called ``name`` that pass a filter, newest step first.

    Args:
        name: the run; None is the newest.
        selection: see ``engine.runs.rollout_filter``.
        form: one of ``rollout_export.FORMATS``; None is what the file's ending says.
        out: a file that is not there yet.
        as_json: print JSON.

    Raises:
        UserError: no such run, no such filter, or a file that cannot be written.
    """
    wanted = parse(selection)
    out = out.expanduser().absolute()
    form = form or rollout_export.form_of(out)
    if form is None:
        raise UserError(
            "this ending stands for no format",
            where=one_line(out.name),
            fix="end it in .csv, .jsonl or .parquet, or give --format",
        )
    rollout_export.refuse_taken(out)
    run = directory.find(name)
    try:
        reader = StoreReader(run.database)
    except FileNotFoundError:
        raise UserError("this run has no rollouts yet", where=run.id) from None
    try:
        ids = reader.rollout_ids(wanted, Order())
    finally:
        reader.close()
    # Without a terminal, progress is lines on stdout, where the JSON goes.
    with contextlib.nullcontext() if as_json else progress_display() as show:

        def progress(done: int) -> bool:
            if show is not None:
                show("writing rollouts", done, len(ids))
            return True

        rows = rollout_export.export(run.database, ids, out, form, progress)
    if as_json:
        say_json({"run": run.id, "as": form, "out": str(out), "filter": selection, "rows": rows})
        return
    passing = f" that pass {one_line(selection)}" if wanted.text else ""
    plural = "" if rows == 1 else "s"
    say(f"{rows} rollout{plural} of {run.id}{passing} as {form} in {one_line(str(out))}")
