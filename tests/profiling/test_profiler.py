"""A profile run on real ranks: what it says of a step, and of faults that were put into it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpcgeo.objectives.mae.objective import forms
from hpcgeo.profiling.profiler import TRACED_STEPS, settled
from hpcgeo.records import Record, read
from hpcgeo.zoo import architecture
from tests.processes import hpcgeo
from tests.profiling import injected
from tests.ranks import ended, launch

ALL = ["launch.threads=1", "train.micro_batch=4", "train.dtype=float32"]
SMALL = [*ALL, "data.chip=32"]


def profile(
    records: Path,
    ranks: int,
    strategy: str,
    *words: object,
    fault: Callable[[], None] | None = None,
    recipe: Sequence[str] = ("mae_vit_tiny", *SMALL),
) -> Record:
    """Measure a tiny run on real ranks; return its record."""
    command = ["profile", "run", *recipe, f"parallel.strategy={strategy}", *words]
    code, said = ended(launch(ranks, *command, "--steps", 6, "--records", records, before=fault))
    assert code == 0, said
    return read([records])[-1]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles") / "records.jsonl"


@pytest.fixture(scope="module")
def sharded(records: Path) -> Record:
    """FULL_SHARD on 2 ranks, with traces."""
    return profile(records, 2, "FULL_SHARD", "--trace", records.parent / "traces")


def consistent(record: Record) -> None:
    assert record.step_s is not None and len(record.step_s.values) == 6
    assert record.warmup_steps and record.warmup_steps >= 5 and record.stable is not None
    assert record.images_per_s == pytest.approx(record.global_batch / record.step_s.median)
    assert record.global_batch == 4 * record.world_size
    forward = forms(architecture("vit_tiny"), 3, (32, 32), 0.75).forward_flops
    assert record.model_flops == 3 * forward * record.global_batch
    assert record.peak_source == "measured" and record.peak_flops_per_s
    available = record.peak_flops_per_s * record.world_size * record.step_s.median
    assert record.mfu == pytest.approx(record.model_flops / available)
    assert record.data_wait_s is not None and 0 <= record.data_wait_s < record.step_s.median
    assert record.peak_memory_bytes and record.peak_memory_bytes > 2**27
    assert record.memory_source == "resident"
    assert record.versions["torch"] and record.command and "profile run" in record.command
    assert record.config is not None and "run" not in record.config
    phases, activity, check = record.phases, record.activity, record.cross_check
    assert phases is not None and activity is not None and check is not None
    named = phases.model_dump(exclude={"step_s"})
    assert min(named.values()) >= 0
    assert sum(named.values()) == pytest.approx(phases.step_s)
    assert phases.other_s < 0.03 * phases.step_s
    parts = activity.model_dump(exclude={"step_s", "comm_s"})
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(activity.step_s, rel=1e-6)
    assert activity.exposed_comm_s <= activity.comm_s * (1 + 1e-6)
    assert check.calls[0] == check.calls[1] == pytest.approx(sum(t.calls for t in record.traffic))
    assert check.step_s[0] == pytest.approx(check.step_s[1], rel=0.03)
    memory, predicted = record.memory, record.predicted_memory
    assert memory is not None and predicted is not None
    assert memory.parameters_bytes == predicted.parameters_bytes
    assert memory.optimizer_bytes == pytest.approx(predicted.optimizer_bytes, rel=0.01)
    assert memory.batch_bytes == pytest.approx(predicted.batch_bytes, rel=0.02)
    assert memory.phase in ("forward", "backward")
    assert memory.peak_resident_bytes and memory.limit_bytes and memory.peak_allocated_bytes is None
    assert record.counted_flops == pytest.approx(record.executed_flops, rel=0.02)
    assert record.hfu and record.mfu and record.product_flops_per_s == record.peak_flops_per_s


@pytest.mark.long
def test_a_mixture_on_two_ranks(tmp_path: Path) -> None:
    recipe = ("gpna_tiny", *ALL, "data.batching.mode=dbscan", "data.batching.max_padding=64")
    record = profile(tmp_path / "records.jsonl", 2, "FULL_SHARD", recipe=recipe)
    assert record.mixed and record.chip is None and record.bands is None
    assert record.tokens_per_s and record.padding is not None and record.images_per_s
    assert len(record.tokens_per_s.values) == 6
    assert record.tokens_per_s.p10 > 3 * record.images_per_s  # the shortest samples have 4 tokens
    assert 0 < record.padding < 0.5
    # Steps differ in their tokens: the work of one is not that of the step at the median.
    assert record.counted_flops and record.model_flops is record.mfu is record.hfu is None
    assert record.phases and record.activity and record.memory and record.traffic
    assert min(record.phases.model_dump().values()) >= 0
    assert record.memory.activations_bytes and record.predicted_memory is None
    assert record.executed_flops is None


def test_full_shard_on_two_ranks(sharded: Record) -> None:
    consistent(sharded)
    assert sharded.comm_s is not None and sharded.step_s is not None
    assert 0 < sharded.comm_s < sharded.step_s.median
    # Every unit is gathered in forward and backward and reduced once, in float32; the root once.
    model = architecture("vit_tiny")
    blocks = {
        4 * stack.parameters / stack.depth: stack.depth for stack in (model.encoder, model.decoder)
    }
    moved = {(t.collective, t.message_bytes): t.calls for t in sharded.traffic}
    for unit_bytes, depth in blocks.items():
        assert moved["all_gather", unit_bytes] == 2 * depth
        assert moved["reduce_scatter", unit_bytes] == depth
    whole = sum(t.calls * t.message_bytes for t in sharded.traffic if "scatter" in t.collective)
    assert whole == pytest.approx(
        4 * forms(model, 3, (32, 32), 0.75).parameters, rel=0.01
    )  # padding
    assert {t.ranks for t in sharded.traffic} == {2}
    assert sharded.wait is not None and len(sharded.wait.seconds) == 2


def test_the_trace_is_there_for_perfetto(sharded: Record, records: Path) -> None:
    for rank in (0, 1):
        trace = json.loads((records.parent / "traces" / f"rank{rank}.json").read_text())
        names = [event["name"] for event in trace["traceEvents"]]
        assert names.count("hpcgeo:step") == names.count("hpcgeo:forward") == TRACED_STEPS


@pytest.mark.parametrize("strategy", ["DDP", pytest.param("ZERO1", marks=pytest.mark.long)])
def test_other_ways_to_spread(records: Path, strategy: str) -> None:
    record = profile(records, 2, strategy)
    consistent(record)
    reduced = sum(t.calls * t.message_bytes for t in record.traffic if t.message_bytes > 64)
    assert reduced >= 4 * forms(architecture("vit_tiny"), 3, (32, 32), 0.75).parameters


def test_alone_nothing_is_moved(records: Path) -> None:
    record = profile(records, 1, "DDP")
    consistent(record)
    assert all(t.bus_bytes_per_s is None for t in record.traffic)
    assert record.wait is not None and record.wait.straggler is None


@pytest.mark.long
def test_communication_left_out(records: Path, sharded: Record) -> None:
    record = profile(records, 2, "FULL_SHARD", "--communication", "off")
    assert record.communication == "off" and record.comm_s is None and not record.traffic
    assert record.key != sharded.key
    assert {**record.key, "communication": "on"} == sharded.key


@pytest.mark.slow
def test_a_late_rank_is_named(records: Path) -> None:
    record = profile(records, 4, "FULL_SHARD", fault=injected.slow_rank)
    assert record.wait is not None and record.wait.straggler == 2
    assert record.wait.late_s is not None
    assert 0.5 * injected.LATE_S < record.wait.late_s < 10 * injected.LATE_S
    assert record.wait.late_ranks == 1
    assert record.wait.host == record.hosts[0]
    assert record.phases is not None and record.phases.data_wait_s < 0.5 * injected.LATE_S


@pytest.mark.long
def test_a_slow_loader_is_waiting_for_data(records: Path) -> None:
    slow = profile(records, 2, "DDP", fault=injected.slow_loader)
    assert slow.phases is not None and slow.phases.data_wait_s >= 0.05
    assert slow.data_wait_s is not None and slow.data_wait_s >= 0.05
    cached = profile(records, 2, "DDP", "--data", "synthetic", fault=injected.slow_loader)
    assert cached.phases is not None and cached.phases.data_wait_s < 0.05
    assert cached.data == "cached"


def test_what_was_measured_outlives_what_is_observed_later(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    command = ["profile", "run", "mae_vit_tiny", *SMALL, "--steps", 6, "--records", records]
    done = hpcgeo(*command, before=injected.failing_observer)
    assert done.returncode == 1 and "no memory left to follow memory" in done.stderr
    (record,) = read([records])
    assert record.step_s is not None and len(record.step_s.values) == 6
    assert record.phases is not None and record.predicted_memory is not None
    assert record.memory is None and record.activity is None and record.counted_flops is None


def test_a_run_that_is_stopped_early_is_not_recorded(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    command = ["profile", "run", "mae_vit_tiny", *SMALL, "launch.time_limit=0.001"]
    done = hpcgeo(*command, "--records", records)
    assert done.returncode == 2
    assert "nothing is recorded; give the run more time" in done.stderr
    assert not records.exists()


def test_zero_3_cannot_be_without_communication(tmp_path: Path) -> None:
    command = ["profile", "run", "mae_vit_tiny", "parallel.strategy=ZERO3"]
    done = hpcgeo(*command, "--communication", "off", cwd=tmp_path)
    assert done.returncode == 2 and "ZERO3 compares its ranks" in done.stderr


def test_warm_up_ends_where_steps_no_longer_get_faster() -> None:
    assert not settled([3.0])
    assert not settled([3.0, 1.0])
    assert not settled([5, 4, 3, 2.5, 2, 1.8, 1.7, 1.6, 1.5, 1.4])
    assert settled([5, 4, 3, 2.5, 2, 1, 1.01, 1.0, 1.02, 1.0, 1.0, 1.0, 1.01, 1.03, 0.99])
    assert settled([1.0] * 5 + [2.0] * 5)  # slower is another matter: its spread will show
