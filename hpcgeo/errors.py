"""The one error a user can mend: it names the value, the rule and the way out."""


class InputError(ValueError):
    """Bad input from the user; the command line prints its text alone, without a traceback.

    The text names the value, the rule it breaks and the way out, in one line where possible.
    """
