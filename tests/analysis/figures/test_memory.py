"""Memory in percent of the device, by cause, against numbers by hand."""

import pytest

from hpcgeo.measured import Memory
from hpcgeo_analysis.figures import memory
from tests.analysis.figures.drawn import check, of_line, read, texts, tips, widths

GIB = 2**30


def held(limit=None, **peaks):
    values = {f"peak_{kind}_bytes": int(value * GIB) for kind, value in peaks.items()}
    return Memory(limit_bytes=limit and limit * GIB, **values)


def test_causes_are_stacked_up_to_what_the_process_takes(whole, study):
    figure = memory.figure(study([whole("DDP", 2, 0.1), whole("FULL_SHARD", 2, 0.1)]))
    check(figure)
    found = read(figure.panels[0])
    (row,) = of_line(found, "DDP")
    # 1, 1, 2, 0.5, 1/16, 3/16 GiB by cause of 5 GiB resident, of a device of 8
    expected = [1 / 8, 1 / 8, 2 / 8, 0.5 / 8, 1 / 128, 3 / 128, 1 / 32]
    assert [part / 358 for part in widths(row)] == pytest.approx(expected, abs=0.001)
    assert tips(row)[-1] == "rest of the process: 0.250 GiB"
    assert {"5.00 GiB", "3.00 GiB", "of 8.00 GiB"} <= set(texts(found))
    assert "gathered units" not in dict(figure.legend)
    assert figure.title == "Nothing takes more than 62 % of the 8.00 GiB a device has"


def test_the_axis_ends_at_the_data_where_use_is_small(make, study):
    small = [make(n, memory=held(64, reserved=r)) for n, r in (("DDP", 16), ("FULL_SHARD", 4))]
    found = read(memory.figure(study(small)).panels[0])
    assert [
        sum(widths(row)) for row in (*of_line(found, "DDP"), *of_line(found, "FULL_SHARD"))
    ] == (pytest.approx([358, 89.5], abs=0.2))
    assert "limit" not in {part.get("class") for part in found.iter()}
    large = [make(memory=held(64, reserved=63.2, allocated=47.5))]
    figure = memory.figure(study(large))
    check(figure)
    assert figure.title == "DDP of vit_tiny on 1 device fills a device"
    found = read(figure.panels[0])
    assert widths(found) == pytest.approx([358 * 47.5 / 64, 358 * 15.7 / 64], abs=0.2)
    assert "limit" in {part.get("class") for part in found.iter()}
    assert figure.sentences == (
        "Reserved is up to 1.33 x of allocated: DDP of vit_tiny on 1 device.",
    )


def test_panels_share_their_axis(make, study):
    records = [make(model=m, memory=held(64, reserved=r)) for m, r in (("a", 32), ("b", 16))]
    one, two = (sum(widths(read(panel))) for panel in memory.figure(study(records)).panels)
    assert one == 2 * two


def test_kinds_of_memory_bear_their_names(make, study):
    records = [make("DDP", memory=held(reserved=9, active=5)), make("ZERO1", memory=held(active=4))]
    figure = memory.figure(study(records))
    check(figure)
    found = texts(read(figure.panels[0]))
    assert {"9.00 GiB reserved", "4.00 GiB active", "GiB a device"} <= set(found)
    assert figure.title == "Memory of a device"
    assert "needs least" not in "".join(figure.sentences), "of two kinds"


@pytest.mark.parametrize(
    ("least", "said"), [(0.5, "FULL_SHARD of vit_tiny on 2 devices needs least"), (0.999, None)]
)
def test_who_needs_least(make, study, least, said):
    records = [
        make(name, 2, peak_memory_bytes=int(value * GIB), memory_source="reserved")
        for name, value in (("DDP", 1), ("FULL_SHARD", least))
    ]
    sentences = memory.figure(study(records)).sentences
    assert (sentences == ()) if said is None else sentences[0].startswith(said)


def test_who_needs_least_is_asked_within_a_kind(make, study):
    held = {"peak_memory_bytes": GIB}
    records = [
        make("DDP", memory_source="reserved", **held),
        make("FULL_SHARD", memory_source="resident", **held),
        make("ZERO3", memory_source="resident", peak_memory_bytes=2 * GIB),
    ]
    assert memory.figure(study(records)).sentences == (
        "FULL_SHARD of vit_tiny on 1 device needs least resident memory: 1.00 GiB.",
    )


def test_of_many_sizes_the_ends_of_every_line(make, study):
    records = [make("DDP", n, memory=held(reserved=4)) for n in (1, 2, 4)]
    records += [make("FULL_SHARD", n, memory=held(reserved=4 / n)) for n in (2, 4, 8)]
    found = texts(read(memory.figure(study(records)).panels[0]))
    assert [text for text in found if "device" in text and "," in text] == [
        "FULL_SHARD, 8 devices",
        "DDP, 4 devices",
        "FULL_SHARD, 2 devices",
        "DDP, 1 device",
    ]


def test_the_largest_cause_is_said_with_what_it_is_a_share_of(whole, study):
    figure = memory.figure(study([whole("DDP", 1, 0.1)]))
    # 2 of 1 + 1 + 2 + 0.5 + 0.25
    assert figure.sentences[-1] == (
        "Up to 42 % of what tensors hold is optimizer: DDP of vit_tiny on 1 device."
    )


def test_one_peak_of_memory(whole, study):
    """The peak of all steps and ranks is the headline; memory by cause is of one rank."""
    own = Memory(peak_reserved_bytes=GIB, peak_active_bytes=GIB // 2, limit_bytes=4 * GIB)
    record = whole("DDP", 1, 0.1, memory=own, peak_memory_bytes=2 * GIB, memory_source="reserved")
    assert "2.00 GiB" in texts(read(memory.figure(study([record])).panels[0]))


def test_nothing_known_says_how(make, study):
    figure = memory.figure(study([make()]))
    assert not figure.panels and "hpcgeo-profile run" in figure.missing
