"""Memory, collectives, stragglers, energy, predictions, omissions: sentences drawn from data."""

import csv
import io

import pytest

from hpcgeo.errors import InputError
from hpcgeo.measured import Energy, Memory, Spread, Wait
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.plots import LineStyles
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render
from hpcgeo_analysis.sections import memory, omissions

GIB = 2**30


def text(records, **options):
    return render(records, **options)["report.md"].decode()


@pytest.mark.parametrize(
    ("least", "sentence"),
    [
        (
            2**29,
            "On 2 devices FULL_SHARD needs least reserved memory of the 2 measured, 0.500 GiB per "
            "rank; DDP most, 1.00 GiB (2.00 x).",
        ),
        (
            2**30 - 10,
            "On 2 devices reserved memory differs by less than 2.0 % between the 2 measured: "
            "1.00 GiB per rank.",
        ),
    ],
)
def test_memory(make, least, sentence):
    records = [
        make(name, 2, peak_memory_bytes=value, memory_source="reserved")
        for name, value in (("DDP", 2**30), ("FULL_SHARD", least))
    ]
    (comparison,) = compare(points(records))
    assert memory.sentences(comparison) == [sentence]


def test_memory_at_the_limit_is_said(whole):
    held = whole("DDP", 1, 0.1).memory.model_copy(update={"limit_bytes": 5 * GIB + GIB // 4})
    (comparison,) = compare(points([whole("DDP", 1, 0.1, memory=held)]))
    assert memory.sentences(comparison) == [
        "On 1 device most is taken by optimizer under DDP (42 % of 4.75 GiB).",
        "DDP on 1 device takes 95 % of the 5.25 GiB of a device.",
    ]


def test_memory_figure_is_stacked_with_its_limit(whole):
    figure = render([whole("DDP", 2, 0.1), whole("FULL_SHARD", 2, 0.1)])
    drawn = figure["figures/memory-1-vit_tiny.svg"].decode()
    for label in ("parameters", "gradients", "optimizer", "activations", "other", "limit: 8"):
        assert label in drawn
    assert "gathered units" not in drawn


def test_kinds_of_memory_stand_in_one_figure_apart(make):
    def held(**peaks):
        return Memory(**{f"peak_{kind}_bytes": value * GIB for kind, value in peaks.items()})

    records = [make("DDP", memory=held(reserved=9, active=5)), make("ZERO1", memory=held(active=4))]
    records += [make("ZERO3", memory=held(active=2))]
    drawn = render(records)["figures/memory-1-vit_tiny.svg"].decode()
    assert "active, not split by cause" in drawn
    assert "reserved" not in drawn
    (comparison,) = compare(points(records))
    assert memory.sentences(comparison) == [
        "On 1 device ZERO3 needs least active memory of the 3 measured, 2.00 GiB per rank; DDP "
        "most, 5.00 GiB (2.50 x)."
    ]


def test_a_cliff_and_its_end_are_found(links, make):
    written = text([make()], links=[links])
    assert (
        "- all_gather (all, 4 ranks on 1 node): bandwidth falls from 2 GB/s at 1 MiB to 0.3 GB/s "
        "at 4 MiB, recovers at 16 MiB." in written
    )


@pytest.mark.parametrize(
    "other",
    [
        {"device": "GPU"},
        {"kind": "published"},
        {"versions": {"torch": "2.14"}},
        {"versions": {"nccl": "2.29"}},
        {"environment": {"NCCL_ALGO": "Tree"}},
    ],
)
def test_curves_of_unlike_links_are_not_one(links, other):
    """Every second size was measured elsewhere, three times as slow: no curve has a cliff."""
    rising = [moved for moved in links.transfers if moved.message_bytes != 2**22]
    slow = [
        moved.model_copy(
            update={
                "message_bytes": 2 * moved.message_bytes,
                "seconds": Spread.of([6 * moved.seconds.median]),
            }
        )
        for moved in rising
    ]
    here = links.model_copy(update={"transfers": rising})
    there = links.model_copy(update={"transfers": slow, **other})
    written = text([], links=[here, there])
    assert "falls from" not in written and written.count("### testbed, gloo, ") == 2
    again = links.model_copy(update={"transfers": slow})
    assert "falls from" in text([], links=[here, again])


def test_repeats_of_a_size_are_one_point(links):
    slow = [
        moved.model_copy(update={"seconds": Spread.of([3 * moved.seconds.median])})
        for moved in links.transfers
    ]
    repeats = [links, links, links.model_copy(update={"transfers": slow})]
    written = text([], links=repeats)
    rows = [row for row in written.splitlines() if row.startswith("| all_gather | all |")]
    assert len(rows) == 4 and rows[0].endswith("| 256 KiB | 0.262 ms | 1.00 GB/s | 750 MB/s |")


def test_traffic_of_training_stands_beside_the_curve(links, whole):
    files = render([whole("FULL_SHARD", 4, 0.1)], links=[links])
    assert "in training steps" in files["figures/links-1_testbed_all_gather.svg"].decode()
    # four calls of 4 MiB in 40 ms: 419 MB/s, of which 3 / 4 cross a link
    assert (
        "On 4 devices most time goes to all_gather over dp_shard (4 ranks) under FULL_SHARD: "
        "40.0 ms of a step in 4 calls of 4.19 MB, 1.05 MB a rank at 315 MB/s of bus bandwidth."
    ) in files["report.md"].decode()


def test_curves_alone_are_a_report(tmp_path, links):
    written = render([], links=[links])["report.md"].decode()
    assert written.startswith("# Scaling of collectives on testbed")
    assert "## Best configuration\n\nNot measured." in written


def test_a_straggler_has_rank_host_and_delay(make):
    wait = Wait(seconds=[0.06, 0.06, 0.01, 0.06], straggler=2, host="node7", late_s=0.05)
    written = text([make(devices=4, wait=wait), make(devices=2, wait=Wait(seconds=[0.0, 0.0]))])
    assert (
        "- Rank 2 on node7 holds up the others: they wait 50.0 ms a step longer than it, 50 % of "
        "the step (vit_tiny, DDP on 4 devices)." in written
    )
    assert "- No straggler in 1 of 2 points whose waits were recorded." in written


def test_a_straggler_of_repeats(make):
    def late(host, seconds, ranks):
        waits = [0.06, 0.06, 0.01, 0.06]
        return Wait(seconds=waits, straggler=2, host=host, late_s=seconds, late_ranks=ranks)

    waits = [late("n1", 0.01, 1), late("n1", 0.02, 3), late("n2", 0.01, 1), Wait(seconds=[0.0])]
    times = (0.1, 0.2, 0.1, 0.1)
    repeats = [make(devices=4, step_s=s, wait=w) for s, w in zip(times, waits, strict=True)]
    written = text(repeats)
    assert (
        "- Rank 2 on n1 holds up the others: they wait 20.0 ms a step longer than it, 10 % of the "
        "step (vit_tiny, DDP on 4 devices (noisy)), in 2 of 4 runs. 2 more ranks of that run are "
        "late too." in written
    )
    assert "- Rank 2 on n2 holds up the others: they wait 10.0 ms" in written


def test_energy_by_hand(make):
    def used(joules, **fields):
        return Energy(source="nvml", covers="1 GPU", joules=joules, images=100, **fields)

    grid = {"grid_g_per_kwh": 500.0, "grid_source": "IEA 2023"}
    written = text([make("DDP", energy=used(360.0, **grid)), make("A", energy=used(720.0))])
    # 3.6 J an image is 3.6 MJ = 1 kWh per million images, at 500 g/kWh half a kilogram.
    assert (
        "- On 1 device DDP needs 3.60 J an image: 1.00 kWh, 0.500 kg of CO2 per million images "
        "(nvml, 1 GPU); A needs 2.00 x of that, the most of the 2 measured." in written
    )
    assert "| A | 1 | 7.20 | 2.00 | no grid factor |" in written
    assert "CO2 with 500 g/kWh (IEA 2023)." in written


def test_energy_of_repeats_is_their_median(make):
    used = [Energy(source="nvml", covers="1 GPU", joules=j, images=100) for j in (100, 400)]
    written = text([make(energy=each) for each in used])
    assert "DDP needs 2.50 J an image" in written
    other = used[0].model_copy(update={"covers": "2 GPUs"})
    assert "J an image" not in text([make(energy=used[0]), make(energy=other)])


def test_counters_that_see_other_things_are_not_compared(make):
    def used(covers):
        return Energy(source="rapl", covers=covers, joules=100.0, images=10)

    written = text([make("DDP", energy=used("package")), make("A", energy=used("package, memory"))])
    assert "of that, the most" not in written


def test_no_energy_is_said(make):
    assert "Not measured: no record holds what a counter of energy saw." in text([make()])


def test_predicted_against_measured(make):
    records = [make(devices=2, step_s=0.1), make(devices=4, step_s=0.1)]
    for devices, rate in ((2, 176.0), (4, 320.0), (8, 1.0)):
        values = {"kind": "predicted", "images_per_s": rate, "versions": {}}
        records.append(make(devices=devices, step_s=None, **values))
    written = text(records)
    assert "- Throughput: predicted is 1.00 x to 1.10 x of measured in 2 points." in written
    assert "| vit_tiny | DDP | 2 | 176 | 160 | 1.10 x |" in written


def test_nothing_predicted_is_said(make):
    assert "Nothing was predicted that was measured too." in text([make()])


def test_out_of_memory_is_left_out_with_its_cause(make):
    full = make(devices=2, step_s=None, status="out_of_memory", error="needs 70 GiB of 64")
    written = text([make(), full, full.model_copy(update={"created": "later"})])
    assert "- 1 point ran out of memory; in no figure." in written
    assert "| out of memory | needs 70 GiB of 64 | 2 |" in written


def test_a_point_that_was_measured_since_did_not_fail(make):
    broken = {"status": "failed", "error": "lost a rank", "device": "not started"}
    mended = make(devices=2, created="2026-01-03", environment={"OMP_NUM_THREADS": "1"})
    silent = {"communication": "off", "created": "2026-01-02"}
    options = {"config": {"optim": {"clip": 1.0}}, "created": "2026-01-04"}
    records = [make(), mended]
    records += [
        make(devices=2, step_s=None, **broken, **fields)
        for fields in ({"created": "2026-01-02"}, silent, options)
    ]
    written = text(records)
    assert "- 2 points failed; in no figure." in written
    assert "- 1 point failed once and was measured since." in written
    assert ", 2 failed points." in written


def test_a_predicted_rate_wins_nothing(make):
    fields = {"kind": "predicted", "step_s": None, "versions": {}}
    predicted = [make(name, images_per_s=rate, **fields) for name, rate in (("A", 9.0), ("B", 5.0))]
    written = text(predicted)
    assert "## Best configuration\n\nNot measured." in written
    assert "of the fastest not ranked" in written and "100 %" not in written
    with pytest.raises(InputError, match="--together kind: predicted points do not compete"):
        render([make(), *predicted], together=["kind"])


def test_predicted_memory_is_held_against_its_own_kind_alone(make):
    def peak(kind, source):
        return {"kind": kind, "peak_memory_bytes": GIB, "memory_source": source}

    for source, cell in (
        ("reserved", "1.00 x"),
        ("active", "not alike: active and reserved"),
    ):
        records = [
            make(**peak("measured", "reserved")),
            make(step_s=None, images_per_s=80.0, **peak("predicted", source)),
        ]
        (row,) = [
            row
            for row in text(records).splitlines()
            if "| vit_tiny | DDP | 1 | 80.0 | 80.0 |" in row
        ]
        assert row.endswith(f"| {cell} |")


def test_one_peak_of_memory_everywhere(whole):
    """The peak of all steps and ranks is the headline; memory by cause is of one rank."""
    held = Memory(peak_reserved_bytes=GIB, peak_active_bytes=GIB // 2, limit_bytes=4 * GIB)
    peak = {"peak_memory_bytes": 2 * GIB, "memory_source": "reserved"}
    files = render([whole("DDP", 1, 0.1, memory=held, **peak)])
    assert "| DDP | 1 | 2.00 | 0.500 | 50 % |" in files["report.md"].decode()
    (row,) = csv.DictReader(io.StringIO(files["table.csv"].decode()))
    assert row["memory_peak_reserved_bytes"] == row["peak_memory_bytes"] == str(2 * GIB)


def test_a_share_above_all_of_the_peak_is_no_median(whole):
    records = [whole("DDP", 1, 0.1, mfu=share, hfu=share) for share in (0.5, 0.6, 1.2)]
    written = text(records)
    assert "| DDP | 1 | not shown: above 100 % | not shown: above 100 % |" in written
    for name in ("MFU", "HFU"):
        assert f"- 1 record with an {name} above 100 % (up to 120 %): impossible" in written


def test_cautions(make):
    records = [make(images_per_s=100.0, dirty=True), make(devices=2, commit="fedcba9876543210")]
    found = points(records)
    comparisons = compare(found)
    study = Study(records, [], found, comparisons, LineStyles(comparisons), copies=2)
    assert omissions.cautions(study) == [
        "2 records read twice and counted once.",
        "1 record made from a tree with uncommitted changes.",
        "vit_tiny, weak scaling, 8 images per device and step: made by several commits: "
        "0123456789 and fedcba9876.",
        "vit_tiny, DDP on 1 device: images_per_s is 100, but global batch over median step is "
        "80.0.",
    ]
