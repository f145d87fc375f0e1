"""Which rank writes and reads which piece of a state: what torch.distributed.checkpoint plans, and
what it asks of a storage.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
)
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from hpcgeo.checkpoint.rank_files import (
    DTYPES,
    INDEX,
    INDEX_ENTRIES,
    Stored,
    Value,
    patiently,
)
from hpcgeo.checkpoint.safetensors import header
from hpcgeo.errors import InputError


def flatten(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested state by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in state.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def put_back(flat: Mapping[str, Any], state: dict[str, Any], prefix: str = "") -> None:
    """Put what `flatten` took out of `state` back in its place."""
    for name, value in state.items():
        if isinstance(value, dict):
            put_back(flat, value, f"{prefix}{name}.")
        else:
            state[name] = flat[prefix + name]


def _shard(state: Mapping[str, Any], index: MetadataIndex) -> Any:
    """Return this rank's piece; an engine's own leaves answer for themselves, as DTensor does."""
    leaf = state[index.fqn]
    return leaf.__get_tensor_shard__(index) if hasattr(leaf, "__get_tensor_shard__") else leaf


class Saving(DefaultSavePlanner):
    """Plans a save of a flat state."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> Any:
        return _shard(self.state_dict, index)

    def transform_object(self, write_item: WriteItem, object: Any) -> Any:
        return object  # the default turns what is no tensor into a pickle


class Loading(DefaultLoadPlanner):
    """Plans a load into a flat state."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,
    ) -> None:
        # The default also walks the state, and leaves None where it knows no type.
        self.state_dict = self.original_state_dict = state_dict
        self.metadata = metadata
        self.is_coordinator = is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        return _shard(self.state_dict, index)

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        loaded = json.load(value)
        self.state_dict[name] = (
            tuple(loaded) if isinstance(self.state_dict[name], tuple) else loaded
        )


def local_pieces(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return every piece of a state that this rank holds, replicas too, by name and offsets."""
    planner = Saving()
    planner.set_up_planner(flatten(state))
    return {
        f"{item.index.fqn} {list(item.index.offset or ())}": planner.resolve_data(item)
        for item in planner.create_local_plan().items
    }


class StateLayout(StorageWriter):
    """Where every piece of a state goes, found out by a save that writes nothing.

    What a file will hold is known before it is written, so its bytes may be copied now and written
    later, by another thread; and a later state of the same shapes needs no plan: for a thousand
    tensors and their options that is a quarter of a second.

    Attributes:
        size: bytes of this rank's file.
        total_bytes: of all files of pieces; on rank 0 alone.
    """

    def __init__(self, flat: dict[str, Any], group: dist.ProcessGroup) -> None:
        """Plan for a flat state; every rank of the group calls it."""
        self.size = 0
        self.total_bytes = 0
        self._header = torch.empty(0, dtype=torch.uint8)
        self._items: list[WriteItem] = []
        self._index: dict[str, Any] = {}
        self._planner = Saving()
        save(flat, storage_writer=self, planner=self._planner, process_group=group)

    def pieces(self, flat: dict[str, Any]) -> list[Tensor]:
        """Return what this rank's file holds of a state, in its order: a header, the tensors."""
        self._planner.state_dict = flat
        pieces = [self._header]
        for item in self._items:
            piece: Any = self._planner.resolve_data(item)
            assert item.tensor_data and piece.dtype == item.tensor_data.properties.dtype
            assert piece.numel() == math.prod(item.tensor_data.chunk.sizes)
            pieces.append(piece.detach())
        return pieces

    def index(self, flat: dict[str, Any]) -> dict[str, Any]:
        """Return the index of the whole state, with the values of this one; on rank 0 alone."""
        return {name: stored or {"value": flat[name]} for name, stored in self._index.items()}

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        rank = dist.get_rank()
        results = [WriteResult(i.index, 0, (rank, 0)) for i in plan.items if not i.tensor_data]
        tensors = [item for item in plan.items if item.tensor_data]
        # Of falling size of their numbers, so that each lies where it can be read as what it is.
        self._items = sorted(tensors, key=lambda item: -_kind(item)[0].itemsize)
        entries = {_name(item): _kind(item) for item in self._items}
        self._header = torch.frombuffer(bytearray(header(entries)), dtype=torch.uint8)
        self.size = len(self._header)
        for item, (dtype, sizes) in zip(self._items, entries.values(), strict=True):
            size = math.prod(sizes) * dtype.itemsize
            results.append(WriteResult(item.index, size, (rank, self.size)))
            self.size += size
        return _done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        places = {r.index: r.storage_data for of_rank in results for r in of_rank}
        for name, stored in metadata.state_dict_metadata.items():
            if isinstance(stored, BytesStorageMetadata):
                self._index[name] = {}
                continue
            self._index[name] = {
                "dtype": str(stored.properties.dtype).removeprefix("torch."),
                "size": stored.size,
                "chunks": [
                    (c.offsets, c.sizes, *places[MetadataIndex(name, c.offsets)])
                    for c in stored.chunks
                ],
            }
        ends = [
            max((r.storage_data[1] + r.size_in_bytes for r in of_rank), default=0)
            for of_rank in results
        ]
        self.total_bytes = sum(ends)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


class Reader(StorageReader):
    """Reads pieces of a state from files whose checksums were found right."""

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """Read the index.

        Args:
            sizes: bytes of the files with pieces, by name.

        Raises:
            ValueError: the index is no index, or points outside the files.
        """
        self._folder = folder
        self._sizes = sizes
        self._files = {int(name[5:].partition(".")[0]): name for name in sizes if name != INDEX}
        try:
            path = folder / INDEX
            self._index = INDEX_ENTRIES.validate_json(patiently(path, path.read_bytes))
        except InputError:
            raise
        except (ValidationError, OSError) as error:
            raise ValueError(f"{INDEX} is no index: {str(error).splitlines()[0]}") from None
        self._places: dict[MetadataIndex, tuple[torch.dtype, tuple[int, ...], int, int]] = {}
        for name, stored in self._index.items():
            if isinstance(stored, Stored):
                self._places |= self._placed(name, stored)

    def _placed(self, name: str, stored: Stored) -> dict[MetadataIndex, Any]:
        dtype = DTYPES.get(stored.dtype)
        places = {}
        for offsets, sizes, rank, begin in stored.chunks:
            end = begin + math.prod(sizes) * (dtype.itemsize if dtype else 0)
            if (
                dtype is None
                or not len(offsets) == len(sizes) == len(stored.size)
                or begin % dtype.itemsize
                or end > self._sizes.get(self._files.get(rank, ""), 0)
            ):
                raise ValueError(f"{INDEX} places {name} where no such piece can be")
            places[MetadataIndex(name, offsets)] = (dtype, sizes, rank, begin)
        return places

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of all tensors by name."""
        return {
            name: torch.Size(stored.size)
            for name, stored in self._index.items()
            if isinstance(stored, Stored)
        }

    def fill(self, flat: dict[str, Any]) -> None:
        """Read a flat state, or part of one, in this process alone."""
        planner = Loading()
        planner.set_up_planner(flat, self.read_metadata(), is_coordinator=True)
        self.read_data(planner.create_local_plan(), planner)

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata

    @cached_property
    def _metadata(self) -> Metadata:
        known: dict[str, Any] = {}
        for name, stored in self._index.items():
            known[name] = (
                TensorStorageMetadata(
                    TensorProperties(DTYPES[stored.dtype]),
                    torch.Size(stored.size),
                    [
                        ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
                        for offsets, sizes, _, _ in stored.chunks
                    ],
                )
                if isinstance(stored, Stored)
                else BytesStorageMetadata()
            )
        return Metadata(known)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            stored = self._index[item.storage_index.fqn]
            if item.type == LoadItemType.BYTE_IO:
                assert isinstance(stored, Value)
                planner.load_bytes(item, io.BytesIO(json.dumps(stored.value).encode()))
                continue
            piece = self._piece(item.storage_index)
            for dim, (first, length) in enumerate(
                zip(item.storage_offsets, item.lengths, strict=True)
            ):
                piece = piece.narrow(dim, first, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(piece)
            planner.commit_tensor(item, target)
        return _done(None)

    def _piece(self, index: MetadataIndex) -> Tensor:
        """Return a piece where it lies: only the pages that are copied from are read.

        The file is mapped for this piece alone, so that what was read takes no memory any more.
        """
        dtype, sizes, rank, begin = self._places[index]
        name = self._files[rank]
        mapped = torch.from_file(
            str(self._folder / name), shared=False, size=self._sizes[name], dtype=torch.uint8
        )
        end = begin + math.prod(sizes) * dtype.itemsize
        return mapped[begin:end].view(dtype).reshape(sizes)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


def _kind(item: WriteItem) -> tuple[torch.dtype, Sequence[int]]:
    """Return data type and shape of a piece."""
    assert item.tensor_data
    return item.tensor_data.properties.dtype, item.tensor_data.chunk.sizes


def _name(item: WriteItem) -> str:
    """Return the name of a piece in its file: with its offsets, where it is not the whole."""
    assert item.tensor_data
    chunk, whole = item.tensor_data.chunk, item.tensor_data.size
    return item.index.fqn if chunk.sizes == whole else f"{item.index.fqn} {list(chunk.offsets)}"


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
