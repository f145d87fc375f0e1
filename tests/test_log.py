"""How far work is: a bar on a terminal, lines in a file."""

import logging

import pytest

import hpcgeo.log
from hpcgeo.log import track


@pytest.fixture
def told(monkeypatch, caplog):
    """Return a log of what is said, with a line after every item."""
    monkeypatch.setattr(hpcgeo.log, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(hpcgeo.log, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(hpcgeo.log.log, "propagate", True)
    caplog.set_level(logging.INFO, "hpcgeo")
    return caplog


def test_a_file_is_told_how_much_is_left(told):
    assert list(track([7, 8], "fits")) == [7, 8]
    said = told.messages
    assert [line.partition(" of ")[0] for line in said] == ["fits: 1", "fits: 2"]
    assert said[0].startswith("fits: 1 of 2, ") and said[1] == "fits: 2 of 2, 0 s left"


def test_of_items_without_a_number_only_those_that_are_done(told):
    assert list(track(iter([7, 8]), "samples")) == [7, 8]
    assert told.messages == ["samples: 1", "samples: 2"]


def test_ranks_that_are_not_shown_are_silent(told):
    assert list(track([7, 8], "fits", shown=False)) == [7, 8]
    assert not told.messages
