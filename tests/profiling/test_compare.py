"""`hpcgeo-profile compare`: verdicts, exit codes, messages, and how often its interval is right."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.errors import InputError
from hpcgeo.measured import Spread
from hpcgeo.profiling.compare import RecordComparison, compare
from hpcgeo.profiling.intervals import interval
from hpcgeo.records import Record, append
from tests.processes import hpcgeo

GIB = 2**30


def steps(
    rng: np.random.Generator, count: int, *, correlation: float = 0.0, between: float = 0.0
) -> list[float]:
    """Return step times around 0.1 s: lognormal, 3 %, and `between` from run to run."""
    noise = rng.standard_normal(count)
    for place in range(1, count):
        noise[place] *= np.sqrt(1 - correlation**2)
        noise[place] += correlation * noise[place - 1]
    return list(0.1 * np.exp(0.03 * noise + between * rng.standard_normal()))


def coverage(runs: tuple[int, int], correlation: float, between: float) -> float:
    """Return how often the interval of 95 % holds the true ratio, which is 1."""
    rng, held, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        sides = [
            [steps(rng, 20, correlation=correlation, between=between) for _ in range(count)]
            for count in runs
        ]
        found = interval(sides[0], sides[1], 0.95)
        assert found
        held += found[0] <= 1 <= found[1]
    return held / trials


@pytest.mark.parametrize(
    ("runs", "correlation", "between", "least", "most"),
    [
        ((1, 1), 0.0, 0.0, 0.93, 0.99),
        ((1, 1), 0.5, 0.0, 0.90, 0.98),
        ((1, 1), 0.8, 0.0, 0.75, 0.90),  # too narrow, as the module says
        ((1, 1), 0.5, 0.02, 0.6, 0.85),  # what differs from run to run is not seen in one
        ((3, 3), 0.5, 0.02, 0.92, 0.98),
        ((3, 1), 0.5, 0.02, 0.92, 0.98),
    ],
)
def test_the_interval_holds_the_truth_as_often_as_said(
    runs: tuple[int, int], correlation: float, between: float, least: float, most: float
) -> None:
    assert least <= coverage(runs, correlation, between) <= most


@given(st.floats(0.2, 5), st.integers(0, 2**32), st.integers(10, 60), st.floats(0.5, 0.99))
def test_the_interval_turns_over(factor: float, seed: int, count: int, confidence: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = steps(rng, count), [factor * time for time in steps(rng, count)]
    low, high = interval([a], [b], confidence) or (0, 0)
    turned = interval([b], [a], confidence)
    assert turned == (pytest.approx(1 / high), pytest.approx(1 / low))
    assert low <= np.median(b) / np.median(a) <= high
    wider = interval([a], [b], 0.995)
    assert wider and wider[0] <= low and high <= wider[1]


def point(strategy: str = "DDP", factor: float = 1.0, seed: int = 0, **fields: Any) -> Record:
    """Return a record with the step times of one run."""
    step_s = Spread.of([factor * time for time in steps(np.random.default_rng(seed), 20)])
    values = {
        "kind": "measured",
        "machine": "testbed",
        "device": "CPU, 1 thread",
        "nodes": 1,
        "world_size": 2,
        "model": "vit_tiny",
        "objective": "mae",
        "chip": (64, 64),
        "strategy": strategy,
        "dtype": "float32",
        "micro_batch": 8,
        "accumulate": 1,
        "global_batch": 16,
        "data": "synthetic",
        "step_s": step_s,
        "images_per_s": 16 / step_s.median,
        "peak_memory_bytes": GIB,
        "memory_source": "resident",
        "versions": {"torch": "2.13.0"},
        "commit": "0123456789abcdef",
        "created": "2026-01-02T03:04:05Z",
    }
    return Record.model_validate(values | fields)


def compared(
    folder: Path, a: list[Record], b: list[Record], *between: str, tolerance: float = 0.02
) -> RecordComparison:
    paths = [folder / "a.jsonl", folder / "b.jsonl"]
    for path, records in zip(paths, (a, b), strict=True):
        path.unlink(missing_ok=True)
        for record in records:
            append(path, record)
    return compare(*paths, tolerance=tolerance, confidence=0.95, between=between)


@pytest.mark.parametrize(
    ("factor", "tolerance", "verdict"),
    [
        (1.10, 0.02, "slower"),
        (0.90, 0.02, "faster"),
        (1.002, 0.0, "within noise"),
        (1.08, 0.2, "within tolerance"),
    ],
)
def test_verdicts(tmp_path: Path, factor: float, tolerance: float, verdict: str) -> None:
    later = point(factor=factor, seed=1, commit="fedcba", created="2027-01-01")
    [pair] = compared(tmp_path, [point()], [later], tolerance=tolerance).pairs
    assert pair.verdict == verdict and pair.worse is (verdict == "slower")
    assert pair.ratio == pytest.approx(factor, rel=0.03)
    assert pair.low and pair.high and pair.low < pair.ratio < pair.high


def test_one_run_a_side_is_said_and_repeats_are_joined(tmp_path: Path) -> None:
    found = compared(tmp_path, [point()], [point(seed=1)])
    assert found.notes == ["one run a side: the interval covers noise within a run only"]
    a, b = ([point(seed=seed, factor=1 + seed / 1000) for seed in range(n, n + 3)] for n in (0, 3))
    found = compared(tmp_path, a, b)
    assert found.notes == [] and [side.runs for side in (found.pairs[0].a, found.pairs[0].b)] == [
        3,
        3,
    ]
    mixed = compared(tmp_path, [*a[:2], a[2].model_copy(update={"commit": "f"})], b)
    assert mixed.pairs[0].notes == ["A holds 2 commits together"]


def test_memory(tmp_path: Path) -> None:
    for size, change, worse in (
        (GIB * 1.1, "more", True),
        (GIB * 0.9, "less", False),
        (GIB * 1.01, "same", False),
    ):
        [pair] = compared(tmp_path, [point()], [point(peak_memory_bytes=int(size))]).pairs
        assert (pair.verdict, pair.memory, pair.worse) == ("within noise", change, worse)
        assert pair.memory_ratio == pytest.approx(size / GIB)
    [pair] = compared(tmp_path, [point()], [point(memory_source="reserved")]).pairs
    assert pair.memory is None and pair.notes == ["memory was not measured alike"]


def test_failures_are_points(tmp_path: Path) -> None:
    timeless = {"step_s": None, "images_per_s": None, "peak_memory_bytes": None}
    fields = {"status": "failed", "error": "lost a rank", "device": "not started", **timeless}
    fields |= {"environment": {"OMP_NUM_THREADS": "1"}}
    broken = {name: point(name, **fields) for name in ("DDP", "NO_SHARD", "FULL_SHARD")}
    a = [point("DDP"), broken["NO_SHARD"], broken["FULL_SHARD"]]
    b = [broken["DDP"], point("NO_SHARD"), broken["FULL_SHARD"]]
    found = compared(tmp_path, a, b)
    verdicts = {pair.point["layout"]: pair.verdict for pair in found.pairs}
    assert verdicts == {"DDP": "failed", "NO_SHARD": "mended", "FULL_SHARD": "failed in both"}
    assert [pair.worse for pair in found.pairs] == [True, False, False]
    assert found.pairs[0].notes == ["B: lost a rank"]
    assert (found.only_a, found.only_b) == ([], [])
    # A failure that was tried again and worked is none.
    assert not compared(tmp_path, a[:1], [broken["DDP"], point("DDP")]).worse


def test_what_is_on_one_side_only_is_said(tmp_path: Path) -> None:
    newer = point("NO_SHARD", device="GPU", versions={"torch": "2.14"})
    found = compared(tmp_path, [point(), point("NO_SHARD")], [point(), newer, point("ZERO1")])
    assert len(found.pairs) == 1
    assert found.only_a == [
        "vit_tiny NO_SHARD, 2 ranks, micro-batch 8: differs in device (CPU, 1 thread; there GPU)"
    ]
    assert found.only_b[1] == "vit_tiny ZERO1, 2 ranks, micro-batch 8"


def test_keys_that_may_differ(tmp_path: Path) -> None:
    newer = point(dtype="bfloat16", device="GPU")
    with pytest.raises(InputError, match=r"nothing to compare: .* differs in device .*, dtype"):
        compared(tmp_path, [point()], [newer])
    [pair] = compared(tmp_path, [point()], [newer], "dtype", "device").pairs
    assert pair.verdict == "within noise" and "dtype" not in pair.point
    several = r"b.jsonl: .* several values of dtype \(bfloat16, float32\)"
    with pytest.raises(InputError, match=several):
        compared(tmp_path, [point()], [newer, point(device="GPU")], "dtype", "device")
    with pytest.raises(InputError, match=r"unknown key 'devise' \(did you mean 'device'\?\)"):
        compared(tmp_path, [point()], [newer], "devise")
    options = [point(config={"optim": {"clip": clip}}) for clip in (1.0, 2.0)]
    with pytest.raises(InputError, match=r"differs in options \(optim.clip\)"):
        compared(tmp_path, options[:1], options[1:])


def test_versions_and_variables_may_differ_and_are_said(tmp_path: Path) -> None:
    ring, tree = (point(environment={"NCCL_ALGO": name}) for name in ("Ring", "Tree"))
    [pair] = compared(tmp_path, [ring], [tree]).pairs
    assert pair.notes == ["NCCL_ALGO Ring in A, Tree in B"] and "environment" not in pair.point
    newer = point(versions={"torch": "2.14"})
    [pair] = compared(tmp_path, [point()], [newer]).pairs
    assert pair.notes == ["torch 2.13.0 in A, 2.14 in B"]
    # What is the same on both sides comes first; of two others none is the partner.
    found = compared(tmp_path, [point()], [newer, point()])
    assert [pair.notes for pair in found.pairs] == [[]] and len(found.only_b) == 1
    with pytest.raises(InputError, match=r"differs in environment \(NCCL_ALGO Ring; there"):
        compared(tmp_path, [ring], [tree, newer])
    with pytest.raises(InputError, match="--between torch: it may differ without"):
        compared(tmp_path, [point()], [newer], "torch")


def test_launchers_are_no_strangers(tmp_path: Path) -> None:
    torchrun = point(environment={"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"})
    mpirun = point(environment={"OMPI_MCA_btl": "tcp,self"})
    [pair] = compared(tmp_path, [torchrun], [mpirun]).pairs
    assert pair.notes == []


def test_networks_of_several_nodes_are_strangers(tmp_path: Path) -> None:
    for nodes in (1, 2):
        ofi, socket = (point(environment={"NCCL_NET": n}, nodes=nodes) for n in ("OFI", "Socket"))
        if nodes == 1:
            assert compared(tmp_path, [ofi], [socket]).pairs[0].notes == []
            continue
        with pytest.raises(InputError, match=r"transport \(NCCL_NET OFI; there NCCL_NET Socket\)"):
            compared(tmp_path, [ofi], [socket])
        assert compared(tmp_path, [ofi], [socket], "transport").pairs


def test_too_little_to_tell(tmp_path: Path) -> None:
    published = point(step_s=None, kind="published")
    [pair] = compared(tmp_path, [published], [published]).pairs
    assert (pair.verdict, pair.ratio, pair.low) == ("no interval", pytest.approx(1), None)
    assert pair.notes == ["one run a side, and fewer than 10 step times of it"]
    noisy = point(step_s=Spread.of([0.1, 0.2] * 10))
    [pair] = compared(tmp_path, [point()], [noisy]).pairs
    assert pair.notes == ["B is noisy"]
    with pytest.raises(InputError, match="a time, rate or size is not above zero"):
        compared(tmp_path, [point()], [point(images_per_s=0.0)])
    with pytest.raises(InputError, match=r"a\.jsonl: no such file"):
        compared(tmp_path, [], [point()])


def test_exit_codes_and_output(tmp_path: Path) -> None:
    before, after, other = (tmp_path / f"{name}.jsonl" for name in ("before", "after", "other"))
    append(before, point())
    append(after, point(factor=1.2, seed=1))
    append(other, point(model="vit_base"))

    def run(*words: object) -> CompletedProcess[str]:
        return hpcgeo("profile", "compare", *words)

    same = run(before, before)
    assert same.returncode == 0 and "within noise" in same.stdout
    slower = run(before, after)
    assert slower.returncode == 3 and "slower" in slower.stdout
    assert "note: one run a side" in slower.stdout
    as_json = run(after, before, "--json")
    assert as_json.returncode == 0
    assert json.loads(as_json.stdout)["pairs"][0]["verdict"] == "faster"
    nothing = run(before, other)
    assert nothing.returncode == 2 and "nothing to compare" in nothing.stderr
