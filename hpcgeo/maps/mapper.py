"""Scenes are opened, shared among ranks, blended, written; one that is broken is named at the end,
and the others are made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hpcgeo.data.sample import Float32
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Array
from hpcgeo.log import log
from hpcgeo.maps.blending import Ask, Bool, strips
from hpcgeo.maps.journal import Done, Journal
from hpcgeo.maps.layers import SceneWords
from hpcgeo.maps.progress import pace
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.scenes import NamedScene
from hpcgeo.maps.shares import PIECES, Shares, cut
from hpcgeo.maps.tiles import Tiling
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.workloads.preparation import PreparedTask

#: Ending of the picture beside a map.
PICTURE = ".png"


@dataclass(frozen=True)
class Plan:
    """A scene that can be mapped: its number, fingerprint, tiles, and strips that are missing."""

    scene: int
    fingerprint: str
    tiling: Tiling
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A scene that could not be mapped, and why."""

    name: str
    reason: str


@dataclass
class SceneGroup:
    """Scenes that all ranks work at together.

    Attributes:
        plans: of those that are to be mapped.
        failures: those that cannot be.
        skipped: number of those that are mapped already.
        end: number of the first scene behind them.
    """

    plans: list[Plan] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    end: int = 0


class Product(Protocol):
    """What is made of scenes.

    Attributes:
        ending: of the file of a scene.
        prepared: how pixels are prepared.
        every_date: see `SceneReader`.
        scale: pixels on a side of a cell.
        tile, overlap: rows and columns of a tile, and what neighbours share, in cells.
        num_outputs: of the model, K.
        batch: tiles that are answered together.
        words: what the user says of bands and dates.
    """

    ending: str
    prepared: PreparedTask
    every_date: bool
    scale: int
    tile: tuple[int, int]
    overlap: tuple[int, int]
    num_outputs: int
    batch: int
    words: SceneWords

    @property
    def ask(self) -> Ask:
        """The model."""

    def made_with(self) -> Mapping[str, Any]:
        """Return model and options as plain values: what is there must have the same."""

    def look(self, reader: SceneReader) -> None:
        """Refuse a scene that cannot be answered for, or warn of it."""

    def encode(self, mean: Float32, there: Bool) -> Array:
        """Return what is kept of averages (K, h, W) of cells, nodata where none is there."""

    def write(
        self, path: Path, reader: SceneReader, fingerprint: str, parts: Iterator[tuple[int, Array]]
    ) -> None:
        """Write the file of a scene, whole or not at all.

        Args:
            path: of the file.
            reader: the open scene.
            fingerprint: of its files.
            parts: first row and what is kept of each strip.
        """


class Mapper:
    """Makes something of scenes in a folder, with all ranks."""

    def __init__(self, out: Path, product: Product, *, force: bool) -> None:
        """Join the others, and take over the folder; every rank calls it.

        Args:
            out: the folder.
            product: what is made.
            force: make anew what was made otherwise.

        Raises:
            InputError: it holds what was made otherwise, or is in use.
        """
        self._product, self._force = product, force
        self._journal, self._shares = Journal(out, product.ending), Shares()
        on_rank_0(lambda: self._journal.claim(product.made_with(), force=force))

    def map(self, found: Sequence[NamedScene]) -> bool:
        """Map scenes; every rank calls it with the same. Return whether all could be mapped.

        Raises:
            InputError: a map, or its picture, would be written over a file that is read.
        """
        self._refuse_overwriting(found)
        failures: list[Failure] = []
        first = skipped = 0
        while first < len(found):
            group = on_rank_0(partial(self._plan, found, first))
            first, skipped = group.end, skipped + group.skipped
            failures += group.failures
            failures += self._map_group(found, group.plans)
        for failure in failures:
            log.error("%s: no map: %s", failure.name, failure.reason)
        there = f" ({skipped} were there already)" if skipped else ""
        log.info(
            "%s: %d of %d scenes are mapped%s",
            *(self._journal.folder, len(found) - len(failures), len(found), there),
        )
        return not failures

    def _refuse_overwriting(self, found: Sequence[NamedScene]) -> None:
        read = {path.resolve() for scene in found for path in scene.paths}
        for scene in found:
            path = self._journal.map_of(scene.name)
            for made in (path, path.with_suffix(PICTURE)):
                if made.resolve() in read:
                    raise InputError(
                        f"{made} is a scene, and what is made of {scene.name} would be written "
                        f"over it: choose another --out"
                    )

    def _plan(self, found: Sequence[NamedScene], first: int) -> SceneGroup:
        """Open scenes until there is work for all ranks; rank 0 alone calls it."""
        group, strips_left, product = SceneGroup(), 0, self._product
        for number in range(first, len(found)):
            scene = found[number]
            group.end = number + 1
            try:
                fingerprint = scene.fingerprint()
                if self._journal.is_done(scene.name, fingerprint, force=self._force):
                    group.skipped += 1
                    continue
                with self._reader(scene) as reader:
                    product.look(reader)
                    grid = reader.grid.in_cells(product.scale)
            except InputError as error:
                group.failures.append(Failure(scene.name, str(error)))
                continue
            tiling = Tiling(grid.height, grid.width, product.tile, product.overlap)
            self._journal.begin(scene.name, fingerprint)
            missing = self._journal.missing(scene.name, len(tiling.strips))
            group.plans.append(Plan(number, fingerprint, tiling, tuple(missing)))
            strips_left += len(missing)
            if self._shares.world == 1 or strips_left >= PIECES * self._shares.world:
                break
        return group

    def _reader(self, scene: NamedScene) -> SceneReader:
        product = self._product
        return SceneReader(scene, product.prepared, product.words, product.every_date)

    def _map_group(self, found: Sequence[NamedScene], plans: Sequence[Plan]) -> list[Failure]:
        """Make the strips of scenes, then their files; every rank calls it together."""
        shares, failures = self._shares, dict[int, Failure]()
        pieces = [
            (number, run)
            for number, plan in enumerate(plans)
            for run in cut(plan.missing, shares.world)
        ]
        for number, run in shares.claim(pieces):
            scene = found[plans[number].scene]
            if number not in failures:
                try:
                    self._make_strips(scene, plans[number], run)
                except InputError as error:
                    failures[number] = Failure(scene.name, str(error))
        failed = {one.name: one for one in shares.gather(list(failures.values()))}
        done: list[Done | Failure] = []
        for plan in shares.claim([one for one in plans if found[one.scene].name not in failed]):
            try:
                done.append(self._write(found[plan.scene], plan))
            except InputError as error:
                done.append(Failure(found[plan.scene].name, str(error)))
        for one in shares.gather(done):
            if isinstance(one, Failure):
                failed[one.name] = one
            elif shares.rank == 0:
                self._journal.finish(one)
        return list(failed.values())

    def _make_strips(self, scene: NamedScene, plan: Plan, run: Sequence[int]) -> None:
        tiling, product = plan.tiling, self._product
        columns = len(tiling.lefts)
        cells = tiling.height * tiling.width // (len(tiling.tops) * columns)
        pixels, shown = cells * product.scale**2, self._shares.rank == 0
        with (
            self._reader(scene) as reader,
            pace(scene.name, len(run) * columns, pixels, shown=shown) as alive,
        ):
            some = strips(
                reader,
                tiling,
                run,
                product.ask,
                product.num_outputs,
                product.batch,
                alive,
                product.scale,
            )
            for number, mean, there in some:
                self._journal.keep(scene.name, number, product.encode(mean, there))

    def _write(self, scene: NamedScene, plan: Plan) -> Done:
        """Put the strips of a scene together."""
        with self._reader(scene) as reader:
            path = self._journal.map_of(scene.name)
            self._product.write(path, reader, plan.fingerprint, self._strips(scene, plan))
            height, width = reader.grid.height, reader.grid.width
        return Done(name=scene.name, scene=plan.fingerprint, height=height, width=width)

    def _strips(self, scene: NamedScene, plan: Plan) -> Iterator[tuple[int, Array]]:
        for number, (top, _) in enumerate(plan.tiling.strips):
            yield top, np.load(self._journal.strip_of(scene.name, number), allow_pickle=False)


def said(words: SceneWords) -> dict[str, Any]:
    """Return what the user says of scenes as plain values."""
    plain = asdict(words)
    return {
        "sensor": plain["bands"]["sensor"],
        "bands": list(plain["bands"]["names"] or ()),
        "dates": list(plain["dates"] or ()),
    }
