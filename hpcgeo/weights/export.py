"""The weights of a checkpoint for other libraries, with how images are prepared for them.

One tensor is in memory at a time.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcgeo import __version__
from hpcgeo.checkpoint.checkpoints import reader_of
from hpcgeo.checkpoint.folders import saved
from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.files import sync_folder, write_text
from hpcgeo.log import track
from hpcgeo.models.layers import NORM_EPS
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.objectives.table import objective
from hpcgeo.optimizers.average import EMA
from hpcgeo.options import Data
from hpcgeo.tables import find
from hpcgeo.weights.names import TIMM, TRANSFORMERS, Names, convert, positions
from hpcgeo.weights.preprocessing import Preprocessing, preprocessing
from hpcgeo.weights.safetensors import write
from hpcgeo.zoo import Architecture, architecture

#: How a checkpoint names the weights.
PREFIX = "model."
AVERAGE = f"optimizer.state.{{}}.{EMA}"


class Weights:
    """The weights in the folder of a checkpoint, read one by one, whatever ranks wrote them.

    Of a run that keeps a moving average of them (`optim.ema`), they are the average.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Open a checkpoint.

        Raises:
            InputError: it is damaged.
        """
        self._reader = reader_of(checkpoint)
        self._stored = self._reader.shapes()
        self.shapes = {
            key.removeprefix(PREFIX): shape
            for key, shape in self._stored.items()
            if key.startswith(PREFIX)
        }

    def read(self, name: str) -> Tensor:
        """Return a weight, whole."""
        value = torch.empty(self.shapes[name])
        average = AVERAGE.format(name)
        self._reader.fill({average if average in self._stored else PREFIX + name: value})
        return value


#: Contents of JSON files, by name.
Files = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Format:
    """What a library wants to find: names of weights, further files, and how it is asked to load.

    Without names the weights keep ours, and no other file is written.
    """

    load: str
    names: Names | None = None
    files: Callable[[RunConfig, Architecture, int, Preprocessing | None], Files] | None = None


def export(
    folder: Path,
    to: str,
    out: Path | None = None,
    step: int | None = None,
    dtype: str = "float32",
    moved: Sequence[str] = (),
) -> str:
    """Write the weights of a run for another library.

    Args:
        folder: of the run.
        to: a key of FORMATS.
        out: folder to create; by default below export/ of the run.
        step: which checkpoint; by default the newest.
        dtype: of the values in the file: float32, bfloat16 or float16.
        moved: see `config_of`.

    Returns:
        what was written and how to load it.

    Raises:
        InputError: no such run or checkpoint, the folder exists or cannot be written, or the
            library has no such model.
    """
    run = config_of(folder, moved)
    step, checkpoint = chosen(folder, step)
    out = out or folder / "export" / f"step-{step:08d}-{to}"
    if out.exists():
        raise InputError(f"{out} is there already: choose another folder with --out")
    form = FORMATS[to]
    model = architecture(run.model.name)
    if form.names:
        _refuse(run, to, form.names, model.family)
    weights = Weights(checkpoint)
    images, missing = _prepared(run, checkpoint, form)
    files, fixed, named = _translation(run, model, weights, form, images)
    sources = [name for name in weights.shapes if not form.names or form.names.of(name)]

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from fixed.items()
        for name in track(sources, "exporting", len(sources)):
            yield from named(name, weights.read(name)).items()

    shapes = {name: value.shape for name, value in fixed.items()}
    for name in sources:
        empty = torch.empty(weights.shapes[name], device="meta")
        shapes |= {target: value.shape for target, value in named(name, empty).items()}
    words = _words(run, step) | (images.metadata() if images else {})
    aside = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, content in files.items():
            write_text(aside / name, json.dumps(content, indent=2) + "\n")
        size = write(aside / "model.safetensors", shapes, getattr(torch, dtype), tensors(), words)
        aside.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        where = error.filename or out
        raise InputError(f"{where}: {error.strerror}; nothing was exported") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    count = sum(math.prod(shape) for shape in shapes.values())
    limits = images.limits() if images and form.names else ()
    return "\n".join(
        [
            f"{out}: step {step} of {run.model.name}, {count:,} values in {dtype}, "
            f"{size / 1e6:,.1f} MB{missing}",
            *(f"not in the files of {to}: {limit}" for limit in limits),
            form.load.format(out=out),
        ]
    )


def config_of(folder: Path, moved: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of the run in a folder.

    Args:
        folder: of the run.
        moved: where its data lies now: a path, or of a mixture ``TASK=PATH`` for each task.

    Raises:
        InputError: there is no run, or it has no such task.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder} holds no run (no config.yaml): give the run.dir of a run")
    run = load(str(path))
    return load(str(path), [_place(run, each) for each in moved]) if moved else run


def _place(run: RunConfig, moved: str) -> str:
    """Return the option that says where data lies."""
    if isinstance(run.data, Data):
        return f"data.path={json.dumps(moved)}"
    task, _, path = moved.partition("=")
    find(run.data.tasks, task, "task")
    return f"data.tasks.{task}.path={json.dumps(path)}"


def chosen(folder: Path, step: int | None) -> tuple[int, Path]:
    """Return step and folder of a checkpoint of a run, by default of the newest.

    Raises:
        InputError: there is none, or none of that step.
    """
    checkpoints = saved(folder / "checkpoints")
    if not checkpoints:
        raise InputError(f"{folder} holds no checkpoint: train it with checkpoint.every above 0")
    if step is None:
        step = max(checkpoints)
    if step not in checkpoints:
        known = ", ".join(str(known) for known in checkpoints)
        raise InputError(f"{folder} holds no checkpoint of step {step}; there are: {known}")
    return step, checkpoints[step]


def _refuse(run: RunConfig, to: str, names: Names, family: str) -> None:
    """Refuse a format that a run has no weights for; an InputError says which it has."""
    formats = objective(run.objective.name).exports
    if to not in formats or family != "vit":
        fitting = ["safetensors", *(formats if family == "vit" else ())]
        raise InputError(
            f"{names.title} is no {run.model.name} of objective {run.objective.name}: choose --to "
            f"{' or '.join(fitting)}"
        )


def chip_of(run: RunConfig) -> tuple[int, int]:
    """Return height and width of the images of a run.

    Raises:
        InputError: its configuration does not say them.
    """
    if isinstance(run.data, Data):
        return run.data.chip
    sizes = {task.size for task in run.data.chosen.values()}
    size = sizes.pop()
    if sizes or size is None:
        raise InputError(
            "data.tasks.NAME.size is not given: positions need the size of images; choose --to "
            "safetensors"
        )
    return size, size


def _translation(
    run: RunConfig, model: Any, weights: Weights, form: Format, images: Preprocessing | None
) -> tuple[Files, dict[str, Tensor], Callable[[str, Tensor], dict[str, Tensor]]]:
    """Return JSON files, weights that are not learned, and what gives others a library's names."""
    names = form.names
    if names is None:
        return {}, {}, lambda name, value: {name: value}
    bands = weights.shapes["backbone.embed.weight"][1] // model.patch**2
    files = form.files(run, model, bands, images) if form.files else {}
    height, width = chip_of(run)
    grid = height // model.patch, width // model.patch
    fixed = positions(model, grid, names)
    return files, fixed, lambda name, value: convert(name, value, model, names)


def _words(run: RunConfig, step: int) -> dict[str, str]:
    """Return what the file says of the run."""
    return {
        "format": "pt",
        "hpcgeo": __version__,
        "model": run.model.name,
        "step": str(step),
        "config": json.dumps(run.model_dump(mode="json")),
    }


def _prepared(run: RunConfig, checkpoint: Path, form: Format) -> tuple[Preprocessing | None, str]:
    """Return how images are prepared, and a remark where that is not known.

    Under our names, samples of a mixture have none: each of its sets brings its own.
    """
    if form.names is None and not isinstance(run.data, Data):
        return None, ""
    try:
        return preprocessing(run, chip_of(run), checkpoint), ""
    except InputError as error:
        return None, f"; without preprocessing (bands, mean, deviation): {error}"


def _vit_mae(
    run: RunConfig, model: Architecture, bands: int, images: Preprocessing | None
) -> Files:
    """Return the configurations of transformers' ViTMAE and of its image processor.

    Raises:
        InputError: the chip is not square.
    """
    (height, width), options = chip_of(run), run.objective
    assert isinstance(options, MaeOptions)
    if height != width:
        raise InputError(
            f"data.chip {height} x {width}: {TRANSFORMERS.title} takes square images only; choose "
            f"--to safetensors or --to timm"
        )
    encoder, decoder = model.encoder, model.decoder
    config = {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "image_size": height,
        "patch_size": model.patch,
        "num_channels": bands,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden,
        "decoder_hidden_size": decoder.width,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": decoder.hidden,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "layer_norm_eps": NORM_EPS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "mask_ratio": options.mask_ratio,
        "norm_pix_loss": options.normalise_target,
    }
    prepared = {"preprocessor_config.json": images.transformers()} if images else {}
    return {"config.json": config, **prepared}


def _vit(run: RunConfig, model: Architecture, bands: int, images: Preprocessing | None) -> Files:
    """Return the configuration of timm's VisionTransformer: its plainest, every argument named.

    The class token is pooled; the first convolution is not named, for timm adapts it to other bands
    where it is. timm takes int(embed_dim x mlp_ratio) hidden units.
    """
    encoder = model.encoder
    ratio = encoder.hidden / encoder.width
    if int(encoder.width * ratio) < encoder.hidden:
        ratio = math.nextafter(ratio, math.inf)
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": encoder.width,
        "global_pool": "token",
        "model_args": {
            "img_size": list(chip_of(run)),
            "patch_size": model.patch,
            "in_chans": bands,
            "num_classes": 0,
            "global_pool": "token",
            "embed_dim": encoder.width,
            "depth": encoder.depth,
            "num_heads": encoder.heads,
            "mlp_ratio": ratio,
            "qkv_bias": True,
            "class_token": True,
            "act_layer": "gelu",
        },
        "pretrained_cfg": {
            "input_size": [bands, *chip_of(run)],
            "fixed_input_size": True,
            "num_classes": 0,
            **(images.timm() if images else {}),
        },
    }
    return {"config.json": config}


FORMATS = {
    "safetensors": Format(
        'weights = safetensors.torch.load_file("{out}/model.safetensors")',
    ),
    "transformers": Format(
        'processor = transformers.AutoImageProcessor.from_pretrained("{out}")\n'
        'model = transformers.ViTMAEForPreTraining.from_pretrained("{out}")',
        TRANSFORMERS,
        _vit_mae,
    ),
    "timm": Format(
        'model = timm.create_model("local-dir:{out}", pretrained=True)\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        TIMM,
        _vit,
    ),
}
