"""Names that anyone may have chosen, written where they could be read as something else."""

import re
import shlex


def terminal(text: str, keep: str = "\n\t") -> str:
    r"""Return a text without what a terminal obeys: such characters are escaped.

    >>> terminal("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c in keep or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    r"""Return a name as one line of a terminal.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return terminal(text, keep="")


def shell(text: str) -> str:
    """Return a word of a shell script; one that is not printable is a ValueError."""
    if not text.isprintable():
        raise ValueError(f"{one_line(text)!r} is no word of a script: name it otherwise")
    return shlex.quote(text)


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, also inside a table.

    >>> markdown("a|b <c>")
    'a\\\\|b &lt;c>'
    """
    text = one_line(" ".join(text.split())).replace("\\", "\\\\").replace("<", "&lt;")
    return re.sub(r"([|`*\[\]])", r"\\\1", text)
