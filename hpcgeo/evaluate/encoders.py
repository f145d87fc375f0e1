"""Where encoders come from: a run, an export, or public weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcgeo.config import RunConfig
from hpcgeo.data.readers.shards import named
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoder import Encoder
from hpcgeo.evaluate.image_encoder import IMAGE_ENCODERS, ImageEncoder, filled
from hpcgeo.evaluate.pretraining import pretraining
from hpcgeo.evaluate.sample_encoder import SampleEncoder
from hpcgeo.log import log
from hpcgeo.models.backbone import backbone
from hpcgeo.options import Mixture
from hpcgeo.parallel.device import usable_device
from hpcgeo.weights.bands import metadata
from hpcgeo.weights.export import MergedWeights, chip_of, chosen, config_of
from hpcgeo.weights.initial import BACKBONE, Start, brief_names
from hpcgeo.weights.preprocessing import has_one_preparation, preprocessing
from hpcgeo.weights.public import public, public_weights
from hpcgeo.workloads.choice import as_samples
from hpcgeo.workloads.mixture import architecture_of
from hpcgeo.workloads.preparation import NAME as PREPARATION
from hpcgeo.workloads.preparation import kept_preparation
from hpcgeo.zoo import architecture


def open_encoder(text: str, *, step: int | None = None, moved: Sequence[str] = ()) -> Encoder:
    """Return an encoder.

    Args:
        text: folder of a run; folder or file of an export for safetensors; or NAME:FILE, a row of
            `hpcgeo list weights` and where its file lies.
        step: of the checkpoint of a run; by default the newest.
        moved: where the data of a run lies now (`config_of`).

    Raises:
        InputError: there is none, or it cannot be read.
    """
    name, colon, file = text.partition(":")
    if colon and not Path(text).exists():
        if not file:
            raise InputError(f"encoder {text!r}: give the file of its weights: {text}FILE")
        return _public(text, name, Path(file))
    path = Path(text)
    if (path / "config.yaml").is_file():
        return _of_run(path, step, moved)
    if path.exists():
        return _of_export(path)
    raise InputError(
        f"no encoder {text!r}: give the folder of a run (run.dir), an export for safetensors, or "
        f"NAME:FILE with a name of `hpcgeo list weights` ({', '.join(public())})"
    )


def _public(text: str, name: str, file: Path) -> ImageEncoder:
    row = public_weights(name)
    model = architecture(row.model)
    channels = tuple(Channel(row.sensor, band) for band in row.bands)
    start = _start(file, model, len(channels))
    return IMAGE_ENCODERS[model.family](
        name=row.name,
        architecture=model,
        backbone=filled(model, len(channels), _rows(start)),
        channels=channels,
        mean=row.mean,
        std=row.std,
        unit=row.unit,
        size=row.size,
        native=(row.size // model.stride,) * 2,
        origin={
            **{"encoder": text, "model": row.model, "source": row.source, "licence": row.licence},
            "not_used": brief_names(start.unused),
        },
    )


def _of_run(folder: Path, step: int | None, moved: Sequence[str]) -> Encoder:
    run = config_of(folder, moved)
    model = architecture_of(run.model)
    step, checkpoint = chosen(folder, step)
    weights = MergedWeights(checkpoint)
    common: dict[str, Any] = {
        "name": folder.resolve().name,
        "architecture": model,
        "origin": {
            **{"encoder": str(folder), "model": model.name, "step": step},
            "objective": run.objective.name,
        },
        "pretraining": pretraining(folder, step),
    }
    if model.family in IMAGE_ENCODERS and has_one_preparation(run):
        return _of_images(run, checkpoint, weights, common)
    data = as_samples(run).data
    assert isinstance(data, Mixture)
    channels = _channels(run, folder, checkpoint)
    bands = 0 if model.any_sensor else len(channels)
    with torch.no_grad():
        made = backbone(model, channels, bands, run.model.density)
        for name, parameter in made.named_parameters():
            parameter.copy_(weights.read(BACKBONE + name))
    return SampleEncoder(
        **common,
        backbone=made.to(usable_device()).requires_grad_(False).eval(),
        channels=channels,
        depth=sum(len(stack) for stack in made.stacks()),
        size=None if model.any_sensor else next(iter(data.chosen.values())).size,
        batching=data.batching,
        sensors=data.sensors,
    )


def _channels(run: RunConfig, folder: Path, checkpoint: Path) -> tuple[Channel, ...]:
    """Return the bands of all sensors that a run has read, or of its images in their order."""
    prepared = kept_preparation(folder)
    if prepared is not None:
        found = dict.fromkeys(one for task in prepared.tasks.values() for one in task.channels)
        return tuple(sorted(found) if architecture_of(run.model).any_sensor else found)
    if isinstance(run.data, Mixture):
        raise InputError(f"{folder} does not say its bands: it has no {PREPARATION}")
    images = preprocessing(run, chip_of(run), checkpoint)
    return named(images.sensor, images.bands)


def _of_images(
    run: RunConfig, checkpoint: Path, weights: MergedWeights, common: dict[str, Any]
) -> ImageEncoder:
    model = common["architecture"]
    height, width = chip_of(run)
    images = preprocessing(run, (height, width), checkpoint)
    channels = named(images.sensor, images.bands)
    return IMAGE_ENCODERS[model.family](
        **common,
        backbone=filled(model, len(channels), lambda name, _: weights.read(BACKBONE + name)),
        channels=channels,
        mean=images.mean,
        std=images.std,
        unit=None,
        size=height,
        native=(height // model.stride, width // model.stride),
    )


def _of_export(path: Path) -> ImageEncoder:
    file = path / "model.safetensors" if path.is_dir() else path
    said = metadata(file)
    missing = [word for word in ("config", "bands", "mean", "std") if word not in said]
    if missing:
        raise InputError(
            f"{path} does not say its {', '.join(missing)}, which are part of an encoder: give an "
            f"export of `hpcgeo export --to safetensors`, or NAME:FILE with a name of `hpcgeo list "
            f"weights`"
        )
    try:
        run = RunConfig.model_validate(json.loads(said["config"]))
        bands, mean, std = (tuple(json.loads(said[word])) for word in ("bands", "mean", "std"))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: what it says of its configuration, bands, mean or std cannot be read "
            f"({next(iter(str(error).splitlines()))}): export it anew"
        ) from None
    model = _of_images_alone(run, path)
    height, width = chip_of(run)
    channels = named(said.get("sensor"), bands)
    start = _start(path, model, len(channels))
    return IMAGE_ENCODERS[model.family](
        name=path.resolve().name,
        architecture=model,
        backbone=filled(model, len(channels), _rows(start)),
        channels=channels,
        mean=mean,
        std=std,
        unit=None,
        size=height,
        native=(height // model.stride, width // model.stride),
        origin={
            **{"encoder": str(path), "model": model.name, "step": int(said["step"])},
            "objective": run.objective.name,
        },
    )


def _of_images_alone(run: RunConfig, where: Path) -> Any:
    model = architecture(run.model.name)
    if model.family not in IMAGE_ENCODERS:
        raise InputError(
            f"{where} is a {model.family}, which reads any sensors, not images of some bands: "
            f"give the folder of its run (run.dir)"
        )
    return model


def _start(file: Path, model: Any, bands: int) -> Start:
    """Return the weights of a file, held against the backbone; what was not used is said."""
    with torch.device("meta"):
        made = backbone(model, (), bands, "uniform")
    shapes = {BACKBONE + name: value.shape for name, value in made.named_parameters()}
    start = Start(file, model, shapes)
    if start.unused:
        log.info("%s: not used: %s", file, brief_names(start.unused))
    return start


def _rows(start: Start) -> Callable[[str, Sequence[int]], Tensor]:
    return lambda name, shape: start.rows(BACKBONE + name, shape, slice(None))
