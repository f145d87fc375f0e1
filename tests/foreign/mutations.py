"""What a stranger may have done to a file: texts, bytes and trees of values, changed at random."""

import copy
import math
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.distributed import ALL

#: The same examples every time, a thousand with HPCGEO_ALL; HPCGEO_EXAMPLES=100000 looks for new
#: ones.
EXAMPLES = int(os.environ.get("HPCGEO_EXAMPLES", 1000 if ALL else 200))
many = settings(
    max_examples=EXAMPLES,
    derandomize="HPCGEO_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

#: Pieces of YAML and JSON that have troubled readers before.
SNIPPETS = (
    *(
        "2024-99-99",
        "0b_",
        "0x_",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!binary é",
    ),
    *("!!python/object/apply:os.system [ls]", "!!set {a}", "? [a]", "<<: 1", "&a [*a]", "*a", "- "),
    *("[" * 3000, "{a: " * 500, '[{"a": ' * 500, "9" * 5000, "1e999", "-.inf", ".nan", "NaN"),
    *("\x00", '"\\0"', '"\\ud800"', "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")),
    *("\ufeff", "\u2028", "\x85", "%YAML 9.9\n---", "---\n---", "~", "null", "true", "-1", "0"),
    *(str(2**60), str(2**64), "1:60:60", "=", ":", "\t", "{}", "[]", "''", "é", "a: &x\nb: *x"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**60, 2**64, 10**400, -0.0, 0.5, 1e308, math.inf, -math.inf),
    *(math.nan, "", "x", "\x00", "../x", "/etc/passwd", "object", "O", "float64", "é", "9" * 5000),
    *([], [1], [None], [[[]]], {}, {"x": 1}, [0.1] * 100, "a" * 300),
)

_place = st.integers(0, 2**16)


@st.composite
def texts(draw: st.DrawFn, text: str) -> bytes:
    """Bytes of a text in which some lines, values or characters are not what they were."""
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(_place) % max(1, len(lines))
        snippet = draw(st.sampled_from(SNIPPETS) | st.text(max_size=6))
        line = lines[at] if lines else ""
        key, colon, _ = line.partition(":")
        column = draw(_place) % (len(line) + 1)
        lines[at : at + 1] = draw(
            st.sampled_from(
                [
                    [f"{key}{colon} {snippet}\n"],
                    [line[:column] + snippet + line[column:]],
                    [line[:column], snippet],
                    [line, f"{snippet}\n"],
                    [line, line],
                    [],
                ]
            )
        )
    changed = "".join(lines).encode("utf-8", "surrogatepass")
    return draw(damaged(changed)) if draw(st.integers(0, 4)) == 0 else changed


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that a disk, or someone with an editor, has changed."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        size = draw(st.sampled_from([1, 1, 2, 4, 8]))
        what = draw(st.sampled_from(["flip", "set", "set", "cut", "end", "add"]))
        if what == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            found[at : at + size] = draw(st.sampled_from([b"\xff", b"\0", b"\x7f"])) * size
        elif what == "cut":
            del found[at : at + size]
        elif what == "end":
            del found[at:]
        else:
            found[at:at] = draw(st.binary(max_size=8))
    return bytes(found)


@st.composite
def trees(draw: st.DrawFn, tree: Any) -> Any:
    """A tree of dicts and lists in which some values are others, gone, or twice there."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        above: Any = None
        key: Any = None
        at = tree
        while isinstance(at, dict | list) and at and (above is None or draw(st.integers(0, 5))):
            above = at
            keys = list(at) if isinstance(at, dict) else range(len(at))
            key = draw(st.sampled_from(keys))
            at = at[key]
        if above is None:
            continue
        what = draw(st.sampled_from(["set", "set", "set", "drop", "add"]))
        value = copy.deepcopy(draw(st.sampled_from(VALUES)))
        if what == "drop":
            del above[key]
        elif what == "set":
            above[key] = value
        elif isinstance(above, list):
            above.insert(key, copy.deepcopy(at))
        else:
            above[draw(st.sampled_from(["x", "", "name"]))] = value
    return tree
