"""Curves of collectives: cliffs, repeats, what is kept apart, and what training reached."""

import pytest

from hpcgeo.measured import Spread
from hpcgeo_analysis.figures import collectives
from tests.analysis.figures.drawn import check, read, texts, tips


def test_a_cliff_is_found(links, study):
    figure = collectives.figure(study([], [links]))
    check(figure)
    assert figure.title == "A collective slows at larger messages"
    assert figure.sentences == (
        "all_gather over all (4 ranks) falls from 2.00 GB/s to 300 MB/s at 4 MiB.",
    )
    (panel,) = map(read, figure.panels)
    assert {"all_gather", "bytes/s; gloo", "all, 4 ranks", "message"} <= set(texts(panel))
    assert "all, 4 ranks: 1 MiB in 0.524 ms, 1.50 GB/s" in tips(panel)


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
def test_curves_of_unlike_links_are_not_one(links, study, other):
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
    figure = collectives.figure(study([], [here, there]))
    check(figure)
    assert not figure.sentences and len(figure.panels) == 2
    again = links.model_copy(update={"transfers": slow})
    assert "falls from" in collectives.figure(study([], [here, again])).sentences[0]


def test_repeats_of_a_size_are_one_point(links, study):
    slow = [
        moved.model_copy(update={"seconds": Spread.of([3 * moved.seconds.median])})
        for moved in links.transfers
    ]
    repeats = [links, links, links.model_copy(update={"transfers": slow})]
    found = tips(read(collectives.figure(study([], repeats)).panels[0]))
    assert len(found) == 4 and found[0] == "all, 4 ranks: 256 KiB in 0.262 ms, 750 MB/s"


def test_traffic_of_training_stands_beside_the_curve(links, whole, study):
    figure = collectives.figure(study([whole("FULL_SHARD", 4, 0.1)], [links]))
    check(figure)
    # four calls of 4 MiB in 40 ms: 419 MB/s, of which 3 / 4 cross a link
    assert "in training: 4.19 MB, 315 MB/s" in tips(read(figure.panels[0]))
    assert figure.sentences[-1] == (
        "all_gather in messages of 4.19 MB takes 40 % of a step: FULL_SHARD of vit_tiny on 4 "
        "devices."
    )


def test_without_curves_it_says_how(make, study):
    figure = collectives.figure(study([make()]))
    assert "hpcgeo-profile collectives" in figure.missing and not figure.panels


def test_without_curves_the_title_names_the_longest_collective(whole, study):
    figure = collectives.figure(study([whole("FULL_SHARD", 4, 0.1)]))
    assert figure.title == "Of the collectives all_gather in messages of 4.19 MB takes longest"
    assert figure.sentences == (
        "all_gather in messages of 4.19 MB takes 40 % of a step: "
        "FULL_SHARD of vit_tiny on 4 devices.",
    )
