"""Names from anyone, where they could be read as something else."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.quoting import markdown, one_line, shell, terminal

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@given(TEXT)
def test_a_terminal_has_nothing_to_obey(text):
    shown = terminal(text)
    assert all(c in "\n\t" or c.isprintable() for c in shown)
    assert "\n" not in one_line(text) and one_line(text).isprintable()
    assert shown == text or not text.replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize(
    "word", ["a b", "$(touch x)", "`id`", "a'b\"c", "*", "~", "", "-x", "a;b&c", "é ß", "\\"]
)
def test_a_shell_gets_the_word_itself(word):
    text = f"printf %s {shell(word)}"
    assert subprocess.check_output(["bash", "-c", text], text=True) == word


@pytest.mark.parametrize("word", ["a\nb", "a\x1bb", "a\0b"])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(ValueError, match="is no word of a script"):
        shell(word)


def test_markdown_stays_in_its_cell():
    assert markdown("a|b\nc [d](e) <img>") == r"a\|b c \[d\](e) &lt;img>"
