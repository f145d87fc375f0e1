"""The table of a sweep: what it says, and which rows it shows where not all have room."""

import logging

import pytest

from hpcgeo.sweep.progress import Board


def test_changes_are_said_once_where_nobody_looks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hpcgeo")
    with Board(["a", "b"], [("waiting", ""), ("recorded", "9 images/s")]) as board:
        for _ in range(2):
            board.set(0, "running")
        board.set(0, "noisy", "3 images/s")
    assert [record.getMessage() for record in caplog.records] == [
        "a: running",
        "a: noisy, 3 images/s",
    ]
    assert str(board) == "a: noisy, 3 images/s\nb: recorded, 9 images/s"
    assert board.total == "1 measured, 0 failed, 1 recorded; 1 of the measured noisy"


def test_what_runs_and_ended_last_is_shown() -> None:
    board = Board([str(number) for number in range(90)], [("waiting", "")] * 90)
    for index in range(40):
        board.set(index, "running")
        if index > 1:
            board.set(index, "failed", "x")
    shown = [row.label for row in board._visible()]
    assert shown[:4] == ["1", "0", "39", "38"] and "40" in shown and "89" not in shown
