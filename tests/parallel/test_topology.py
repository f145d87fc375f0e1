"""Groups stay near: whatever order the launcher deals ranks in, and the map says where they lie."""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.parallel.topology import AXES, RankPlace, Topology, lay_out, near_first
from hpcgeo.strategies import Layout, strategy
from tests.distributed import on_ranks


def places(hosts: int, per_host: int, cyclic: bool) -> list[RankPlace]:
    """Return ranks dealt out block by block or one by one, two devices to a package."""
    found = []
    for rank in range(hosts * per_host):
        host, local = divmod(rank, per_host)
        if cyclic:
            local, host = divmod(rank, hosts)
        found.append(RankPlace(f"node{host}", local, local // 2))
    return found


def topology(layout: Layout, where: list[RankPlace], name: str = "HYBRID_SHARD") -> Topology:
    device = torch.device("cpu")
    return Topology(0, device, strategy(name), layout, near_first(where), tuple(where))


@pytest.mark.parametrize("cyclic", [False, True])
def test_groups_fill_a_package_then_a_node(cyclic: bool) -> None:
    where = places(4, 8, cyclic)
    text = str(topology(Layout(2, 8, 2), where))
    assert text.startswith("HYBRID_SHARD: 32 cpu ranks = 2 dp_replicate x 8 dp_shard x 2 tp\n")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines()[1:])
    assert lines["tp"].startswith("in a package:")
    assert lines["dp_shard"].startswith("over 2 nodes:")
    assert lines["dp_replicate"].startswith("over 2 nodes:")
    assert "... 16 groups" in lines["dp_replicate"]
    one_node = str(topology(Layout(8, 4, 1), where))
    assert "dp_shard      in a node:" in one_node
    assert "tp  " not in one_node
    if not cyclic:
        assert "dp_shard      in a node: 0-3 | 4-7 | 8-11 | 12-15 | ... 8 groups" in one_node


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.booleans(), st.data())
def test_every_axis_divides_the_ranks(
    copies: int, shards: int, tp: int, cyclic: bool, data: st.DataObject
) -> None:
    world = copies * shards * tp
    hosts = data.draw(st.sampled_from([n for n in range(1, world + 1) if world % n == 0]))
    where = places(hosts, world // hosts, cyclic)
    made = topology(Layout(copies, shards, tp), where)
    for axis, size in zip(AXES, made.layout, strict=True):
        groups = made._groups(axis)
        assert sorted(rank for group in groups for rank in group) == list(range(world))
        assert all(len(group) == size for group in groups)
    if world // hosts % tp == 0:  # what is nearest talks the most
        assert all(len({where[rank].host for rank in group}) == 1 for group in made._groups("tp"))
    read = [made.order.index(rank) // tp for rank in range(world)]
    assert sorted(set(read)) == list(range(copies * shards))


def dealt_one_by_one() -> tuple[int, list[int], str]:
    """4 ranks on 2 hosts, dealt one by one: 0 and 2 share a host."""
    rank = dist.get_rank()
    chosen = strategy("HYBRID_SHARD")
    made = lay_out(
        *(rank, rank // 2, f"node{rank % 2}", torch.device("cpu"), chosen, Layout(2, 2, 1))
    )
    return made.data_rank, made.mesh["dp_shard"].mesh.tolist(), str(made)


def test_the_mesh_follows_the_hosts() -> None:
    answers = on_ranks(dealt_one_by_one, 4)
    assert [answer[0] for answer in answers] == [0, 2, 1, 3]
    assert [answer[1] for answer in answers] == [[0, 2], [1, 3], [0, 2], [1, 3]]
    assert "dp_shard      in a node: 0,2 | 1,3" in answers[0][2]
