"""Checkpoints: any layout to any other, damage, pickles, a full disk, what is kept."""

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from hpcgeo.checkpoint.checkpoints import Checkpoints, reader_of
from hpcgeo.checkpoint.manifest import sealed
from hpcgeo.checkpoint.rank_files import entry_of
from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.job_options import Checkpoint
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import Topology
from tests.distributed import ALL, on_ranks
from tests.parallel.training import build, run


class Setting(NamedTuple):
    """A way to spread a model over so many ranks."""

    strategy: str
    ranks: int
    group_size: int | None = None
    tensor: int = 1

    def __str__(self) -> str:
        group = f"({self.group_size})" if self.group_size else ""
        return f"{self.strategy}{group} {self.ranks}{f' tensor {self.tensor}' * (self.tensor > 1)}"

    def build(self) -> tuple[Engine, Topology]:
        """Return the engine of this rank."""
        options = {"strategy": self.strategy, "group_size": self.group_size, "tensor": self.tensor}
        return build(options)


SETTINGS = [
    Setting("DDP", 1),
    Setting("FULL_SHARD", 3),
    Setting("FULL_SHARD", 4, tensor=2),
]
if ALL:
    SETTINGS += [
        Setting("FULL_SHARD", 2),
        Setting("HYBRID_SHARD", 4, 2),
        Setting("DDP", 2),
        Setting("ZERO3", 2),
        Setting("NO_SHARD", 2),
        Setting("SHARD_GRAD_OP", 4),
        Setting("ZERO1", 2),
        Setting("NO_SHARD", 2, tensor=2),
        Setting("ZERO2", 4),
        Setting("SHARD_GRAD_OP", 2),
        Setting("ZERO3_HPZ", 4, 2),
        Setting("FULL_SHARD", 4),
        Setting("ZERO0", 2),
    ]
GLOBAL_BATCH = 12
SAVED, STEPS = (4, 14) if ALL else (2, 5)


def checkpoints_in(folder: Path, kind: type[Checkpoints] = Checkpoints, **options: Any):
    return kind(folder, Checkpoint(**options), global_batch=GLOBAL_BATCH, data="digest")


def train_and_save(setting: Setting, folder: Path, asynchronous: bool) -> list[float]:
    """Train, save in the middle, train on; return all losses."""
    engine, topology = setting.build()
    checkpoints = checkpoints_in(folder, asynchronous=asynchronous)
    losses = []
    for step in range(STEPS):
        if step == SAVED:
            checkpoints.save(step, engine)
        losses += run(engine, topology, [step], 1, GLOBAL_BATCH)[0]
    checkpoints.wait()
    assert checkpoints.save_s > 0
    return losses


def resume_from(setting: Setting, folders: list[Path]) -> list[list[float]]:
    """Resume from each of the folders; return the losses of the steps after."""
    answers = []
    for folder in folders:
        engine, topology = setting.build()
        checkpoints = checkpoints_in(folder)
        assert checkpoints.restore(engine) == SAVED
        assert checkpoints.save_s > 0
        answers.append(run(engine, topology, range(SAVED, STEPS), 1, GLOBAL_BATCH)[0])
    return answers


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_layout_resumes_from_every_other(tmp_path: Path) -> None:
    """Each setting saves for two others: the losses after are those of one process alone."""
    folders = {setting: tmp_path / str(number) for number, setting in enumerate(SETTINGS)}
    trained = {
        setting: on_ranks(train_and_save, setting.ranks, setting, folder, number % 2 == 0)[0]
        for number, (setting, folder) in enumerate(folders.items())
    }
    expected = trained[SETTINGS[0]]
    lines = []
    for number, after in enumerate(SETTINGS):
        befores = [SETTINGS[(number + shift) % len(SETTINGS)] for shift in (1, 2)]
        sources = [folders[before] for before in befores]
        for rank in on_ranks(resume_from, after.ranks, after, sources):
            for before, losses in zip(befores, rank, strict=True):
                differences = [abs(a - b) for a, b in zip(losses, expected[SAVED:], strict=True)]
                lines.append(f"{before!s:22} -> {after!s:22} {max(differences):.1e}")
                assert max(differences) < 1e-6, lines[-1]
    for setting, losses in trained.items():
        assert losses == pytest.approx(expected, abs=1e-6), f"{setting}: a save disturbed it"
    print("\n" + "\n".join(dict.fromkeys(lines)))


def save_three(folder: Path) -> None:
    engine, topology = build({"strategy": "FULL_SHARD"})
    checkpoints = checkpoints_in(folder, keep=3)
    for step in (1, 2, 3):
        run(engine, topology, [step])
        checkpoints.save(step, engine)
    checkpoints.wait()


def restore_each(folders: list[Path]) -> list[tuple[int | str, str]]:
    """Return the step restored from each folder, or the error, and what was logged."""
    engine, _ = build({"strategy": "FULL_SHARD"})
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("hpcgeo").addHandler(handler)
    answers: list[tuple[int | str, str]] = []
    for folder in folders:
        said.clear()
        try:
            outcome: int | str = checkpoints_in(folder).restore(engine)
        except InputError as error:
            outcome = str(error)
        answers.append((outcome, " ".join(said)))
    return answers


class Malice:
    """What a pickle can do: here, leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


RANK = "rank-{:05d}.safetensors"


def flip(folder: Path) -> None:
    path = folder / RANK.format(1)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def forge(folder: Path) -> None:
    """An index that points outside the files, with digests that agree."""
    index = json.loads((folder / "index.json").read_text())
    name = next(name for name, stored in index.items() if "chunks" in stored)
    index[name]["chunks"][0][3] = 2**40
    text = json.dumps(index)
    (folder / "index.json").write_text(text)
    manifest = json.loads((folder / "step.json").read_text())
    manifest["files"]["index.json"] = entry_of(text)
    (folder / "step.json").write_text(sealed(manifest))


def edit(folder: Path) -> None:
    path = folder / "step.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 9'))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: None, ""),
    "a bit flipped": (flip, f"{RANK.format(1)} has other bytes than were written (checksum)"),
    "truncated": (lambda folder: os.truncate(folder / RANK.format(0), 100), "has 100 bytes, not"),
    "a file missing": (lambda folder: (folder / RANK.format(0)).unlink(), f"{RANK.format(0)} is m"),
    "manifest edited": (edit, "step.json: other bytes than were written (checksum)"),
    "manifest garbage": (lambda folder: (folder / "step.json").write_text("{"), "no manifest"),
    "manifest missing": (lambda folder: (folder / "step.json").unlink(), "No such file"),
    "index forged": (forge, "where no such piece can be"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    on_ranks(save_three, 2, folder)
    return folder


def test_a_damaged_checkpoint_is_named_and_set_aside(saved: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in DAMAGE]
    for folder, (spoil, _) in zip(folders, DAMAGE.values(), strict=True):
        shutil.copytree(saved, folder)
        (folder / "step-00000004.partial").mkdir()
        spoil(folder / "step-00000003")
    alone = tmp_path / "alone"
    shutil.copytree(saved / "step-00000003", alone / "step-00000003")
    flip(alone / "step-00000003")
    by_rank = on_ranks(restore_each, 2, [*folders, alone, alone])
    for number, (name, (_, words)) in enumerate(DAMAGE.items()):
        assert [rank[number][0] for rank in by_rank] == [2 if words else 3] * 2, name
        said = by_rank[0][number][1]
        assert words in said
        assert not words or f"{folders[number]}/step-00000003 is damaged: " in said
        third = "step-00000003.damaged" if words else "step-00000003"
        names = {path.name for path in folders[number].iterdir()}
        assert names == {"step-00000001", "step-00000002", third}
    for rank in by_rank:
        for outcome, _ in rank[-2:]:  # a run is not silently started anew, nor at the second try
            assert f"every checkpoint in {alone} is damaged (step-00000003.dam" in str(outcome)


def restore_as(folder: Path, run: dict[str, str]) -> int | str:
    engine, _ = build({"strategy": "FULL_SHARD"})
    checkpoints = Checkpoints(
        folder, Checkpoint(), global_batch=GLOBAL_BATCH, data="digest", run=run
    )
    try:
        return checkpoints.restore(engine)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ["step.json", "index.json", RANK.format(1)])
def test_what_cannot_be_read_is_not_damaged(saved: Path, tmp_path: Path, name: str) -> None:
    """A link to itself cannot be opened (ELOOP), as a file of storage that does not answer."""
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    path = folder / "step-00000003" / name
    path.rename(tmp_path / "kept")
    path.symlink_to(path)
    for said in on_ranks(restore_as, 2, folder, {}):
        assert f"{path} cannot be read just now" in str(said) and "nothing was changed" in str(said)
    path.unlink()
    (tmp_path / "kept").rename(path)
    assert on_ranks(restore_as, 2, folder, {}) == [3, 3]


def test_a_copy_under_another_name_replaces_nothing(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "step-00000002", folder / "step-00000030")
    assert on_ranks(restore_as, 1, folder, {}) == [3]
    assert {path.name for path in folder.glob("step-*30*")} == {"step-00000030.damaged"}


def test_a_checkpoint_of_another_run_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(saved / "step-00000003", folder / "step-00000003")
    path = folder / "step-00000003" / "step.json"
    manifest = json.loads(path.read_text()) | {"run": {"seed": "1", "model.name": "vit_tiny"}}
    path.write_text(sealed(manifest))
    (said,) = on_ranks(restore_as, 1, folder, {"seed": "0", "model.name": "vit_tiny", "new": "x"})
    assert "was written by another run (there -> here: seed: 1 -> 0)" in str(said)
    assert on_ranks(restore_as, 1, folder, {"seed": "1", "model.name": "vit_tiny"}) == [3]


def test_any_tool_opens_the_file_of_a_rank(saved: Path) -> None:
    """Every piece of every tensor stands in one of them, by its name and offsets."""
    folder = saved / "step-00000003"
    whole = {name: torch.empty(shape) for name, shape in reader_of(folder).shapes().items()}
    reader_of(folder).fill(whole)
    found = dict.fromkeys(whole, 0)
    for rank in range(2):
        for key, piece in load_file(folder / RANK.format(rank)).items():
            name, _, offsets = key.partition(" ")
            begins = json.loads(offsets) if offsets else [0] * piece.ndim
            place = tuple(slice(a, a + n) for a, n in zip(begins, piece.shape, strict=True))
            assert torch.equal(whole[name][place], piece), key
            found[name] += piece.numel()
    assert found == {name: value.numel() for name, value in whole.items()}
    assert any(name.endswith(".exp_avg") for name in found)


def test_files_without_a_header_are_read(saved: Path, tmp_path: Path) -> None:
    """As they were called before; where a piece lies the index says."""
    folder = tmp_path / "old" / "step-00000003"
    shutil.copytree(saved / "step-00000003", folder)
    manifest = json.loads((folder / "step.json").read_text())
    for rank in range(2):
        old = f"rank-{rank:05d}.bin"
        (folder / RANK.format(rank)).rename(folder / old)
        manifest["files"][old] = manifest["files"].pop(RANK.format(rank))
    (folder / "step.json").write_text(sealed(manifest))
    assert on_ranks(restore_each, 1, [folder.parent])[0][0][0] == 3


def test_a_pickle_is_never_loaded(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    folder = tmp_path / "run" / "step-00000007"
    folder.mkdir(parents=True)
    (folder / ".metadata").write_bytes(pickle.dumps(Malice(mark)))
    shutil.copy(saved / "step-00000003" / RANK.format(0), folder / "__0_0.distcp")
    ours = tmp_path / "ours"
    shutil.copytree(saved, ours)
    (ours / "step-00000003" / ".metadata").write_bytes(pickle.dumps(Malice(mark)))
    ((refused, _), (step, _)) = on_ranks(restore_each, 1, [folder.parent, ours])[0]
    assert "step-00000007 was not written by hpcgeo: its .metadata is a pickle" in str(refused)
    assert step == 3
    assert folder.exists() and not mark.exists()
    pickle.loads((folder / ".metadata").read_bytes())
    assert mark.exists(), "the pickle of this test is harmless"


def save_six(folder: Path) -> list[int]:
    engine, _ = build({"strategy": "DDP"})
    checkpoints = checkpoints_in(folder, every=1, keep=2, keep_every=3)
    for step in range(1, 7):
        checkpoints.save(step, engine)
    checkpoints.wait()
    return checkpoints.steps()


def test_the_newest_and_every_nth_are_kept(tmp_path: Path) -> None:
    assert on_ranks(save_six, 1, tmp_path / "checkpoints") == [[3, 5, 6]]
    with pytest.raises(InputError, match="keep_every 150 is no multiple of every 100"):
        load("mae_vit_tiny", ["checkpoint.every=100", "checkpoint.keep_every=150"])


class Late(Checkpoints):
    """Another job fills the disk after this one has found room on it."""

    def _find_room(self, step: int) -> None:
        super()._find_room(step)
        fill_up(self.folder.parent, 4 * 2**20)


def fill_up(disk: Path, leave: int) -> None:
    """Leave so many bytes free; remove what did so before."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leave)


def save_on_a_full_disk(disk: Path) -> list[str]:
    engine, _ = build({"strategy": "FULL_SHARD"})
    folder = disk / "checkpoints"
    checkpoints = checkpoints_in(folder)
    checkpoints.save(1, engine)
    checkpoints.wait()
    (total,) = {sum(path.stat().st_size for path in folder.glob("*1/rank*"))}
    said = []
    for asynchronous in (True, False):
        late = checkpoints_in(folder, Late, asynchronous=asynchronous)
        with pytest.raises(InputError) as failed:
            late.save(2, engine)
            late.save(3, engine)
        said.append(str(failed.value))
        if dist.get_rank() == 0:
            assert [path.name for path in folder.iterdir()] == ["step-00000001"]
            (disk / "ballast").unlink()
            # room for the pieces, not for the index
            fill_up(disk, total + 8192)
        dist.barrier()
        for free in (total + 8192, total - 4096):
            if dist.get_rank() == 0:
                fill_up(disk, free)
            dist.barrier()
            with pytest.raises(InputError) as failed:
                checkpoints.save(2, engine)
                checkpoints.wait()
            said.append(str(failed.value))
        if dist.get_rank() == 0:
            assert [path.name for path in folder.iterdir()] == ["step-00000001"]
            (disk / "ballast").unlink()
        dist.barrier()
    checkpoints.save(4, engine)
    checkpoints.wait()
    assert checkpoints.restore(engine) == 4
    return said


def test_a_full_disk_is_one_clear_error_on_every_rank(small_disk: Path) -> None:
    first, second = on_ranks(save_on_a_full_disk, 2, small_disk)
    assert first == second
    for number, message in enumerate(first):
        assert "the checkpoint of step 2 could not be written: rank" in message
        assert "older checkpoints (steps 1) are untouched: make room" in message
        words = ["No space left on device (its file needs", "No space left", "are needed, "]
        assert words[number % 3] in message
        assert "bytes" in message or number % 3 == 1
    print("\n" + "\n".join(first[:3]))


class Slice:
    """A rank's slice of a vector, in an engine that keeps no tensors by name, as DeepSpeed does."""

    def __init__(self, size: int) -> None:
        self.size_of_all = size
        self.first, self.mine = self.bounds()
        self.values = torch.zeros(self.mine)

    def bounds(self) -> tuple[int, int]:
        rank, world = dist.get_rank(), dist.get_world_size()
        first, last = (number * self.size_of_all // world for number in (rank, rank + 1))
        return first, last - first

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(torch.Size([self.first]), torch.Size([self.mine]))]

    def __create_write_items__(self, name: str, leaf: Any) -> list[WriteItem]:
        (chunk,) = self.__create_chunk_list__()
        size = torch.Size([self.size_of_all])
        data = TensorWriteData(chunk, TensorProperties.create_from_tensor(self.values), size)
        return [WriteItem(MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, None, data)]

    def __get_tensor_shard__(self, index: MetadataIndex) -> torch.Tensor:
        return self.values


class Sliced:
    """The part of an engine that checkpoints see."""

    def __init__(self) -> None:
        self.slice, self.betas = Slice(11), (0.0, 0.0)

    def state(self) -> dict[str, Any]:
        return {"model": {"w": self.slice}, "optimizer": {"betas": self.betas}}

    def load(self, state: dict[str, Any]) -> None:
        assert state["model"]["w"] is self.slice
        self.betas = state["optimizer"]["betas"]


def save_slices(folder: Path) -> None:
    engine: Any = Sliced()
    engine.slice.values.copy_(torch.arange(11.0)[engine.slice.first :][: engine.slice.mine])
    engine.betas = (0.9, 0.95)
    checkpoints = checkpoints_in(folder)
    checkpoints.save(5, engine)
    engine.slice.values.zero_()  # trained on: the copy is not concerned
    checkpoints.wait()


def load_slices(folder: Path) -> list[float]:
    engine: Any = Sliced()
    assert checkpoints_in(folder).restore(engine) == 5
    assert engine.betas == (0.9, 0.95)
    return engine.slice.values.tolist()


def test_an_engines_own_leaves_travel_too(tmp_path: Path) -> None:
    on_ranks(save_slices, 2, tmp_path / "checkpoints")
    answers = on_ranks(load_slices, 3, tmp_path / "checkpoints")
    assert [value for answer in answers for value in answer] == list(range(11))
