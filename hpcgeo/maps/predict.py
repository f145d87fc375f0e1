"""Maps of whole scenes by a run: classes, probabilities or numbers of every pixel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcgeo import __version__
from hpcgeo.data.sample import Float32
from hpcgeo.errors import InputError
from hpcgeo.kinds.maps import FORMS, MapForm
from hpcgeo.kinds.target import Array
from hpcgeo.launch.environment import discover
from hpcgeo.log import log, set_up
from hpcgeo.maps.asking import Asking
from hpcgeo.maps.blending import Ask, Bool
from hpcgeo.maps.geotiff import RasterForm, limited, write_map
from hpcgeo.maps.layers import SceneWords
from hpcgeo.maps.mapper import PICTURE, Mapper, said
from hpcgeo.maps.model import MapModel, TaskAnswers, open_model
from hpcgeo.maps.picture import draw
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.scenes import scenes
from hpcgeo.maps.tiles import MOST, USUAL, shared
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
    overlap: float = USUAL
    tile: int | None = None
    batch: int = 16
    words: SceneWords = field(default_factory=SceneWords)
    pictures: bool = True
    force: bool = False


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
    what, dtype = form_of(model, options)
    tile = model.tile(options.tile)
    found = scenes(named, out)
    device = meet(model.run, environment, str(out))
    answers = TaskAnswers(model, device)
    product = PixelMap(model, answers, Asking(answers, device), options, what, dtype, tile)
    with limited():
        return Mapper(out, product, force=options.force).map(found)


def form_of(model: MapModel, options: MapOptions) -> tuple[str, str]:
    """Return what maps show, a key of FORMS, and the data type of their pixels.

    Raises:
        InputError: the task has no such map, or it is not of that data type.
    """
    fitting, count = model.kind.maps, len(model.prepared.target.names)
    name = options.what or fitting[0]
    form = find(FORMS, name, "map")
    if name not in fitting:
        raise InputError(
            f"--what {name}: task {model.task} is a {model.prepared.target.kind}: choose "
            f"{' or '.join(fitting)}"
        )
    dtypes = [dtype for dtype in form.dtypes if form.holds(count, dtype)]
    dtype = options.dtype or dtypes[0]
    if dtype not in dtypes:
        raise InputError(f"--dtype {dtype}: a map of {name} has {' or '.join(dtypes)}")
    if not 0 <= options.overlap <= MOST:
        raise InputError(f"--overlap {options.overlap:g}: a fraction from 0 to {MOST:g}")
    return name, dtype


class PixelMap:
    """A map of every pixel; see `hpcgeo.maps.mapper.Product`."""

    ending, scale = ".tif", 1

    def __init__(
        self,
        model: MapModel,
        answers: TaskAnswers,
        ask: Ask,
        options: MapOptions,
        what: str,
        dtype: str,
        tile: tuple[int, int],
    ) -> None:
        """Take model and options; see `predict`."""
        self.ask, self.batch, self.words = ask, options.batch, options.words
        self.prepared, self.every_date = model.prepared, model.kind.every_date
        self.num_outputs, self.tile = len(model.prepared.target.names), tile
        down, across = (shared(side, options.overlap, model.step_of_tiles) for side in tile)
        self.overlap = down, across
        self._model, self._what, self._dtype = model, what, dtype
        self._form: MapForm = FORMS[what]
        self._fingerprint, self._pictures = answers.fingerprint, options.pictures
        self._told = False

    def made_with(self) -> dict[str, Any]:
        return {
            "model": self._fingerprint,
            "step": self._model.step,
            "task": self._model.task,
            "what": self._what,
            "dtype": self._dtype,
            "tile": list(self.tile),
            "overlap": list(self.overlap),
            "batch": self.batch,
            **said(self.words),
        }

    def look(self, reader: SceneReader) -> None:
        """Warn of pixels of another size than the model has seen, once of sizes not known."""
        known, here = self.prepared.gsd_m, reader.gsd_m()
        if not (known and math.isfinite(here)) and self.prepared.chip and not self._told:
            self._told = True
            log.warning(
                "%s: nothing says how large its pixels are, or were in training: they are read as "
                "those of the %d x %d px that the model was given; bring scenes to that scale",
                *(reader.scene.name, *self.prepared.chip),
            )
        if known and math.isfinite(here) and not known[0] / UNLIKE < here < known[1] * UNLIKE:
            log.warning(
                "%s: pixels of %.3g m, and task %s was trained on %s m: bring the scene to those "
                "(gdalwarp -tr), or the map may mean little",
                *(reader.scene.name, here, self._model.task),
                " to ".join(dict.fromkeys(f"{each:.3g}" for each in known)),
            )

    def encode(self, mean: Float32, there: Bool) -> Array:
        return self._form.encode(mean, there, self._dtype)

    def write(
        self, path: Path, reader: SceneReader, fingerprint: str, parts: Iterator[tuple[int, Array]]
    ) -> None:
        form, dtype, target = self._form, self._dtype, self.prepared.target
        file = RasterForm(
            dtype=dtype,
            nodata=form.nodata(dtype),
            bands=form.bands(target),
            scale=form.scale(dtype),
            overviews=form.overviews,
            colours=form.colours(target) if dtype == "uint8" else {},
            tags=form.tags(target) | self._provenance(reader, fingerprint),
        )
        write_map(path, reader.grid, file, parts)
        if self._pictures:
            draw(path.with_suffix(PICTURE), reader, path, form, target)

    def _provenance(self, reader: SceneReader, fingerprint: str) -> dict[str, str]:
        model = self._model
        return {
            "HPCGEO_VERSION": __version__,
            "HPCGEO_RUN": model.folder.resolve().name,
            "HPCGEO_STEP": str(model.step),
            "HPCGEO_TASK": model.task,
            "HPCGEO_MODEL_FINGERPRINT": self._fingerprint,
            "HPCGEO_SCENE": " ".join(path.name for path in reader.scene.paths),
            "HPCGEO_SCENE_FINGERPRINT": fingerprint,
            "HPCGEO_TILE": "x".join(map(str, self.tile)),
            "HPCGEO_OVERLAP": "x".join(map(str, self.overlap)),
        }
