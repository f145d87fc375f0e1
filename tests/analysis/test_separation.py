"""What is unlike stays apart; what was asked to lie together says so; nothing else is mixed."""

import pytest
from typer.testing import CliRunner

from hpcgeo.cli.main import app
from hpcgeo.errors import InputError
from hpcgeo.records import append
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render


def lines(records, *together):
    return [list(comparison.lines) for comparison in compare(points(records), together)]


def study(make):
    """DDP ran in another precision than the others, as in the published study."""
    records = [make("DDP", n, 0.2, dtype="float32") for n in (1, 4)]
    records += [make(name, n, 0.1, dtype="bfloat16") for name in ("A", "B") for n in (1, 4)]
    return records


SURROUNDINGS = {
    "versions": {"torch": "2.13.0", "cuda": "13.0", "nccl": "2.28"},
    "driver": "nvidia 580",
    "environment": {"NCCL_ALGO": "Ring", "OMP_NUM_THREADS": "4"},
}


@pytest.mark.parametrize(
    ("other", "said", "footnote"),
    [
        (
            {"versions": {"torch": "2.13.0", "cuda": "13.0", "nccl": "2.29"}},
            "software nccl 2.29",
            "nccl 2.29 (base: 2.28)",
        ),
        (
            {"driver": "nvidia 590"},
            "software driver nvidia 590",
            "driver nvidia 590 (base: nvidia 580)",
        ),
        (
            {"environment": {"NCCL_ALGO": "Tree", "OMP_NUM_THREADS": "1"}},
            "environment NCCL_ALGO Tree",
            "NCCL_ALGO Tree (base: Ring)",
        ),
        (
            {"versions": {"torch": "2.12.0", "cuda": "13.0", "nccl": "2.28"}},
            "torch 2.12.0",
            "torch 2.12.0 (base: 2.13.0)",
        ),
        ({"environment": {}}, "environment not recorded", "NCCL_ALGO not set (base: Ring)"),
    ],
    ids=["software", "driver", "variable", "torch", "unset"],
)
def test_other_surroundings_mark_a_point_and_part_a_size(make, other, said, footnote):
    """A line has one point a size: the other surroundings mark it; of two points each is a line."""
    base, larger = make(**SURROUNDINGS), make(devices=4, **SURROUNDINGS | other)
    (comparison,) = compare(points([base, larger]))
    assert [scaled.footnotes for scaled in comparison.scaled] == [(), (footnote,)]
    assert comparison.scaled[1].efficiency == pytest.approx(1)
    table = render([base, larger])["report.md"].decode()
    assert [
        line for line in table.splitlines() if line.startswith("| DDP | 4 |") and footnote in line
    ]

    repeat = make(step_s=0.3, **SURROUNDINGS | other)
    (comparison,) = compare(points([base, repeat]))
    assert f"DDP {said}" in comparison.lines and len(comparison.lines) == 2
    assert not any("OMP" in line or "cuda" in line for line in comparison.lines)


def test_a_line_is_parted_in_no_more_than_it_needs(make):
    """Torch tells two points of one size apart; a variable that differs between sizes does not."""
    records = [make(devices=n, environment={"KMP_BLOCKTIME": str(n)}) for n in (1, 2, 4)]
    records.append(make(devices=4, versions={"torch": "2.14.0"}))
    (comparison,) = compare(points(records))
    assert {line: len(found) for line, found in comparison.lines.items()} == {
        "DDP torch 2.13.0": 3,
        "DDP torch 2.14.0": 1,
    }


#: A variable of each meaning, as launchers, sites and users set them.
BARE = {"KMP_DUPLICATE_LIB_OK": "True", "TORCH_CPP_LOG_LEVEL": "ERROR"}
TORCHRUN = {**BARE, "OMP_NUM_THREADS": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}
MPIRUN = {**BARE, "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_pml": "ob1"}
SRUN = {**BARE, "MPICH_GPU_SUPPORT_ENABLED": "1"}


@pytest.mark.parametrize("launched", [TORCHRUN, MPIRUN, SRUN], ids=["torchrun", "mpirun", "srun"])
def test_who_starts_the_ranks_counts_for_nothing(make, launched):
    records = [make(devices=1, environment=BARE), make(devices=2, environment=launched)]
    (comparison,) = compare(points(records))
    assert list(comparison.lines) == ["DDP"]
    assert [scaled.efficiency for scaled in comparison.scaled] == pytest.approx([1, 1])
    assert [scaled.footnotes for scaled in comparison.scaled] == [(), ()]


def test_repeats_under_two_launchers_are_one_point(make):
    (point,) = points([make(devices=2, environment=each) for each in (TORCHRUN, MPIRUN)])
    assert len(point.records) == 2


def frontier(make, nodes, network=None, **fields):
    """A record as on Frontier, whose jobs name a network on more than one node."""
    job = {"NCCL_NET": network, "FI_MR_CACHE_MONITOR": "kdreg2"} if network and nodes > 1 else {}
    variables = {**SRUN, "OMP_NUM_THREADS": "7", "NCCL_SOCKET_IFNAME": "hsn0", **job}
    names = {"machine": "frontier", "device": "AMD Instinct MI250X"}
    fields = {**names, "environment": variables, "nodes": nodes, **fields}
    return make("FULL_SHARD", 8 * nodes, **fields)


def test_a_network_of_several_nodes_leaves_one_curve(make):
    (comparison,) = compare(points([frontier(make, nodes, "OFI") for nodes in (1, 2, 4, 8)]))
    assert list(comparison.lines) == ["FULL_SHARD"]
    assert [scaled.base.devices for scaled in comparison.scaled] == [8] * 4
    assert [scaled.footnotes for scaled in comparison.scaled] == [()] * 4
    assert not comparison.setting


def test_two_networks_are_two_comparisons_from_one_base(make):
    records = [frontier(make, nodes, network) for nodes in (2, 4) for network in ("OFI", "Socket")]
    found = compare(points([frontier(make, 1), *records]))
    assert [[scaled.point.nodes for scaled in each.scaled] for each in found] == [[1, 2, 4]] * 2
    assert ["NCCL_NET OFI" in each.setting for each in found] == [True, False]
    assert "NCCL_SOCKET_IFNAME" not in found[0].setting  # both have it
    (together,) = compare(points([frontier(make, 1), *records]), ["transport"])
    names = [
        "FULL_SHARD",
        "FULL_SHARD transport NCCL_NET OFI",
        "FULL_SHARD transport NCCL_NET Socket",
    ]
    assert sorted(line.split(", FI_")[0] for line in together.lines) == names


def test_asked_together_they_share_axes_and_say_so(make):
    assert lines(study(make)) == [["A", "B"], ["DDP"]]
    assert lines(study(make), "dtype") == [["DDP float32", "A bfloat16", "B bfloat16"]]
    files = render(study(make), together=["dtype"])
    said = "lines differ in dtype: DDP float32; others bfloat16"
    assert f"As asked, {said}." in files["report.md"].decode()
    assert f"As asked, {said}." in files["report.html"].decode()


def test_the_report_says_who_stands_apart(make):
    text = render(study(make))["report.md"].decode()
    assert "dtype: DDP float32; others bfloat16." in text
    assert "Without a rival, not in the map: DDP (float32)." in text


def test_options_and_batches_lie_together_by_name(make):
    config = [{"data": {"workers": workers, "shuffle": True}} for workers in (0, 4)]
    records = [make(devices=n, config=each) for n in (1, 2) for each in config]
    assert lines(records, "data.workers") == [["DDP data.workers 0", "DDP data.workers 4"]]
    records = [make(devices=n, micro_batch=m) for n in (1, 4) for m in (8, 12)]
    assert lines(records, "micro_batch") == [["DDP micro-batch 12", "DDP micro-batch 8"]]
    records = [make(devices=n, global_batch=b, micro_batch=b // n) for n in (1, 2) for b in (8, 64)]
    assert lines(records, "global_batch")[-1] == ["DDP global-batch 64", "DDP global-batch 8"]


def test_a_new_machine_is_laid_over_published_points(make):
    config = {"data": {"workers": 4}}
    old = {"kind": "published", "machine": "old", "versions": {}, "step_s": None}
    records = [make(devices=n, config=config) for n in (1, 4)]
    records += [make(devices=n, images_per_s=50.0 * n, **old) for n in (1, 4)]
    assert len(lines(records)) == 2
    keys = ["machine", "kind", "configuration"]
    assert lines(records, *keys[:2]) == [["DDP"], ["DDP"]]
    (comparison,) = compare(points(records), keys)
    assert list(comparison.lines) == ["DDP old", "DDP testbed"]
    assert comparison.apart.startswith(
        "lines differ in machine: old and testbed and in kind: measured and published and in "
        "configuration:"
    )


def test_each_line_is_held_against_its_own_kind(make):
    (comparison,) = compare(points(study(make)), ["dtype"])
    assert [scaled.efficiency for scaled in comparison.scaled] == pytest.approx([1] * 6)


def test_asked_together_is_one_line_where_it_has_one_value_a_size(make):
    records = [make(devices=n, dtype="float32" if n == 1 else "bfloat16") for n in (1, 2, 4)]
    (comparison,) = compare(points(records), ["dtype"])
    assert list(comparison.lines) == ["DDP"]
    assert comparison.scaled[2].footnotes == ("bfloat16 (base: float32)",)
    assert comparison.scaled[2].efficiency == pytest.approx(1)
    records = [make(devices=n, micro_batch=8 * n) for n in (1, 2)]
    (comparison,) = (
        each for each in compare(points(records), ["micro_batch"]) if each.mode == "weak"
    )
    assert comparison.scaled[1].footnotes == ("micro-batch 16 (base: 8)",)


@pytest.mark.parametrize("key", ["torch", "software", "environment"])
def test_a_key_that_parts_nothing_is_refused(make, key):
    with pytest.raises(InputError, match=rf"--together {key}: .* share a line already.*leave it"):
        render([make()], together=[key])


@pytest.mark.parametrize("key", ["nonsense", "data.workers", "communication", "model", "options"])
def test_a_key_that_nothing_carries_is_refused(make, key):
    with pytest.raises(InputError, match=rf"--together {key}: .*choose from kind, .*micro_batch"):
        render([make()], together=[key])


def test_the_command_takes_keys(tmp_path, make):
    for record in study(make):
        append(tmp_path / "records.jsonl", record)
    words = ["report", str(tmp_path), "--out", str(tmp_path / "out"), "--together", "dtype, chip"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "lines differ in dtype" in (tmp_path / "out" / "report.html").read_text()


def test_steps_without_communication_never_compete(make):
    records = [make(step_s=0.1), make(step_s=0.01, communication="off")]
    assert lines(records) == [["DDP"]]
    assert [c.scaled[0].point.images_per_s for c in compare(points(records))] == [80]
    text = render(records)["report.md"].decode()
    assert "1 record without communication or reading: no training, ranked nowhere." in text


def test_a_doubled_micro_batch_shares_no_axes(make):
    records = [make(devices=n, micro_batch=m) for n in (1, 4) for m in (8, 16)]
    assert [c.fixed.split(" (")[0] for c in compare(points(records))] == [
        "8 images per device and step",
        "16 images per device and step",
    ]
