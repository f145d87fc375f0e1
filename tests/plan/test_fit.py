"""Whether a run fits its devices: the answer, and a way out that holds what it says."""

import re

import pytest

from hpcgeo.config import load
from hpcgeo.objectives.mae.objective import forms
from hpcgeo.plan.fit import Fit, fit, fit_of_states, states_bytes
from hpcgeo.zoo import architecture


def judged(*options: str, ranks: int = 64, memory: float = 64) -> Fit:
    run = load("mae_vit_15b", list(options))
    of_images = forms(architecture("vit_15b"), 3, (224, 224), 0.75)
    return fit(of_images, run.parallel, run.train, ranks, run.optim, memory)


@pytest.mark.parametrize(
    ("options", "word", "figures"),
    [
        ([], "fits", "38.8 GiB allocated, up to 60.9 reserved, of 64 GiB"),
        (["train.micro_batch=32", "train.accumulate=1"], "tight", "46.9 GiB allocated"),
        (["parallel.strategy=DDP"], "does not fit", "309 GiB allocated"),
        (["parallel.strategy=HYBRID_SHARD", "parallel.group_size=2"], "does not fit", "119 GiB"),
    ],
)
def test_the_answer_and_a_way_out(options: list[str], word: str, figures: str) -> None:
    found = judged(*options)
    assert (found.word, found.why.startswith(figures)) == (word, True), found
    if word != "fits":
        way = re.search(r"; (.*) takes ([\d.]+) GiB$", found.why)
        assert way, found
        other = judged(*options, *way[1].split())
        assert other.word == "fits" and other.why.startswith(f"{way[2]} GiB allocated"), other


def test_where_nothing_fits_more_ranks_are_the_way() -> None:
    assert "take more ranks" in judged(ranks=1).why


def test_without_closed_forms_what_is_known_to_be_too_much_does_not_fit() -> None:
    run = load("gpna_tiny", ["parallel.strategy=FULL_SHARD"])

    def word(parameters: int, **options: object) -> str:
        parallel = run.parallel.model_copy(update=options)
        return fit_of_states(parameters, parallel, 4, run.optim, 16).word

    assert [word(10**9), word(10**10)] == ["not known", "does not fit"]
    assert word(10**10, offload=True) == "not known"  # its states lie on the host
    frozen = states_bytes(10**9, run.parallel, 4, run.optim, frozen=10**9 - 10**6)
    assert frozen == (4 * 10**9 + 12 * 10**6) / 4  # weights, and what is trained beside them
    whole = {"strategy": "NO_SHARD"}
    assert word(2 * 10**9, **whole) == "does not fit"
    assert word(2 * 10**9, tensor=4, **whole) == "not known"
