"""Links of a measured machine: the fit and the cliffs of made curves, and the file read back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgeo.errors import InputError
from hpcgeo.measured import Spread, Transfer
from hpcgeo.plan import links
from hpcgeo.plan.links import LinkPoint, bytes_of, cliffs, fit, in_words
from hpcgeo.records import LinksRecord

SIZES = [2**power for power in range(10, 27)]
NOISE = 0.05

#: Message bytes and microseconds of all_gather on 4 nodes of MI250X, from ROCm/rccl issue 1490.
RCCL = {
    **{65536: 107.5, 131072: 210.0, 262144: 211.1},
    **{524288: 692.3, 1048576: 1456.6, 2097152: 70248},
}


def made(seconds: list[float], seed: int) -> list[LinkPoint]:
    """Return points as 40 noisy repetitions of each size would give."""
    rng = np.random.default_rng(seed)
    points = []
    for size, time in zip(SIZES, seconds, strict=True):
        spread = Spread.of(list(time * rng.lognormal(0, NOISE, 40)))
        points.append(
            LinkPoint(message_bytes=size, seconds=spread.median, p10_s=spread.p10, p90_s=spread.p90)
        )
    return points


latencies, bandwidths = st.floats(1e-6, 1e-3), st.floats(1e8, 1e11)
seeds = st.integers(0, 2**32)


@given(latencies, bandwidths, seeds)
def test_the_fit_finds_what_made_the_curve(latency: float, bandwidth: float, seed: int) -> None:
    points = made([latency + size / bandwidth for size in SIZES], seed)
    sizes, seconds = [p.message_bytes for p in points], [p.seconds for p in points]
    found_latency, found_bandwidth, residual = fit(sizes, seconds)
    assert residual < NOISE
    assert found_bandwidth is not None
    ends = np.array([SIZES[0], SIZES[-1]])
    true, found = latency + ends / bandwidth, found_latency + ends / found_bandwidth
    assert found == pytest.approx(true, rel=NOISE)
    assert cliffs(points) == []


@given(
    latencies,
    bandwidths,
    seeds,
    st.integers(8, len(SIZES) - 1),
    st.integers(1, 5),
    st.floats(8, 100),
)
def test_a_cliff_is_found_where_it_was_put(
    latency: float, bandwidth: float, seed: int, first: int, length: int, factor: float
) -> None:
    seconds = [latency + size / bandwidth for size in SIZES]
    slow = seconds[first - 1] / SIZES[first - 1] * factor  # a byte, against the best before
    for place in range(first, min(first + length, len(SIZES))):
        seconds[place] = SIZES[place] * slow
    points = made(seconds, seed)
    [cliff] = cliffs(points)
    after = first + length
    assert cliff.begins_bytes == SIZES[first] and cliff.from_bytes < SIZES[first]
    assert SIZES[first] <= cliff.lowest_bytes
    assert cliff.lowest_bytes_per_s * links.CLIFF < cliff.from_bytes_per_s
    assert cliff.recovers_bytes == (SIZES[after] if after < len(SIZES) else None)


def test_a_cliff_within_its_spread_is_none() -> None:
    """One rank that is late now and then moves a median, and leaves the fast end where it was."""
    small = LinkPoint(message_bytes=1024, seconds=1e-4, p10_s=0.9e-4, p90_s=1.1e-4)
    wide = LinkPoint(message_bytes=2048, seconds=9e-4, p10_s=1.2e-4, p90_s=9e-3)
    assert cliffs([small, wide]) == []
    narrow = wide.model_copy(update={"p10_s": 8e-4})
    assert len(cliffs([small, narrow])) == 1


def test_a_published_cliff_in_words() -> None:
    times = RCCL | {2**25: 2500.0}  # the last one is made: the issue says it recovers
    spreads = {size: Spread.of([time * 1e-6] * 10) for size, time in times.items()}
    record = record_of(
        [transfer(size, spread, group="all", ranks=32) for size, spread in spreads.items()]
    )
    [curve] = links.of(record).curves
    assert curve.sentences() == [
        "all_gather over all (32 ranks): bandwidth falls from 1.24 GB/s at 256 KiB to 0.0299 GB/s "
        "at 2 MiB, recovers at 32 MiB"
    ]
    # The sizes inside the cliff are left out of the fit: it stays within what the others say.
    assert curve.bandwidth_bytes_per_s == pytest.approx(2**25 / 2500e-6, rel=0.5)


def transfer(size: int, seconds: Spread, **fields: object) -> Transfer:
    rate = size / seconds.median
    values: dict[str, object] = {"collective": "all_gather", "group": "all", "ranks": 4, "nodes": 2}
    return Transfer(
        **{**values, **fields},
        message_bytes=size,
        seconds=seconds,
        algorithm_bytes_per_s=rate,
        bus_bytes_per_s=rate,
    )


def record_of(transfers: list[Transfer]) -> LinksRecord:
    return LinksRecord(
        kind="measured",
        machine="local",
        device="CPU, 1 thread",
        hosts=["a", "b"],
        nodes=2,
        world_size=4,
        backend="gloo",
        transfers=transfers,
        versions={"torch": "2.13"},
        environment={"NCCL_DEBUG": "1e5"},
        created="2026-01-01T00:00:00+00:00",
    )


@settings(max_examples=10)
@given(latency=latencies, bandwidth=bandwidths, seed=seeds)
def test_the_file_comes_back(
    tmp_path_factory: pytest.TempPathFactory, latency: float, bandwidth: float, seed: int
) -> None:
    points = made([latency + size / bandwidth for size in SIZES], seed)
    spreads = [Spread(median=p.seconds, p10=p.p10_s, p90=p.p90_s) for p in points]
    record = record_of(
        [
            transfer(size, spread, group=group)
            for group in ("all", "pair")
            for size, spread in zip(SIZES, spreads, strict=True)
        ]
    )
    found = links.of(record)
    file = tmp_path_factory.mktemp("links") / "links.yaml"
    links.write(file, found)
    assert links.read(file) == found
    assert found.curve("all_gather", "pair").group == "pair"
    assert found.curve("all_gather", "node").group == "all", "node was the same as all"
    with pytest.raises(InputError, match="all_reduce over all was not measured on local"):
        found.curve("all_reduce", "all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2", "version"),
        ("version: 1\nspeed: 3", "machine"),
        ("curves: [", "not YAML"),
        ("[]", "machine file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "links.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        links.read(file)
    with pytest.raises(InputError, match="No such file"):
        links.read(tmp_path / "none.yaml")


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    found = links.of(record_of([transfer(1024, Spread.of([1e-3]))]))
    file = tmp_path / "links.yaml"
    links.write(file, found)
    file.write_text(file.read_text() + "speed: 3\n")
    with pytest.raises(InputError, match=r"links\.yaml: unknown key 'speed'"):
        links.read(file)


def test_one_size_says_no_bandwidth() -> None:
    [curve] = links.of(record_of([transfer(1024, Spread.of([1e-3]))])).curves
    assert (curve.latency_s, curve.bandwidth_bytes_per_s) == (pytest.approx(1e-3), None)
    assert str(curve) == (
        "all_gather over all (4 ranks): 1,000.0 us, no more for 1 KiB: try larger messages; a size "
        "deviates by 0%"
    )


def test_a_curve_in_words() -> None:
    rows = [transfer(size, Spread.of([1e-4 + size / 2e9])) for size in SIZES]
    [curve] = links.of(record_of(rows)).curves
    said = "all_gather over all (4 ranks): 100.0 us, then 2 GB/s; a size deviates by 0%"
    assert str(curve) == said


@pytest.mark.parametrize(
    ("text", "size"),
    [("24KB", 24_000), ("24 KiB", 24_576), ("1gib", 2**30), ("512", 512), ("0.5 MiB", 2**19)],
)
def test_sizes_with_units(text: str, size: int) -> None:
    assert bytes_of(text) == size
    assert bytes_of(in_words(size)) == size


@given(st.integers(1, 10**15 - 1))
def test_sizes_in_words_come_back(size: int) -> None:
    assert bytes_of(in_words(size).replace(",", "")) == size


@given(st.text(max_size=12))
def test_what_is_no_size_is_refused(text: str) -> None:
    try:
        assert bytes_of(text) >= 1
    except InputError as error:
        assert "is no size" in str(error)


@pytest.mark.parametrize("text", ["", "KB", "-1", "1K", "24 kilobytes", "0", "1e3", "0.1 B"])
def test_unknown_sizes(text: str) -> None:
    with pytest.raises(InputError, match=r"is no size: write a number with B, KB"):
        bytes_of(text)
