"""Features of whole splits, computed once: shared out over the ranks, kept in files, memory-mapped.

    FOLDER/FINGERPRINT/
        about.json        what they are of: weights, data, transform, sizes
        truth.npy         (N, ...) labels
        clusters.json     (N,) locations
        block-09.npy      (N, 2 W) class token and mean of the patches; or (N, T, W), (N, h, w, W)

Batches are cut by index, so that their numbers do not depend on how many ranks there are.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch.distributed as dist

from hpcgeo import __version__
from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoder import Prepared
from hpcgeo.evaluate.protocols.protocol import Described
from hpcgeo.evaluate.protocols.sharing import shared_out
from hpcgeo.files import write_text
from hpcgeo.kinds.target import Array
from hpcgeo.log import log, track
from hpcgeo.parallel.group import barrier

#: Samples of a forward.
BATCH = 32


@dataclass(frozen=True)
class SplitFeatures:
    """What an encoder says of all samples of a split.

    Attributes:
        blocks: what is kept of each block, by its number; memory-mapped.
        truth: labels, as their kind has them.
        clusters: (N,) locations.
        poolings: of `vectors`, columns by name; of others nothing.
    """

    blocks: Mapping[int, Array]
    truth: Array
    clusters: list[str]
    poolings: Mapping[str, Callable[[Any], Any]]

    def candidates(self, rows: Array | None = None) -> dict[str, Described]:
        """Return the features by what they are ("block 9, mean"), of some samples (n,) or all."""
        found = {}
        for block, kept in self.blocks.items():
            for pooling, of in self.poolings.items():
                found[f"block {block}, {pooling}"] = self._described(of(kept), rows)
            if not self.poolings:
                found[f"block {block}"] = self._described(kept, rows)
        return found

    def _described(self, vectors: Array, rows: Array | None) -> Described:
        if rows is None:
            return Described(vectors, self.truth, self.clusters)
        return Described(vectors[rows], self.truth[rows], [self.clusters[row] for row in rows])


def extracted(
    prepared: Prepared,
    part: LabelledSplit,
    blocks: Sequence[int],
    *,
    kept: str = "vectors",
    poolings: Sequence[str] = (),
    folder: Path,
    name: str,
    group: dist.ProcessGroup | None = None,
) -> SplitFeatures:
    """Return the features of a split: those in the folder, or computed and kept there.

    Every rank calls it; the folder is one that all of them see.

    Args:
        prepared: the encoder, and how it reads this data.
        part: the split, as it was opened.
        blocks: their numbers.
        kept: one of `Encoder.keeps`.
        poolings: of vectors, of `Encoder.poolings`; by default all.
        folder: where features are kept.
        name: of the split, for people.
        group: of the ranks; None: this process alone.

    Raises:
        InputError: a sample cannot be read, or there is no room.
    """
    encoder, normalised = prepared.encoder, prepared.split(part)
    about = {
        "encoder": encoder.fingerprint,
        "data": part.fingerprint,
        "changed": part.collection.changed,
        "target": repr(part.target),
        "samples": hashlib.blake2b(part.indices.tobytes(), digest_size=8).hexdigest(),
        "transform": prepared.transform,
        **prepared.frame(part),
        "kept": kept,
        "hpcgeo": __version__,
    }
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()
    place = folder / key
    missing = shared_out([partial(_missing, place, blocks)], group)[0]
    try:
        if missing:
            _compute(prepared, normalised, missing, kept, place, about, name, group)
        arrays = {
            block: np.load(_file(place, block), mmap_mode="r", allow_pickle=False)
            for block in blocks
        }
        truth = np.load(place / "truth.npy", allow_pickle=False)
        clusters = json.loads((place / "clusters.json").read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"features in {error.filename or place}: {error.strerror}; choose another folder with "
            f"--cache"
        ) from None
    of = {name: encoder.poolings[name] for name in poolings or encoder.poolings}
    return SplitFeatures(arrays, truth, clusters, of if kept == "vectors" else {})


def _file(place: Path, block: int) -> Path:
    return place / f"block-{block:02d}.npy"


def _missing(place: Path, blocks: Sequence[int]) -> list[int]:
    return [block for block in blocks if not _file(place, block).exists()]


def _compute(
    prepared: Prepared,
    part: LabelledSplit,
    blocks: Sequence[int],
    kept: str,
    place: Path,
    about: Mapping[str, Any],
    name: str,
    group: dist.ProcessGroup | None,
) -> None:
    """Write the features of some blocks; each rank those of its batches, into the same files."""
    rank, ranks = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    shape = shared_out([partial(_shape, prepared, part, blocks, kept)], group)[0]
    aside = place / shared_out([_own_name], group)[0]  # another probe may be at the same features
    if rank == 0:
        _begin(aside, blocks, (len(part), *shape))
    if group is not None:
        barrier()
    firsts = range(0, len(part), BATCH)
    pieces = [
        partial(_write, prepared, part, blocks, kept, aside, firsts[n::ranks], name, n)
        for n in range(ranks)
    ]
    labels = [labels for some in shared_out(pieces, group) for labels in some]
    if rank == 0:
        labels.sort(key=lambda each: each[0])
        np.save(aside / "truth.npy", np.concatenate([truth for _, truth, _ in labels]))
        clusters = [one for *_, some in labels for one in some]
        write_text(aside / "clusters.json", json.dumps(clusters))
        write_text(aside / "about.json", json.dumps(about, indent=2) + "\n")
        for path in sorted(aside.iterdir(), key=lambda path: path.name.startswith("block")):
            path.replace(place / path.name)  # blocks last: where one is, the rest is
        aside.rmdir()
        size = sum(_file(place, block).stat().st_size for block in blocks)
        log.info("%s: features of %d samples, %.1f MB, in %s", name, len(part), size / 1e6, place)
    if group is not None:
        barrier()


def _shape(
    prepared: Prepared, part: LabelledSplit, blocks: Sequence[int], kept: str
) -> tuple[int, ...]:
    [features] = prepared.features([part.read(0)], blocks[:1], kept)
    return tuple(features.shape[1:])


def _begin(place: Path, blocks: Sequence[int], shape: tuple[int, ...]) -> None:
    """Create the files, where there is room for them."""
    place.mkdir(parents=True, exist_ok=True)
    needed = len(blocks) * 4 * int(np.prod(shape, dtype=np.int64))
    if (free := shutil.disk_usage(place).free) < needed:
        raise InputError(
            f"{place}: {needed / 1e9:.1f} GB of features, and {free / 1e9:.1f} GB are free: "
            f"choose another folder with --cache, or fewer blocks with --blocks"
        )
    for block in blocks:
        np.lib.format.open_memmap(_file(place, block), "w+", np.float32, shape)


def _own_name() -> str:
    return f"{uuid4().hex}.partial"


def _write(
    prepared: Prepared,
    part: LabelledSplit,
    blocks: Sequence[int],
    kept: str,
    place: Path,
    firsts: Sequence[int],
    name: str,
    rank: int,
) -> list[tuple[int, Array, list[str]]]:
    """Write the features of batches; return first sample, labels and clusters of each."""
    files = [np.lib.format.open_memmap(_file(place, block), "r+") for block in blocks]
    labels = []
    batches = track(_read(part, firsts), name, len(firsts), shown=rank == 0)
    for first, samples in batches:
        rows = slice(first, first + len(samples))
        found = prepared.features(samples, blocks, kept)
        for file, features in zip(files, found, strict=True):
            file[rows] = features.cpu().numpy()
        truth = np.stack([sample.target for sample in samples])
        labels.append((first, truth, [part.group(index) for index in range(*rows.indices(2**62))]))
    for file in files:
        file.flush()
    return labels


def _read(part: LabelledSplit, firsts: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
    """Yield batches of samples; the next ones are read while one is computed."""

    def batch(first: int) -> list[Any]:
        return [part.read(index) for index in range(first, min(first + BATCH, len(part)))]

    ahead = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(ahead) as pool:
        waiting = [(first, pool.submit(batch, first)) for first in firsts[:ahead]]
        for number in range(len(firsts)):
            first, coming = waiting.pop(0)
            samples = coming.result()
            if number + ahead < len(firsts):
                following = firsts[number + ahead]
                waiting.append((following, pool.submit(batch, following)))
            yield first, samples
