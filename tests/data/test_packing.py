"""Samples of unlike lengths in clusters and passes."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from hpcgeo.data.sampling import packing
from hpcgeo.data.sampling.packing import clusters, passes, waste
from hpcgeo.errors import InputError

MODES = ("padding", "dbscan", "bins", "packed")
LENGTHS = st.one_of(
    st.lists(st.integers(1, 15_000), max_size=60),
    st.lists(st.integers(1, 40), max_size=60),  # dense: where DBSCAN chains
    st.builds(
        lambda n, step: [1 + step * i for i in range(n)], st.integers(0, 60), st.integers(1, 9)
    ),
)
LIMITS = st.integers(0, 5000)


def padding(lengths, cluster) -> int:
    return sum(max(lengths[i] for i in cluster) - lengths[i] for i in cluster)


def test_the_examples_run():
    tried = doctest.testmod(packing)
    assert tried.attempted and not tried.failed


@given(lengths=LENGTHS, mode=st.sampled_from(MODES), limit=LIMITS)
def test_every_sample_is_in_one_cluster(lengths, mode, limit):
    found = clusters(lengths, mode, limit)
    assert sorted(i for cluster in found for i in cluster) == list(range(len(lengths)))
    assert all(found)
    assert found == clusters(lengths, mode, limit)


@given(lengths=LENGTHS, mode=st.sampled_from(["dbscan", "bins"]), limit=LIMITS)
def test_the_limit_is_kept(lengths, mode, limit):
    assert all(padding(lengths, cluster) <= limit for cluster in clusters(lengths, mode, limit))


@given(lengths=LENGTHS, limit=LIMITS)
def test_where_dbscan_keeps_the_limit_its_clusters_stand(lengths, limit):
    """The clusters are those of scikit-learn, some of them cut further."""
    if not lengths:
        return
    # It wants an eps above zero; lengths are whole.
    of = DBSCAN(eps=max(limit, 0.5), min_samples=1).fit_predict(np.array(lengths)[:, None])
    theirs = {frozenset(np.flatnonzero(of == label).tolist()) for label in set(of)}
    kept = {cluster for cluster in theirs if padding(lengths, cluster) <= limit}
    ours = {frozenset(cluster) for cluster in clusters(lengths, "dbscan", limit)}
    assert kept <= ours
    assert all(any(cluster <= whole for whole in theirs) for cluster in ours)


def test_a_rank_of_a_mixture_imports_no_scikit_learn():
    program = (
        "import sys\n"
        "import hpcgeo.train.loop, hpcgeo.parallel.native\n"
        "import hpcgeo.objectives.multitask.network, hpcgeo.objectives.masked_tokens.network\n"
        "sys.exit(str({'sklearn', 'scipy'} & {*sys.modules} or ''))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr.strip() == "", run.stderr


def test_dbscan_alone_breaks_it():
    """1, 2, 3, ...: neighbours are near, so all are one cluster, whose padding has no bound."""
    lengths, limit = list(range(1, 201)), 100
    labels = DBSCAN(eps=limit, min_samples=1).fit_predict(np.array(lengths)[:, None])
    assert set(labels) == {0}
    assert padding(lengths, range(200)) == 199 * 100 > limit
    assert DBSCAN(eps=1, min_samples=1).fit_predict(np.array(lengths)[:, None]).max() == 0
    assert all(padding(lengths, cluster) <= limit for cluster in clusters(lengths, "dbscan", limit))


@given(lengths=LENGTHS, limit=LIMITS, more=st.integers(0, 5000))
def test_a_wider_limit_and_bins_need_no_more_clusters(lengths, limit, more):
    def count(mode: str, limit: int) -> int:
        return len(clusters(lengths, mode, limit))

    for mode in ("dbscan", "bins"):
        assert count(mode, limit + more) <= count(mode, limit)
    assert count("bins", limit) <= count("dbscan", limit)


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9), limit=st.integers(0, 60))
def test_no_cut_of_the_sorted_samples_has_fewer_bins(lengths, limit):
    falling = sorted(lengths, reverse=True)
    fewest = [0, *[len(lengths)] * len(lengths)]
    for end in range(1, len(falling) + 1):
        fewest[end] = min(
            fewest[start] + 1
            for start in range(end)
            if padding(falling, range(start, end)) <= limit
        )
    assert len(clusters(lengths, "bins", limit)) == fewest[-1]


def test_far_lengths_are_apart_as_dbscan_has_them():
    lengths = [17, 4000, 20, 15_000, 4010, 18]
    assert clusters(lengths, "dbscan", 50) == [[3], [4, 1], [2, 5, 0]]


def test_waste_by_hand():
    lengths = [10, 8, 2]
    assert waste(lengths, clusters(lengths, "padding", 0), "padding") == pytest.approx(10 / 30)
    assert waste(lengths, clusters(lengths, "bins", 2), "bins") == pytest.approx(2 / 22)
    assert waste(lengths, clusters(lengths, "bins", 0), "bins") == 0
    assert waste(lengths, clusters(lengths, "packed", 0), "packed") == 0
    assert waste([], [], "padding") == 0


@given(lengths=LENGTHS, max_tokens=st.integers(1, 20_000), more=st.integers(0, 8))
def test_passes_fit_and_are_as_many_as_agreed(lengths, max_tokens, more):
    fewest = passes(lengths, max_tokens)
    found = passes(lengths, max_tokens, len(fewest) + more)
    assert len(found) == len(fewest) + more
    assert found == passes(lengths, max_tokens, len(fewest) + more)

    def tokens(one) -> list[int]:
        return [sum(lengths[i] for i in samples) for samples in one]

    for split in (fewest, found):
        assert sorted(i for samples in split for i in samples) == list(range(len(lengths)))
        for samples, total in zip(split, tokens(split), strict=True):
            assert total <= max_tokens or len(samples) == 1
    filled = [bool(samples) for samples in found]
    assert filled == sorted(filled, reverse=True), "the empty ones are last"
    assert max(tokens(found), default=0) <= max(tokens(fewest), default=0)
    # Of two passes that first-fit leaves, the second did not fit into the first.
    if lengths and max(lengths) <= max_tokens:
        assert len(fewest) == 1 or sum(lengths) * 2 > (len(fewest) - 1) * max_tokens


def test_passes_are_balanced():
    """Two full passes and a rest become three alike."""
    lengths = [10] * 21
    assert [len(samples) for samples in passes(lengths, 100)] == [10, 10, 1]
    assert [len(samples) for samples in passes(lengths, 100, 3)] == [7, 7, 7]
    assert passes([5, 5], 100, 4) == [[0], [1], [], []]


def test_what_is_refused():
    with pytest.raises(InputError, match="'dense': it is one of padding, dbscan, bins, packed"):
        clusters([1], "dense", 1)
    with pytest.raises(InputError, match="max_padding -1: at least 0"):
        clusters([1], "bins", -1)
    with pytest.raises(InputError, match="max_tokens 0: at least 1"):
        passes([1], 0)
