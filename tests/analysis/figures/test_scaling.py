"""The figure of scaling against numbers by hand, and what it says of losses and messages."""

import re

import pytest

from hpcgeo_analysis.figures import scaling
from tests.analysis.figures.drawn import check, of_line, read, texts, tips, view


def published(make, strategy, nodes, rate, **fields):
    """Return a point as a study printed it: no step, no spread, no traffic."""
    values = {"kind": "published", "model": "vit_huge_gated", "dtype": "bfloat16", "nodes": nodes}
    return make(strategy, 8 * nodes, None, **{**values, "images_per_s": rate, **fields})


@pytest.fixture
def cliff(make, study):
    """A study in which FULL_SHARD falls by 53 % and DDP, unlike in precision, keeps all."""
    rates = {"FULL_SHARD": (800, 1600, 1504), "NO_SHARD": (640, 1216, 2240)}
    records = [
        published(make, name, nodes, float(rate))
        for name, line in rates.items()
        for nodes, rate in zip((1, 2, 4), line, strict=True)
    ]
    records += [published(make, "DDP", n, 400.0 * n, dtype="float32") for n in (1, 2, 4)]
    silent = {"group_size": 1, "communication": "off"}
    records += [published(make, "HYBRID_SHARD", n, 700.0 * n, **silent) for n in (1, 2, 4)]
    return study(records)


def heights(part) -> list[float]:
    """Return the vertical places of the marks of a line, its label left out."""
    placed = [path.get("transform") for path in part.iter() if len(path) and path.get("transform")]
    return [float(re.findall(r" (-?[\d.]+)\)", place)[0]) for place in placed]


def test_values_in_percent_of_the_best_at_the_smallest_size(cliff):
    figure = scaling.figure(cliff)
    check(figure)
    (panel,) = figure.panels
    shown = view(read(panel), "per_device")
    assert "percent of 100 images/s per device, the best on 8" in texts(shown)
    (line, loss) = of_line(shown, "FULL_SHARD")
    top, same, fallen = heights(line)
    # 100, 100 and 47 of an axis from 0 to 104
    zero = 222.0
    assert top == same and (zero - fallen) / (zero - top) == pytest.approx(0.47, abs=0.002)
    assert texts(loss) == ["-53 %"]
    (no_shard,) = of_line(shown, "NO_SHARD")
    shares = [(zero - height) / (zero - top) for height in heights(no_shard)]
    assert shares == pytest.approx([0.80, 0.76, 0.70], abs=0.002)
    said = "NO_SHARD, 32 devices: 70.0 images/s per device, 2,240 in all"
    assert said in tips(no_shard)


def test_views_say_the_same_in_other_units(cliff):
    figure = scaling.figure(cliff)
    assert [key for key, _ in figure.views] == ["per_device", "total", "efficiency", "node_hours"]
    found = read(figure.panels[0])
    assert [view(found, key).get("class") for key, _ in figure.views] == [None, "off", "off", "off"]
    own = {key: heights(of_line(view(found, key), "NO_SHARD")[0]) for key, _ in figure.views}
    zero = 222.0
    first, _, last = own["efficiency"]
    assert (zero - last) / (zero - first) == pytest.approx(560 / 640, abs=0.002)
    # node-hours of 1 node at 640 and 4 nodes at 2,240 a second
    first, _, last = own["node_hours"]
    assert (zero - last) / (zero - first) == pytest.approx(4 * 640 / 2240, abs=0.002)
    first, second, last = own["total"]
    assert first > second > last


def test_what_is_unlike_is_hollow_with_a_footnote(cliff):
    figure = scaling.figure(cliff)
    assert ("†", "Float32, the others bfloat16.") in figure.footnotes
    found = read(figure.panels[0])
    (ddp,) = of_line(view(found, "per_device"), "DDP")
    assert texts(ddp) == ["DDP†"]
    marks = [part for part in ddp.iter() if part.get("transform")]
    assert len(marks) == 4 and {part.get("class") for part in marks} == {"hollow"}


def test_compute_alone_is_a_thin_dashed_line_that_never_wins(cliff):
    figure = scaling.figure(cliff)
    shown = view(read(figure.panels[0]), "per_device")
    (bare,) = of_line(shown, "HYBRID_SHARD(1)")
    assert texts(bare) == ["no gradient exchange‡"]
    assert next(part.get("class") for part in bare.iter() if part.get("d")) == "baseline"
    assert "HYBRID_SHARD(1)" not in figure.title + "".join(figure.sentences)
    assert ("‡", "HYBRID_SHARD(1) without communication: compute alone, no training.") in (
        figure.footnotes
    )


def test_the_title_says_what_breaks_and_a_sentence_what_holds(cliff):
    figure = scaling.figure(cliff)
    assert figure.title == "FULL_SHARD breaks past 16 devices"
    assert figure.sentences[0] == "NO_SHARD keeps 88 % of its rate per device to 32 devices."


def test_messages_are_computed_where_traffic_was_not_recorded(make, study):
    # A block: qkv and projection 4 W (W + 1), gated MLP 2 M (W + 1) + W (M + 1), two norms 4 W.
    W, M = 1280, 3440
    block = 4 * W * (W + 1) + 2 * M * (W + 1) + W * (M + 1) + 4 * W
    rates = {16: 3743.0, 32: 7236.0, 64: 8015.0}
    records = [published(make, "FULL_SHARD", n, rate) for n, rate in rates.items()]
    figure = scaling.figure(study(records))
    after = f"{2 * block / 512 / 1000:.3g}"
    assert figure.sentences == (
        f"FULL_SHARD breaks where its all_gather messages fall to {after} KB a rank (computed).",
    )


def test_measured_messages_come_first(whole, study):
    times = ((2, 0.1), (4, 0.1), (8, 0.2))
    records = [whole("FULL_SHARD", n, s, model="vit_base") for n, s in times]
    assert scaling.figure(study(records)).sentences == (
        "FULL_SHARD breaks where its all_gather messages fall to 524 KB a rank (measured).",
    )


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("DDP", {}),
        ("FULL_SHARD", {"model": "not_in_the_zoo"}),
        ("mystery", {}),
        ("HYBRID_SHARD", {"group_size": 8}),
        ("HYBRID_SHARD", {"group_size": 5}),
    ],
)
def test_no_message_is_invented(make, study, strategy, fields):
    records = [published(make, strategy, n, 100.0 * n**0.2, **fields) for n in (1, 2, 4)]
    figure = scaling.figure(study(records))
    assert "-43 %" in texts(read(figure.panels[0])) and not figure.sentences


def test_a_loss_within_the_spread_or_from_the_start_is_no_cliff(make, study):
    noise = {"spread": 0.24}
    steady = scaling.figure(
        study([make(devices=n, step_s=s, **noise) for n, s in ((1, 1), (2, 1.2))])
    )
    assert "-17 %" not in texts(read(steady.panels[0]))
    assert steady.title == "DDP keeps 83 % of its rate per device on 2 devices"
    early = scaling.figure(study([make(devices=n, step_s=s) for n, s in ((1, 1), (2, 1.5))]))
    assert "-33 %" in texts(read(early.panels[0]))
    assert early.title == "DDP loses most per device as devices are added"


def test_a_noisy_point_is_hollow_and_decides_nothing(make, study):
    records = [make(devices=n, step_s=s) for n, s in ((1, 1.0), (2, 1.0))]
    records.append(make(devices=4, step_s=3.0, spread=0.4))
    figure = scaling.figure(study(records))
    check(figure)
    assert figure.footnotes == (("†", "Noisy."),) and "breaks" not in figure.title
    (line,) = of_line(view(read(figure.panels[0]), "per_device"), "DDP")  # and no loss in red
    marks = [part.get("class") for part in line.iter() if part.get("transform")]
    assert marks == [None, None, "hollow", "hollow"]  # three points and the label


def test_what_is_told_of_every_point_stands_at_the_title(make, study):
    records = [published(make, "DDP", n, 100.0 * n, notes=["start-up inside"]) for n in (1, 2)]
    figure = scaling.figure(study(records))
    found = texts(read(figure.panels[0]))
    assert "vit_huge_gated†" in found and "DDP" in found
    assert figure.footnotes == (("†", "Start-up inside."),)


def test_lines_asked_together_compete_and_the_title_says_so(make, study):
    records = [make("DDP", n, 0.2, dtype="float32") for n in (1, 4)]
    records += [make("FULL_SHARD", n, 0.1 * n, dtype="bfloat16") for n in (1, 4)]
    figure = scaling.figure(study(records, together=["dtype"]))
    check(figure)
    assert figure.footnotes == (("†", "Lines differ in dtype: FULL_SHARD bfloat16; DDP float32."),)
    found = texts(view(read(figure.panels[0]), "per_device"))
    assert {"DDP float32", "FULL_SHARD bfloat16"} <= set(found)


def test_spreads_are_drawn_where_known(make, study):
    records = [make(devices=n, step_s=1.0, spread=0.2) for n in (1, 2)]
    (line,) = of_line(view(read(scaling.figure(study(records)).panels[0]), "per_device"), "DDP")
    bars = [part for part in line.iter() if "opacity:1" in part.get("style", "")]
    assert len(bars) == 2


def test_one_size_says_how_to_measure_the_next(make, study):
    figure = scaling.figure(study([make()]))
    assert not figure.panels and "two numbers of devices" in figure.missing
    check(figure)


def test_many_lines_with_one_end_and_long_names_stay_apart(make, study):
    names = ["DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "ZERO1", "ZERO2", "ZERO3"]
    records = [make(name, n, 1.0 + 0.5 * (n > 4)) for name in names for n in (1, 2, 4, 8, 1024)]
    groups = [make("HYBRID_SHARD", n, 1.0, group_size=k) for k in (2, 4, 8) for n in (8, 16)]
    long = [make("a strategy of someone's own & more", n, 2.0, model="<m>" * 40) for n in (1, 2)]
    figure = scaling.figure(study([*records, *groups, *long]))
    check(figure)
    assert len(figure.panels) == 2


def test_panels_of_one_model_say_in_what_they_differ(make, study):
    records = [make(devices=n, micro_batch=m) for n in (1, 2) for m in (8, 16)]
    records += [make(devices=n, machine="elsewhere") for n in (1, 2)]
    titles = {texts(read(panel))[0] for panel in scaling.figure(study(records)).panels}
    assert titles == {
        "vit_tiny, elsewhere, 8 images per device and s…",
        "vit_tiny, testbed, 8 images per device and step",
        "vit_tiny, testbed, 16 images per device and step",
        "vit_tiny, testbed, global batch 16",
    }


def test_a_few_panels_are_enough_and_each_model_has_its_fullest(make, study):
    records = [make(devices=n, micro_batch=m) for m in range(1, 14) for n in (1, 2)]
    records += [make(devices=n, model="other", parameters=10**9) for n in (1, 2)]
    records += [make(devices=4, micro_batch=9)]
    figure = scaling.figure(study(records))
    titles = [texts(read(panel))[0] for panel in figure.panels]
    assert len(titles) == 12 and titles[-1] == "other" and any("9 images" in own for own in titles)
    assert figure.sentences[-1].endswith("more comparisons in the table.")
