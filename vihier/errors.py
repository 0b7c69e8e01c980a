"""What vihier raises when it refuses input or arguments."""


class VihierError(ValueError):
    """Refused input or arguments.

    The message is one line that names what was wrong, where (column, row, site, file) and the cure. The command
    line prints it and exits with status 2.
    """


class FitError(VihierError):
    """A fit that cannot go on: its message says at which step, and what to try."""


class ScreenWarning(UserWarning):
    """Something in a screen's table that was read, and that its owner should look at."""


class FitWarning(UserWarning):
    """Something about a fit that its reader should know: it did not converge, or rests on the prior."""


class Stopped(Exception):
    """A fit stopped because a signal asked it to; its text says how to go on."""
