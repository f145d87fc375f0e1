"""Data sets from anyone: read, or one clear error; no crash, no hang, no memory as claimed."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.executors import run
from hpcgeo.data.shards.hdf5 import sha256
from hpcgeo.data.shards.index import Index, load, verify
from hpcgeo.data.shards.settings import Settings
from hpcgeo.errors import InputError
from tests.data.rasters import noise
from tests.foreign.mutations import damaged, many, texts, trees
from tests.foreign.reading import Reader

half = settings(many, max_examples=many.max_examples // 2)  # plain and compressed


@pytest.fixture(scope="module")
def read() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.stop()


@pytest.fixture(scope="module", params=["none", "gzip"])
def whole(request: pytest.FixtureRequest, folder: Path, read: Reader) -> Path:
    """A small set with a class; its shard file is shards.h5."""
    photos = folder / "photos" / "class"
    photos.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        Image.fromarray(noise(16, 16, 3, seed=number)).save(photos / f"{number}.png")
    there = folder / request.param
    how = Settings(16, compression=request.param)
    assert run(lambda over: build(photos.parent, there, how, over).num_failed, 1) == 0
    assert read(there) == "whole"
    return there


@pytest.fixture
def there(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "set"))


def shard_file(there: Path) -> Path:
    [path] = there.glob("*.h5")
    return path


def sign(there: Path, tree: Any) -> None:
    """Write an index as its own author would: with the digest that fits."""
    path = there / "index.json"
    path.write_text(json.dumps(tree))
    with contextlib.suppress(ValueError):  # whoever reads it has to say so
        path.write_text(Index.model_validate_json(path.read_text()).signed().model_dump_json())


@half
@given(data=st.data())
def test_an_index_with_other_values(
    whole: Path, there: Path, read: Reader, data: st.DataObject
) -> None:
    """The digest fits: what is refused is refused for what it says."""
    sign(there, data.draw(trees(json.loads((whole / "index.json").read_text()))))
    assert read(there) in ("whole", "damaged", "refused")


@half
@given(data=st.data())
def test_an_index_with_other_text(
    whole: Path, there: Path, read: Reader, data: st.DataObject
) -> None:
    content = (whole / "index.json").read_text()
    (there / "index.json").write_bytes(data.draw(texts(content) | damaged(content.encode())))
    assert read(there) in ("whole", "refused")


@half
@given(data=st.data())
def test_a_damaged_shard_file(whole: Path, there: Path, read: Reader, data: st.DataObject) -> None:
    """Pixels may be wrong where only `verify` looks; everything else is said."""
    content = shard_file(whole).read_bytes()
    changed = data.draw(damaged(content) | damaged_head(content))
    shard_file(there).write_bytes(changed)
    assert (read(there) == "whole") == (changed == content)


@st.composite
def damaged_head(draw: st.DrawFn, content: bytes) -> bytes:
    """The same, where HDF5 keeps its own structures: at both ends, around the pixels."""
    end = 3 * 16 * 16 * 3
    head, tail = content[:4096], content[4096 + end :]
    if draw(st.booleans()):
        return bytes(draw(damaged(head))) + content[4096:]
    return content[: 4096 + end] + bytes(draw(damaged(tail)))


@pytest.mark.parametrize("name", ["pixels", "valid"])
@pytest.mark.parametrize("what", ["group", "huge", "text", "shape", "soft", "external", "virtual"])
def test_a_shard_file_of_other_arrays(
    whole: Path, there: Path, read: Reader, name: str, what: str
) -> None:
    """Well-formed HDF5 with an index to fit, in which an array is not what it should be."""
    path = shard_file(there)
    tree = json.loads((there / "index.json").read_text())
    [layout] = tree["layouts"].values()
    with h5py.File(path, "a") as file:
        array = file[name][:]
        del file[name]
        if what == "group":
            file.create_group(name)
        elif what == "huge":
            file.create_dataset(name, (2**60,), np.int32, chunks=(2**20,))
        elif what == "text":
            file[name] = np.full(array.shape, "text", dtype=h5py.string_dtype())
        elif what == "shape":
            file[name] = np.zeros((1, *array.shape), dtype=array.dtype)
        elif what == "soft":
            file[name] = h5py.SoftLink("/label")
        elif what == "external":
            file[name] = h5py.ExternalLink(str(shard_file(whole)), name)
        else:
            layout_of = h5py.VirtualLayout(array.shape, array.dtype)
            layout_of[...] = h5py.VirtualSource(shard_file(whole), name, array.shape)
            file.create_virtual_dataset(name, layout_of)
    [shard] = layout["shards"]
    shard |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    sign(there, tree)
    assert not verify(there, load(there))
    assert read(there) == "refused"


def test_a_plan_with_other_values(whole: Path, tmp_path: Path) -> None:
    photos = whole.with_name("photos")
    (tmp_path / "begun.h5").touch()  # a plan without a shard file is replaced
    for text in ("{}", "[]", "[" * 10_000, '{"settings": [], "sources": 1}', "\xff"):
        (tmp_path / "plan.json").write_text(text, "latin-1")
        with pytest.raises(InputError, match="damaged; remove"):
            run(lambda work: build(photos, tmp_path, Settings(16), work).num_failed, 1)
