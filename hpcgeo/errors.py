"""The errors that are told in one line: what a user can mend, and what ended a run."""


class InputError(ValueError):
    """Bad input from the user; the command line prints its text alone, without a traceback.

    The text names the value, the rule it breaks and the way out, in one line where possible.
    """

    shared = False  #: raised on every rank alike: rank 0 alone says it


class FaultError(RuntimeError):
    """What ended a run and is no bug; the text names the cause and what to do, in one line."""

    shared = False  #: raised on every rank alike: rank 0 alone says it
