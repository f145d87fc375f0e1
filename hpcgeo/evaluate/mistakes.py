"""What went most wrong: of samples of one class each, those that are surest taken for another."""

from base64 import b64encode
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.data.sample import Sample
from hpcgeo.evaluate.protocols.protocol import Described, FittedModels
from hpcgeo.kinds.states import Confusion
from hpcgeo.kinds.table import kind_of
from hpcgeo.pictures.pages import stretched, visible
from hpcgeo.scores import Mistake
from hpcgeo.sensors import sensors

#: How many are kept, and pixels on a side of their pictures.
MOST, SIDE = 12, 72
#: Of a JPEG.
QUALITY = 80


@torch.no_grad()
def mistakes(
    model: FittedModels, described: Described, part: LabelledSplit, *, rows: int
) -> tuple[Mistake, ...] | None:
    """Return the samples of a split that a model gets most wrong, the worst first.

    That is by how far the answer to the class it says stands above that to the true one. None: its
    kind of task has no class for a sample.

    Args:
        model: of one setting.
        described: features of the split.
        part: the split.
        rows: samples that are answered at once.
    """
    kind, names = kind_of(part.target), part.target.names
    if kind.dense or Confusion not in kind.states:
        return None
    blocks = [slice(first, first + rows) for first in range(0, len(part), rows)]
    answers = torch.cat([model.answers(described.block(one))[0].double().cpu() for one in blocks])
    truth = torch.from_numpy(np.asarray(described.truth)).long()
    if answers.ndim != 2 or answers.shape[1] != len(names) or truth.ndim != 1:
        return None
    known = (truth >= 0).nonzero()[:, 0]
    said = answers.argmax(1)
    wrong = known[said[known] != truth[known]]
    margin = answers[wrong, said[wrong]] - answers[wrong, truth[wrong]]
    worst = wrong[margin.argsort(descending=True, stable=True)][:MOST].tolist()
    return tuple(
        Mistake(
            sample=index,
            truth=names[int(truth[index])],
            taken_for=names[int(said[index])],
            picture=_picture(part.read(index)),
        )
        for index in worst
    )


def _picture(sample: Sample) -> str | None:
    """Return the first image of a sample as a small JPEG in base64; None: it has none."""
    seen = sample.observations[0]
    if seen.values.ndim != 4:
        return None
    sensor = seen.channels[0].sensor
    bands = visible([one.band for one in seen.channels], sensor if sensor in sensors() else None)
    rgb = seen.values[:1, bands]
    pixels = (255 * stretched(rgb, rgb)[0]).astype(np.uint8).transpose(1, 2, 0)
    held = BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE)).save(held, "JPEG", quality=QUALITY)
    return b64encode(held.getvalue()).decode()
