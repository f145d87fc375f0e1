"""FLOPs counted in a step against the closed form."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from hpcgeo.objectives.mae.objective import forms
from hpcgeo.options import Parallel
from hpcgeo.parallel import recompute
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import Topology
from hpcgeo.profiling.flops import Counter, counted
from hpcgeo.profiling.memory import observe
from tests.distributed import on_ranks
from tests.parallel.training import BANDS, CHIP, GLOBAL_BATCH, TINY, build, run

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm"}


def flops(options: dict[str, Any], dtype: str, accumulate: int) -> float:
    engine, topology = build(options, dtype=dtype, accumulate=accumulate, model=TINY)
    step = partial(run, engine, topology, [0], accumulate)
    (losses, _), total = counted(step, topology.device, Parallel(**options))
    assert losses[0] > 0 and total is not None
    return total


@pytest.mark.parametrize(
    ("ranks", "options", "dtype", "accumulate"),
    [
        (1, {"strategy": "DDP"}, "float32", 1),
        (2, {"strategy": "FULL_SHARD"}, "bfloat16", 2),
        (1, {"strategy": "DDP", "recompute": "full"}, "float32", 1),
        (2, {"strategy": "FULL_SHARD", "recompute": "full"}, "float32", 1),
        (1, {"strategy": "FULL_SHARD", "recompute": 2}, "float32", 1),
        (1, {"strategy": "FULL_SHARD", "recompute": "selective"}, "float32", 1),
        (2, {"strategy": "ZERO3"}, "float32", 1),
    ],
    ids=str,
)
def test_counted_is_the_closed_form(
    ranks: int, options: dict[str, Any], dtype: str, accumulate: int
) -> None:
    closed = forms(TINY, BANDS, (CHIP, CHIP), 0.75)
    form = GLOBAL_BATCH * closed.executed_flops(options.get("recompute", "none"))
    totals = on_ranks(flops, ranks, options, dtype, accumulate)
    assert len(set(totals)) == 1
    assert totals[0] == pytest.approx(form, rel=0.01)
    thrice = 3 * closed.forward_flops * GLOBAL_BATCH
    recomputes = options.get("recompute") in ("full", 2)
    assert totals[0] > 1.1 * thrice if recomputes else totals[0] < 1.01 * thrice


def products(engine: Engine, topology: Topology) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run(engine, topology, [1])
    return sum(event.name in PRODUCTS for event in trace.events() or [])


def compiled_and_not(recompute: str) -> tuple[list[int], float | None]:
    """Return the products of a step as written, compiled, and compiled after all was observed."""
    options: dict[str, Any] = {"strategy": "DDP", "recompute": recompute}
    plain = build(options)
    run(*plain, [0])
    seen = [products(*plain)]
    options["compile"] = True
    engine, topology = build(options)
    run(engine, topology, [0])
    seen.append(products(engine, topology))
    step = partial(run, engine, topology, [1])
    _, total = counted(step, topology.device, Parallel(**options))
    _, memory = observe(engine, topology, step, compiled=True)
    assert memory.activations_bytes and memory.other_bytes is None
    seen.append(products(engine, topology))
    return seen, total


@pytest.mark.long
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_compiled_units(recompute: str) -> None:
    """As written they run the same products; with recompute they do not, and nothing is said."""
    [((plain, compiled, after), total)] = on_ranks(compiled_and_not, 1, recompute)
    assert compiled == after  # they are still compiled
    if recompute == "none":
        assert compiled == plain and total is not None
    else:
        assert compiled < plain and total is None


def test_attention_of_samples_of_any_length_counts_each_alone() -> None:
    pytest.importorskip("torch.nn.attention.varlen", reason="this PyTorch has no such operator")
    q, kv = (torch.empty(n, 2, 16, dtype=torch.bfloat16, device="meta") for n in (8, 12))
    bounds = [torch.tensor(ends, dtype=torch.int32) for ends in ([0, 4, 8], [0, 5, 12])]
    operator = torch.ops.torch_attn._varlen_attn
    with Counter() as counter:
        operator(q, kv, kv, *bounds, 4, 7)
    assert counter.total == 2 * 2 * 2 * 16 * (4 * 5 + 4 * 7)
    assert operator.default.name() in recompute.PRODUCTS  # and `selective` keeps what it computes
