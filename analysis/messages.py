"""What a rank sends in one message: as measured where traffic was recorded, else in closed form."""

from dataclasses import dataclass

from hpcgeo.measured import Traffic
from hpcgeo.strategies import strategies
from hpcgeo.zoo import models
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.winners import shared_by

#: Collectives whose message is sharded over the ranks of their group.
SHARDED = ("all_gather", "reduce_scatter")

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Message:
    """What each rank of a group holds of one message."""

    collective: str
    ranks: int
    rank_bytes: float
    measured: bool


def of_point(point: StudyPoint) -> Message | None:
    """Return the message of the collective that takes most time and is sharded over a group."""
    return _measured(point) or _computed(point)


def _measured(point: StudyPoint) -> Message | None:
    sharded: list[Traffic] = [
        moved for record in point.records for moved in record.traffic if moved.collective in SHARDED
    ]
    if not sharded:
        return None
    most = max(sharded, key=lambda moved: moved.seconds)
    return Message(most.collective, most.ranks, most.message_bytes / most.ranks, True)


def _computed(point: StudyPoint) -> Message | None:
    """One block of the encoder, where strategy, architecture and precision are known."""
    record = point.first
    row, model, ranks = (
        strategies().get(record.strategy),
        models().get(record.model),
        shared_by(point),
    )
    if row is None or model is None or record.dtype not in _BYTES or row.parameters == "none":
        return None
    if ranks is None or ranks < 2:
        return None
    whole = model.encoder.parameters / model.encoder.depth * _BYTES[record.dtype]
    return Message("all_gather", ranks, whole / ranks, False)
