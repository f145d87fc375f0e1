"""The first screen: its title, its line of trust, its cards, each from records made by hand."""

import pytest

from hpcgeo.measured import Memory
from hpcgeo_analysis import answers
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.winner_map import maps
from hpcgeo_analysis.winners import fields

GIB = 2**30


def said(records):
    found = points(records)
    study = Study(records, [], found, compare(found))
    return answers.answers(study, maps(fields(study.comparisons)))


def card(records, title):
    return next(card for card in said(records).cards if card.title == title)


def grown(models, **fields):
    """Return published points of models on 8 and 16 devices: layout -> rates per device."""
    return [
        fields["make"](
            strategy,
            devices,
            None,
            kind="published",
            nodes=devices // 8,
            model=model,
            parameters=size,
            group_size=group,
            images_per_s=devices * rate,
        )
        for model, size, lines in models
        for (strategy, group), rates in lines.items()
        for devices, rate in zip((8, 16), rates, strict=True)
    ]


FULL, NO, HYBRID = ("FULL_SHARD", None), ("NO_SHARD", None), ("HYBRID_SHARD", 8)


def test_the_title_is_the_answer(make):
    models = [
        ("vit_base_gated", 87, {NO: (10, 10), FULL: (11, 5)}),
        ("vit_3b_gated", 3_000, {NO: (4, 4), FULL: (5, 2)}),
        ("vit_5b_gated", 5_000, {HYBRID: (3, 3), FULL: (3.5, 1)}),
    ]
    found = said(grown(models, make=make))
    assert found.title == "ViT on Testbed: replicate to 3B, shard inside a node at 5B"
    assert found.trust == (
        "12 published points on 8 to 16 devices. No spread given: rates within 5 % tie."
    )
    run, breaks, fits = found.cards
    assert (run.number, run.sentence) == ("48.0 images/s", "5B on 16 devices: HYBRID_SHARD(8).")
    # 2 nodes x 1e6 / 48 images/s / 3600
    assert run.more == "11.6 node-hours per million images."
    assert breaks.number == "\N{MINUS SIGN}71 %"
    assert breaks.sentence == (
        "per device for FULL_SHARD of 5B from 8 to 16 devices: all_gather falls to 23.9 MB a rank."
    )
    assert breaks.more == "Base \N{MINUS SIGN}55 % at 16, 3B \N{MINUS SIGN}60 % at 16."
    assert fits.number == "not known"


def test_of_lines_that_tie_the_title_names_the_simplest(make):
    models = [
        ("vit_base_gated", 87, {NO: (10, 10), HYBRID: (10.2, 10.1)}),
        ("vit_3b_gated", 3_000, {NO: (4, 4), FULL: (9, 9)}),
    ]
    title = said(grown(models, make=make)).title
    assert title == "ViT on Testbed: replicate to Base, shard over all devices at 3B"


@pytest.mark.parametrize(
    ("steps", "title"),
    [
        ({"DDP": 0.1, "FULL_SHARD": 0.2}, "DDP beats FULL_SHARD on 4 devices"),
        ({"DDP": 0.1, "FULL_SHARD": 0.2, "ZERO3": 0.3}, "DDP is fastest on 4 devices"),
        ({"DDP": 0.1, "FULL_SHARD": 0.1}, "DDP and FULL_SHARD tie on 4 devices"),
        ({"DDP": 0.1}, "DDP reaches 320 images/s on 4 devices"),
    ],
)
def test_the_title_of_one_model(make, steps, title):
    records = [make(name, 4, step) for name, step in steps.items()]
    assert said(records).title == f"vit_tiny on Testbed: {title}"


def test_noise_is_said_with_the_rule_of_ties(make):
    found = said([make("DDP", 4, 0.1), make("ZERO3", 4, 0.1, spread=0.6)])
    assert found.trust == (
        "2 measured points on 4 devices. Spread p10 to p90: rates whose spreads overlap tie. "
        "1 noisy point, hatched."
    )


def test_nothing_breaks(make):
    records = [make(name, n, 0.1 + 0.002 * n) for name in ("DDP", "ZERO3") for n in (1, 2)]
    found = card(records, "Nothing breaks")
    assert (found.number, found.link) == ("98 %", "scaling")
    assert card([make()], "It breaks here").number == "not known"


def test_the_largest_model_that_fits_one_device(make):
    def held(model, size, strategy, group, gib):
        memory = Memory(peak_reserved_bytes=int(gib * GIB), limit_bytes=64 * GIB)
        fields = {"memory": memory, "model": model, "parameters": size, "group_size": group}
        return make(strategy, 8, **fields)

    records = [
        held("vit_3b_gated", 3_000, "NO_SHARD", None, 63.6),
        held("vit_3b_gated", 3_000, "HYBRID_SHARD", 2, 30),
        held("vit_1b_gated", 1_000, "NO_SHARD", None, 20),
        held("vit_5b_gated", 5_000, "HYBRID_SHARD", 2, 50),
        held("vit_5b_gated", 5_000, "FULL_SHARD", None, 20),
    ]
    found = card(records, "It fits")
    assert found.sentence == ("of 1 device for 3B, NO_SHARD: 63.6 of 64.0 GiB reserved, tight.")
    assert (found.number, found.more) == ("99.4 %", "5B needs 2 devices.")


def test_what_holds_it_up_has_a_command_to_copy(whole):
    slow = whole("DDP", 2, 0.1)
    slow = slow.model_copy(
        update={
            "phases": slow.phases.model_copy(update={"data_wait_s": 0.04}),
            "command": "hpcgeo profile run vit data.workers=1 train.micro_batch=8 --steps 20",
            "config": {"data": {"workers": 1}},
        }
    )
    found = card([slow], "What holds it up")
    assert found.number == "40 %"
    assert found.sentence == "of a step of DDP on 2 devices goes to waiting for data."
    assert found.command == (
        "torchrun --nproc-per-node 2 --no-python "
        "hpcgeo profile run vit train.micro_batch=8 data.workers=2 --steps 20"
    )


def test_a_record_of_another_form_has_no_command(whole):
    other = {"command": "run.dir='torn", "config": {"data": "elsewhere"}}
    slow = whole("DDP", 2, 0.1)
    phases = slow.phases.model_copy(update={"data_wait_s": 0.04})
    found = card([slow.model_copy(update={"phases": phases, **other})], "What holds it up")
    assert (found.command, found.more) == ("", "Try data.workers=2.")


def test_without_a_trace_to_trust_it_is_what_was_measured_or_nothing(whole):
    traced = whole("DDP", 2, 0.1)
    slower = traced.activity.model_copy(update={"step_s": 0.2, "idle_s": 0.19})
    slowed = traced.model_copy(update={"activity": slower})
    found = card([slowed], "What holds it up")
    assert found.sentence == (
        "of a step of DDP on 2 devices goes to collectives, compute beside them or not."
    )
    assert found.number == "40 %"
    for comm_s in (None, 0.001):
        other = slowed.model_copy(update={"comm_s": comm_s})
        assert "What holds it up" not in [card.title for card in said([other]).cards]


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"devices": 1}, "hpcgeo profile run vit"),
        ({"devices": 2}, "torchrun --nproc-per-node 2 --no-python hpcgeo profile run vit"),
        ({"devices": 16, "nodes": 2}, ""),
        ({"devices": 16, "nodes": 2, "command": "srun hpcgeo train"}, "srun hpcgeo train"),
    ],
)
def test_a_command_of_several_ranks_has_its_launcher(make, fields, command):
    record = make(**{"command": "hpcgeo profile run vit", **fields})
    assert card([record], "Run this").command == command


def test_what_a_tie_keeps_is_said_where_all_keep_the_same(make):
    def title(base, **fields):
        records = [make("DDP", 1, 0.1), make("DDP", 2, 0.11)]
        return said([*records, make("ZERO3", 1, base, **fields), make("ZERO3", 2, 0.11)]).title

    assert title(0.1).endswith("tie on 2 devices, keeping 91 % per device")
    assert title(0.07).endswith("tie on 2 devices")
    assert title(0.1, spread=0.4).endswith("tie on 2 devices")


def test_noise_breaks_nothing_and_holds_nothing(make):
    records = [make(devices=1, step_s=0.1, spread=0.4), make(devices=2, step_s=0.3)]
    assert not {"It breaks here", "Nothing breaks"} & {card.title for card in said(records).cards}


def test_sharding_over_nodes_is_to_be_kept_inside(whole):
    record = whole("FULL_SHARD", 16, 0.1, nodes=2)
    activity = record.activity.model_copy(update={"exposed_comm_s": 0.05})
    found = card([record.model_copy(update={"activity": activity})], "What holds it up")
    assert found.more == "Try parallel.strategy=HYBRID_SHARD parallel.group_size=8."
