"""``delete``: say what would be gone, ask, and delete a run."""

import sys

import typer

from engine.errors import UserError
from engine.runs import deletion, directory
from engine.text import one_line
from stonk_tui.commands.output import note, say


def delete(name: str, *, yes: bool) -> None:
    """Delete the run called ``name``; asks first unless ``yes``.

    Raises:
        UserError: no such run, see ``engine.runs.deletion.plan``, or nobody is there to be asked.
    """
    run = directory.find(name)
    plan = deletion.plan(run)
    say(f"{one_line(run.id)}: {plan.contents}")
    for consequence in plan.consequences:
        note(one_line(consequence, 400))
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nobody is here to confirm it", fix="say --yes to delete it unasked")
        typer.confirm("Delete it for good?", abort=True)
    deletion.delete(run)
    say("deleted")
