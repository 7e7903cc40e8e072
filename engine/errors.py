"""Errors that are written for a person, with the exit code each one means."""


class UserError(Exception):
    """Wrong input: one line saying what is wrong, where, and what to do. Exit code 2."""

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        """Compose the line.

        Args:
            what: what is wrong, without a full stop.
            where: the place, as ``file:line:field`` or as much of it as exists.
            fix: what the person can do about it.
        """
        self.what = what
        self.where = where
        self.fix = fix
        line = f"{where}: {what}" if where else what
        super().__init__(f"{line}; {fix}" if fix else line)


class RunFailedError(Exception):
    """A run that could not go on through no fault of the input. Exit code 1."""

    exit_code = 1


class NotFiniteError(RunFailedError):
    """Numbers that training cannot go on with; an earlier checkpoint may help."""
