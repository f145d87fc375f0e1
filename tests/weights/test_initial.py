"""`model.weights`: every rank finds its rows in a file, ours or transformers', and trains on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.weights.export import export
from hpcgeo.weights.initial import Start
from hpcgeo.zoo import architecture
from tests.ranks import train
from tests.weights.test_export import trained, untrained

TINY = architecture("vit_tiny")


@pytest.fixture(scope="module", params=["safetensors", "transformers"])
def weights(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Tensor]]:
    """A file, and the weights it was made from."""
    folder = tmp_path_factory.mktemp("start")
    run = untrained(folder / "run", "data.chip=32", scale=0.1)
    export(run, request.param, folder / "out")
    return folder / "out" / "model.safetensors", trained(run, 7).state_dict()


def test_any_rows_are_found(weights: tuple[Path, dict[str, Tensor]]) -> None:
    path, expected = weights
    start = Start(path, TINY, {name: value.shape for name, value in expected.items()})
    generator = torch.Generator().manual_seed(0)
    for name, value in expected.items():
        ends = torch.randint(len(value) + 1, (6, 2), generator=generator).sort(dim=1)[0].tolist()
        for rows in (slice(None), *(slice(*pair) for pair in ends), slice(len(value), len(value))):
            found = start.rows(name, value.shape, rows)
            assert torch.equal(found, value[rows]), (name, rows)


def test_a_run_starts_from_them_on_two_ranks(
    weights: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    """One step at next to no learning rate leaves them as they were."""
    path, expected = weights
    options = [f"model.weights={path}", "parallel.strategy=FULL_SHARD", "optim.base_lr=1e-30"]
    last = ["train.steps=1", "optim.warmup_steps=0", "checkpoint.every=1"]
    code, said = train(tmp_path / "run", 2, *options, *last)
    assert code == 0, said
    found = trained(tmp_path / "run", 1).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_file_that_does_not_fit_is_refused(
    weights: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, expected = weights
    shapes = {name: value.shape for name, value in expected.items()}
    with pytest.raises(InputError, match=r"has shape .*, which does not fit backbone\.embed"):
        Start(path, TINY, shapes | {"backbone.embed.weight": (128, 5 * 64)})
    with pytest.raises(InputError, match="no weight"):
        Start(path, TINY, shapes | {"backbone.blocks.4.mlp.into.weight": (512, 128)})
    with pytest.raises(InputError, match=r"model\.weights .*absent: No such file"):
        Start(tmp_path / "absent", TINY, shapes)
    (tmp_path / "pickle").write_bytes(b"\x80\x02cposix\nsystem\n")
    with pytest.raises(InputError, match=r"model\.weights .*pickle: not a safetensors file"):
        Start(tmp_path / "pickle", TINY, shapes)
    with pytest.raises(InputError, match=r"no run and no model\.safetensors in it: give a run"):
        Start(tmp_path, TINY, shapes)
    assert Start(path.parent, TINY, shapes).names == Start(path, TINY, shapes).names
