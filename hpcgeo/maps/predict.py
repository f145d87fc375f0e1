"""Maps of whole scenes by a run: opened, shared among ranks, blended, written; one that is broken
is named at the end, and the others are made.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hpcgeo import __version__
from hpcgeo.errors import InputError
from hpcgeo.kinds.maps import FORMS, MapForm
from hpcgeo.kinds.target import Array
from hpcgeo.launch.environment import discover
from hpcgeo.log import log, set_up
from hpcgeo.maps.blending import strips
from hpcgeo.maps.geotiff import RasterForm, limited, write_map
from hpcgeo.maps.journal import Done, Journal
from hpcgeo.maps.layers import SceneWords
from hpcgeo.maps.model import Answers, MapModel, open_model
from hpcgeo.maps.picture import draw
from hpcgeo.maps.progress import pace
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.scenes import NamedScene, scenes
from hpcgeo.maps.shares import PIECES, Shares, cut
from hpcgeo.maps.tiles import Tiling, shared
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.tables import find
from hpcgeo.train.loop import meet

#: Pixels that are so many times larger or smaller than any in training are warned of.
UNLIKE = 1.5


@dataclass(frozen=True)
class MapOptions:
    """How maps are made.

    Attributes:
        what: they show, a key of FORMS; None: the usual of the kind of task.
        dtype: of their pixels; None: the usual one.
        overlap: fraction of a tile that neighbours share, 0 to 0.5.
        tile: side of a tile in pixels; None: that of the chips in training.
        batch: tiles that are answered together.
        words: what the user says of bands and dates.
        pictures: draw each scene beside its map.
        force: make maps anew that were made otherwise.
    """

    what: str | None = None
    dtype: str | None = None
    overlap: float = 0.5
    tile: int | None = None
    batch: int = 16
    words: SceneWords = field(default_factory=SceneWords)
    pictures: bool = True
    force: bool = False


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
class Group:
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


def predict(
    folder: Path,
    named: Sequence[str],
    out: Path,
    options: MapOptions,
    *,
    task: str | None = None,
    step: int | None = None,
    moved: Sequence[str] = (),
) -> bool:
    """Map scenes; every rank calls it. Return whether all could be mapped.

    Args:
        folder: of the run.
        named: scenes, see `hpcgeo.maps.scenes.scenes`.
        out: folder of the maps.
        options: how they are made.
        task: that is answered; None: the only one of pixels.
        step: of the checkpoint; None: the newest.
        moved: see `hpcgeo.weights.export.config_of`.

    Raises:
        InputError: run, scenes, folder and options do not fit together.
    """
    environment = discover()
    set_up(environment.rank, environment.host)
    model = open_model(folder, task, step, moved)
    form_name, form, dtype = form_of(model, options)
    tile = model.tile(options.tile)
    found = scenes(named, out)
    device = meet(model.run, environment, str(out))
    mapper = Mapper(model, Answers(model, device), options, out, form_name, form, dtype, tile)
    on_rank_0(mapper.claim)
    with limited():
        return mapper.map(found)


def form_of(model: MapModel, options: MapOptions) -> tuple[str, MapForm, str]:
    """Return name, form and data type of the maps.

    Raises:
        InputError: the task has no such map, or it is not of that data type.
    """
    kinds_maps, count = model.kind.maps, len(model.prepared.target.names)
    name = options.what or kinds_maps[0]
    find(FORMS, name, "map")
    if name not in kinds_maps:
        raise InputError(
            f"--what {name}: task {model.task} is a {model.prepared.target.kind}: choose "
            f"{' or '.join(kinds_maps)}"
        )
    form = FORMS[name]
    small = [dtype for dtype in form.dtypes if name != "class" or count < np.iinfo(dtype).max]
    dtype = options.dtype or small[0]
    if dtype not in small:
        raise InputError(f"--dtype {dtype}: a map of {name} has {' or '.join(small)}")
    if not 0 <= options.overlap <= 0.5:
        raise InputError(f"--overlap {options.overlap:g}: a fraction from 0 to 0.5")
    return name, form, dtype


class Mapper:
    """What all maps of a start have in common."""

    def __init__(
        self,
        model: MapModel,
        answers: Answers,
        options: MapOptions,
        out: Path,
        what: str,
        form: MapForm,
        dtype: str,
        tile: tuple[int, int],
    ) -> None:
        """Take it; see `predict`."""
        self._model, self._answers, self._options, self._what = model, answers, options, what
        self._form, self._dtype, self._tile = form, dtype, tile
        self._journal, self._shares = Journal(out), Shares()
        sides = (shared(side, options.overlap, model.step_of_tiles) for side in tile)
        self._overlap = next(sides), next(sides)

    def claim(self) -> None:
        """Take over the folder of maps; rank 0 alone calls it."""
        self._journal.claim(self._made_with(), force=self._options.force)

    def _made_with(self) -> dict[str, Any]:
        """Return model and options, as they are compared with those of maps that are there."""
        options, words = self._options, asdict(self._options.words)
        return {
            "model": self._answers.fingerprint,
            "step": self._model.step,
            "task": self._model.task,
            "what": self._what,
            "dtype": self._dtype,
            "tile": list(self._tile),
            "overlap": list(self._overlap),
            "batch": options.batch,
            "sensor": words["bands"]["sensor"],
            "bands": list(words["bands"]["names"] or ()),
            "dates": list(words["dates"] or ()),
        }

    def map(self, found: Sequence[NamedScene]) -> bool:
        """Map scenes; every rank calls it with the same. Return whether all could be mapped."""
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

    def _plan(self, found: Sequence[NamedScene], first: int) -> Group:
        """Open scenes until there is work for all ranks; rank 0 alone calls it."""
        group, strips_left, force = Group(), 0, self._options.force
        for number in range(first, len(found)):
            scene = found[number]
            group.end = number + 1
            try:
                fingerprint = scene.fingerprint()
                if self._journal.is_done(scene.name, fingerprint, force=force):
                    group.skipped += 1
                    continue
                with self._reader(scene) as reader:
                    self._compare_pixels(reader)
                    tiling = Tiling(
                        reader.grid.height, reader.grid.width, self._tile, self._overlap
                    )
            except InputError as error:
                group.failures.append(Failure(scene.name, str(error)))
                continue
            self._journal.begin(scene.name, fingerprint)
            missing = self._journal.missing(scene.name, len(tiling.strips))
            group.plans.append(Plan(number, fingerprint, tiling, tuple(missing)))
            strips_left += len(missing)
            if self._shares.world == 1 or strips_left >= PIECES * self._shares.world:
                break
        return group

    def _reader(self, scene: NamedScene) -> SceneReader:
        kind = self._model.kind
        return SceneReader(scene, self._model.prepared, self._options.words, kind.every_date)

    def _compare_pixels(self, reader: SceneReader) -> None:
        """Warn of pixels of another size than the model has seen."""
        known = self._model.prepared.gsd_m
        here = reader.gsd_m()
        if known and math.isfinite(here) and not known[0] / UNLIKE < here < known[1] * UNLIKE:
            log.warning(
                "%s: pixels of %.3g m, and task %s was trained on %s m: bring the scene to those "
                "(gdalwarp -tr), or the map may mean little",
                *(reader.scene.name, here, self._model.task),
                " to ".join(dict.fromkeys(f"{each:.3g}" for each in known)),
            )

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
        tiling, names = plan.tiling, self._model.prepared.target.names
        columns = len(tiling.lefts)
        pixels = tiling.height * tiling.width // (len(tiling.tops) * columns)
        shown = self._shares.rank == 0
        with (
            self._reader(scene) as reader,
            pace(scene.name, len(run) * columns, pixels, shown=shown) as alive,
        ):
            for number, mean, there in strips(
                reader, tiling, run, self._answers, len(names), self._options.batch, alive
            ):
                pixels_of = self._form.encode(mean, there, self._dtype)
                self._journal.keep(scene.name, number, pixels_of)

    def _write(self, scene: NamedScene, plan: Plan) -> Done:
        """Put the strips of a scene together."""
        target, path = self._model.prepared.target, self._journal.map_of(scene.name)
        with self._reader(scene) as reader:
            grid = reader.grid
            form = RasterForm(
                self._dtype,
                self._form.nodata(self._dtype),
                self._form.bands(target),
                self._form.scale(self._dtype),
                self._form.overviews,
                self._form.colours(target) if self._dtype == "uint8" else {},
                self._form.tags(target) | self._provenance(scene, plan),
            )
            write_map(path, grid, form, self._strips(scene, plan))
            if self._options.pictures:
                draw(path.with_suffix(".png"), reader, path, self._form, target)
        return Done(name=scene.name, scene=plan.fingerprint, height=grid.height, width=grid.width)

    def _strips(self, scene: NamedScene, plan: Plan) -> Iterator[tuple[int, Array]]:
        for number, (top, _) in enumerate(plan.tiling.strips):
            yield top, np.load(self._journal.strip_of(scene.name, number))

    def _provenance(self, scene: NamedScene, plan: Plan) -> dict[str, str]:
        model = self._model
        return {
            "HPCGEO_VERSION": __version__,
            "HPCGEO_RUN": model.folder.resolve().name,
            "HPCGEO_STEP": str(model.step),
            "HPCGEO_TASK": model.task,
            "HPCGEO_MODEL_FINGERPRINT": self._answers.fingerprint,
            "HPCGEO_SCENE": " ".join(path.name for path in scene.paths),
            "HPCGEO_SCENE_FINGERPRINT": plan.fingerprint,
            "HPCGEO_TILE": "x".join(map(str, self._tile)),
            "HPCGEO_OVERLAP": "x".join(map(str, self._overlap)),
        }
