"""What the network of labelled samples is built for: bands and size of their images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.sample import Observation
from hpcgeo.errors import InputError
from hpcgeo.objectives.objective import Material
from hpcgeo.options import Model, Task


def material_of(
    model: Any, options: Model, sets: Mapping[str, TaskSet], tasks: Mapping[str, Task]
) -> Material:
    """Return what a network is built for, from the first sample of each data set.

    Args:
        model: its architecture.
        options: of the model.
        sets: training splits by task.
        tasks: their options.

    Raises:
        InputError: the backbone reads images of one set of bands and one size, and these are not.
    """
    channels = tuple(sorted({channel for part in sets.values() for channel in part.channels}))
    made = Material(
        *(model, 0, None, channels, sets, tasks),
        *(options.density, options.drop_path, options.lora_rank),
    )
    if model.any_sensor:
        return made
    first = {name: part.read(0).observations for name, part in sets.items()}
    shapes = {name: [seen.values.shape[2:] for seen in each] for name, each in first.items()}
    bands = {name: [seen.channels for seen in each] for name, each in first.items()}
    name = next(iter(sets))
    for other, each in shapes.items():
        if len(each) != 1 or len(each[0]) != 2:
            raise InputError(
                f"task {other}: model.name {model.name} reads one image a sample, and these hold "
                f"{len(each)} observations or vectors: choose a Perceiver (`hpcgeo list models`)"
            )
        if (each, bands[other]) != (shapes[name], bands[name]):
            raise InputError(
                f"tasks {name} and {other} differ in bands or size ({_image(first[name])}; "
                f"{_image(first[other])}), and model.name {model.name} reads one set of bands at "
                f"one size: give data.tasks.NAME.size, leave one out (data.only), or choose a "
                f"Perceiver"
            )
    [chip], [seen] = shapes[name], bands[name]
    model.num_patches(chip)
    return replace(made, channels=tuple(seen), bands=len(seen), chip=tuple(chip))


def _image(seen: Sequence[Observation]) -> str:
    bands = ", ".join(f"{channel.sensor} {channel.band}" for channel in seen[0].channels)
    return f"{bands} of {' x '.join(map(str, seen[0].values.shape[2:]))} pixels"
