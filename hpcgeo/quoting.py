"""Names that anyone may have chosen, written where they could be read as something else."""

import re
import shlex
from collections.abc import Mapping, Sequence


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


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """Return a line for each reason, with the names it holds for; reasons that differ in numbers
    alone are one.

    >>> grouped({"a": "3 bytes", "b": "4 bytes", "c": "gone", "d": "gone"})
    ['a: 3 bytes; likewise 1 more (b)', '2 files (c, d): gone']
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(re.sub(r"[\d.,]+", "", reason), []).append(name)
    lines = []
    for first, *others in groups.values():
        reason = one_line(reasons[first])
        if not others:
            lines.append(f"{one_line(first)}: {reason}")
        elif len({reasons[name] for name in (first, *others)}) == 1:
            lines.append(f"{len(others) + 1:,} files ({_some([first, *others])}): {reason}")
        else:
            lines.append(
                f"{one_line(first)}: {reason}; likewise {len(others):,} more ({_some(others)})"
            )
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(one_line, names[:3])) + (", ..." if len(names) > 3 else "")


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
