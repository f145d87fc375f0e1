"""How a run prepares its images, in the words of transformers and of timm.

A run takes the largest centred part that has the shape of a chip, resizes it (bilinear,
antialiased) and normalises each band by the moments of the data set
(`hpcgeo.data.views.Views.plain`). Both libraries resize through Pillow, which knows one or three
bands of 8 bits; what they cannot express is said where weights are exported.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import ONLY, fingerprint_of
from hpcgeo.data.shards.dataset import Dataset, open_dataset
from hpcgeo.errors import InputError
from hpcgeo.options import Data

#: Bilinear, in Pillow's numbers of filters.
_BILINEAR = 2


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a backbone reads it.

    Attributes:
        bands, sensor: of the data set.
        dtype: of its pixels.
        chip: height and width of what the backbone reads.
        mean, std: of each band, in the numbers of the first layout.
        nodata: value of missing pixels, which become the mean; None: there are none.
        num_layouts: of the data set, each with its own scale and offset.
    """

    bands: tuple[str, ...]
    sensor: str | None
    dtype: np.dtype[Any]
    chip: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nodata: float | None
    num_layouts: int

    def metadata(self) -> dict[str, str]:
        """Return what the file of the weights says of itself."""
        words = {name: json.dumps(getattr(self, name)) for name in ("bands", "mean", "std")}
        return words | ({"sensor": self.sensor} if self.sensor else {})

    def transformers(self) -> dict[str, Any]:
        """Return preprocessor_config.json: the shorter side resized, the centre cropped."""
        height, width = self.chip
        size = {"size": {"shortest_edge": min(self.chip)}, "resample": _BILINEAR}
        crop = {"crop_size": {"height": height, "width": width}}
        return {
            "image_processor_type": "BitImageProcessor",
            "do_convert_rgb": self._is_pillow and len(self.bands) == 3,
            "do_resize": self._is_pillow,
            "do_center_crop": self._is_pillow,
            **(size | crop if self._is_pillow else {"input_data_format": "channels_first"}),
            "do_rescale": self._white != 1,
            "rescale_factor": 1 / self._white,
            "do_normalize": True,
            "image_mean": [value / self._white for value in self.mean],
            "image_std": [value / self._white for value in self.std],
        }

    def timm(self) -> dict[str, Any]:
        """Return what timm's `resolve_model_data_config` finds in pretrained_cfg."""
        return {
            "mean": [value / self._white for value in self.mean],
            "std": [value / self._white for value in self.std],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
        }

    def limits(self) -> Iterator[str]:
        """Say what neither library expresses, each with what to do instead."""
        height, width = self.chip
        if not self._is_pillow:
            scale = ", for timm divided by 255" if self._white != 1 else ""
            yield (
                f"they resize 1 or 3 bands of uint8, this run reads {len(self.bands)} of "
                f"{self.dtype}: give arrays (bands, {height}, {width}){scale}"
            )
        if self.nodata is not None:
            yield (
                f"they know no missing pixels: set those of {self.nodata:g} to the mean of their "
                f"band"
            )
        if self.num_layouts > 1:
            yield (
                f"{self.num_layouts} layouts differ in scale, offset or nodata: mean and deviation "
                f"are in the numbers of the first"
            )

    @property
    def _is_pillow(self) -> bool:
        """Whether Pillow resizes such images as the run does."""
        return self.dtype == np.uint8 and len(self.bands) in (1, 3)

    @property
    def _white(self) -> int:
        """What both libraries divide pixels by."""
        return 255 if self.dtype == np.uint8 else 1


def preprocessing(run: RunConfig, chip: tuple[int, int], checkpoint: Path) -> Preprocessing:
    """Return how a run prepares its images.

    Args:
        run: its configuration.
        chip: height and width of its images.
        checkpoint: folder of the weights, which say what data they were trained on.

    Raises:
        InputError: the data set is not there, is another one, or is not of one kind of images.
    """
    name, data = _images(run)
    dataset = open_dataset(data)
    trained_on = json.loads((checkpoint / "step.json").read_text("utf-8")).get("data")
    if trained_on not in (dataset.fingerprint, fingerprint_of({name: dataset.fingerprint})):
        raise InputError(f"{data.path} was built anew")
    return _of(dataset, chip)


def has_one_preparation(run: RunConfig) -> bool:
    """Return whether a run reads the images of one set of `hpcgeo data build`."""
    if isinstance(run.data, Data):
        return True
    return [task.reader for task in run.data.chosen.values()] == ["shards"]


def _images(run: RunConfig) -> tuple[str, Data]:
    """Return the only data set of a run, with its name among samples."""
    if isinstance(run.data, Data):
        return ONLY, run.data
    if not has_one_preparation(run):
        raise InputError("each of its data sets has its own")
    [(name, task)] = run.data.chosen.items()
    return name, Data(path=str(task.path))


def _of(dataset: Dataset, chip: tuple[int, int]) -> Preprocessing:
    nodata = float(dataset.nodata[0])
    floats = np.issubdtype(dataset.dtype, np.floating)
    return Preprocessing(
        bands=dataset.bands,
        sensor=dataset.sensor,
        dtype=dataset.dtype,
        chip=chip,
        mean=tuple(dataset.mean[0].tolist()),
        std=tuple(np.where(dataset.std[0] != 0, dataset.std[0], 1).tolist()),
        nodata=None if np.isnan(nodata) and not floats else nodata,
        num_layouts=len(dataset.mean),
    )
