"""What a rank sends in one message: as measured where traffic was recorded, else in closed form."""

from dataclasses import dataclass

from hpcgeo.errors import InputError
from hpcgeo.measured import Traffic
from hpcgeo.strategies import strategies
from hpcgeo.zoo import models
from hpcgeo_analysis.formatting import size
from hpcgeo_analysis.points import StudyPoint

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


def change(before: StudyPoint, after: StudyPoint) -> str:
    """Return how messages change between two points of one line, as the end of a sentence."""
    first, second = of_point(before), of_point(after)
    if first is None or second is None or first.measured != second.measured:
        return ""
    if first.collective != second.collective or second.rank_bytes >= first.rank_bytes:
        return ""
    words = f"its {second.collective} messages fall from {size(first.rank_bytes)} to "
    words += f"{size(second.rank_bytes)} a rank"
    if second.measured:
        return f"; {words} (measured)"
    return f"; {words} (computed: one block in {after.first.dtype} over {second.ranks:,} ranks)"


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
    row, model = strategies().get(record.strategy), models().get(record.model)
    if row is None or model is None or record.dtype not in _BYTES or row.parameters == "none":
        return None
    try:
        ranks = row.shard_size(record.world_size, record.group_size)
    except InputError:
        return None
    if ranks < 2:
        return None
    whole = model.encoder.parameters / model.encoder.depth * _BYTES[record.dtype]
    return Message("all_gather", ranks, whole / ranks, False)
