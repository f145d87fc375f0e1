"""`hpcgeo export`: what other libraries load computes what was trained, and memory stays small."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import ViTMAEForPreTraining
from transformers import logging as transformers_logging

from hpcgeo import __version__
from hpcgeo.checkpoint.checkpoints import reader_of
from hpcgeo.checkpoint.manifest import sealed
from hpcgeo.config import load
from hpcgeo.data.shards.synthetic import SyntheticDataset
from hpcgeo.errors import InputError
from hpcgeo.models.patches import patchify
from hpcgeo.models.positions import sincos_2d
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import forms
from hpcgeo.options import Data
from hpcgeo.weights.export import FORMATS, Weights, config_of, export
from hpcgeo.zoo import architecture, models
from tests import processes
from tests.ranks import train
from tests.weights.made_up import trained, untrained

transformers_logging.disable_progress_bar()
CHIP, STEP = 32, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that each hold half of the weights."""
    folder = tmp_path_factory.mktemp("export") / "run"
    options = [f"train.steps={STEP}", "checkpoint.every=2", "parallel.strategy=FULL_SHARD"]
    code, said = train(folder, 2, *options)
    assert code == 0, said
    return folder


def samples(chip: tuple[int, int] = (CHIP, CHIP)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, *chip, generator=generator)
    return images, torch.rand(4, chip[0] * chip[1] // 64, generator=generator)


def test_our_names_hold_every_weight_and_say_what_they_are(run: Path, tmp_path: Path) -> None:
    said = export(run, "safetensors", tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    expected = trained(run, STEP).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        words = file.metadata()
    config, data = load(str(run / "config.yaml")), SyntheticDataset((3, CHIP, CHIP))
    assert json.loads(words.pop("config")) == config.model_dump(mode="json")
    assert words == {
        "format": "pt",
        "hpcgeo": __version__,
        "model": "vit_tiny",
        "step": str(STEP),
        "bands": json.dumps(data.bands),
        "mean": json.dumps(data.mean[0].tolist()),
        "std": json.dumps(data.std[0].tolist()),
    }
    assert "step 4 of vit_tiny" in said and "load_file" in said


def test_transformers_computes_the_same_loss(run: Path, tmp_path: Path) -> None:
    export(run, "transformers", tmp_path / "out")
    theirs, report = ViTMAEForPreTraining.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
    images, noise = samples()
    with torch.no_grad():
        loss = theirs(pixel_values=images, noise=noise).loss
        expected = trained(run, STEP)(images, noise)["loss"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_a_chosen_step_for_timm_from_the_command_line(run: Path) -> None:
    done = processes.hpcgeo("export", run, "--to", "timm", "--step", 2)
    assert done.returncode == 0, done.stderr
    out = run / "export" / "step-00000002-timm"
    assert f'model = timm.create_model("local-dir:{out}", pretrained=True)' in done.stdout
    same_features(out, trained(run, 2), (CHIP, CHIP))
    with pytest.raises(InputError, match="is there already: choose another folder with --out"):
        export(run, "timm", step=2)


def test_timm_takes_chips_that_are_not_square(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "run", "data.chip=[32, 64]", scale=0.1)
    export(folder, "timm", tmp_path / "out")
    same_features(tmp_path / "out", trained(folder), (32, 64))


def same_features(out: Path, mae: MAE, chip: tuple[int, int]) -> None:
    """Hold what timm's conventions make of an export against our encoder."""
    weights = load_file(out / "model.safetensors")
    config = json.loads((out / "config.json").read_text())
    arguments = config["model_args"]
    assert arguments["img_size"] == list(chip) == config["pretrained_cfg"]["input_size"][1:]
    assert {name: tuple(value.shape) for name, value in weights.items()} == timm_shapes(arguments)
    images, _ = samples(chip)
    mae_positions = sincos_2d(128, (chip[0] // 8, chip[1] // 8), images.device)
    with torch.no_grad():
        expected = mae.backbone(patchify(images, 8), mae_positions)
        features = timm_features(weights, arguments, images)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def timm_shapes(arguments: dict) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a timm.models.vision_transformer.VisionTransformer without a head."""
    W, p = arguments["embed_dim"], arguments["patch_size"]
    M = int(W * arguments["mlp_ratio"])
    N = arguments["img_size"][0] // p * (arguments["img_size"][1] // p)
    shapes = {"cls_token": (1, 1, W), "pos_embed": (1, 1 + N, W)}
    modules = {"norm": (W,), "patch_embed.proj": (W, arguments["in_chans"], p, p)}
    for block in range(arguments["depth"]):
        modules |= {
            f"blocks.{block}.{module}": shape
            for module, shape in {
                "norm1": (W,),
                "attn.qkv": (3 * W, W),
                "attn.proj": (W, W),
                "norm2": (W,),
                "mlp.fc1": (M, W),
                "mlp.fc2": (W, M),
            }.items()
        }
    for module, shape in modules.items():
        shapes |= {f"{module}.weight": shape, f"{module}.bias": shape[:1]}
    return shapes


def timm_features(weights: dict[str, Tensor], arguments: dict, images: Tensor) -> Tensor:
    """What timm computes from these weights before its head, by its documented conventions.

    The class token has a position of its own; rows of qkv are ordered (3, H, d); norms have an
    epsilon of 1e-6; GELU is exact.
    """

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        affine = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], *affine, eps=1e-6)

    proj = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    x = F.conv2d(images, *proj, stride=arguments["patch_size"]).flatten(2).transpose(1, 2)
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], dim=1) + weights["pos_embed"]
    B, T, W = x.shape
    for number in range(arguments["depth"]):
        block = f"blocks.{number}"
        product = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        product = product.reshape(B, T, 3, arguments["num_heads"], -1)
        q, k, v = product.permute(2, 0, 3, 1, 4)  # (B, H, T, d)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, W)
        x = x + linear(mixed, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")


def test_timm_builds_the_hidden_width_of_every_model() -> None:
    for model in models().values():
        files = FORMATS["timm"].files
        assert files is not None
        config = files(load("mae_vit_tiny"), model, 3, None)["config.json"]
        arguments = config["model_args"]
        assert int(model.encoder.width * arguments["mlp_ratio"]) == model.encoder.hidden


def test_half_the_bytes(run: Path, tmp_path: Path) -> None:
    export(run, "safetensors", tmp_path / "out", dtype="bfloat16")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    expected = trained(run, STEP).state_dict()
    assert all(torch.equal(weights[n], value.bfloat16()) for n, value in expected.items())


MEASURED = """
import sys
from pathlib import Path
from hpcgeo.weights.export import export

def memory(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))

export(Path(sys.argv[1]), sys.argv[3], Path(sys.argv[2]) / "first")
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
export(Path(sys.argv[4]), sys.argv[3], Path(sys.argv[2]) / "second")
print(memory("VmHWM") - before)
"""


@pytest.mark.long
def test_memory_stays_far_below_the_model(tmp_path: Path) -> None:
    """The peak of exporting ViT-B, above that of exporting a tiny model."""
    tiny = untrained(tmp_path / "tiny")
    base = untrained(tmp_path / "base", "model.name=vit_base", "data.chip=224")
    words = [sys.executable, "-c", MEASURED, tiny, tmp_path, "transformers", base]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "second" / "model.safetensors").stat().st_size
    assert size > 4 * forms(architecture("vit_base"), 3, (224, 224), 0.75).parameters
    assert int(done.stdout) < size / 8


@pytest.mark.parametrize("to", ["transformers", "timm"])
def test_a_gated_model_keeps_our_names(tmp_path: Path, to: str) -> None:
    folder = untrained(tmp_path / "run", "model.name=vit_tiny_gated")
    with pytest.raises(InputError, match=r"knows no gated MLP; .* --to safetensors"):
        export(folder, to)
    export(folder, "safetensors", tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert weights["backbone.blocks.0.mlp.gate.weight"].shape == (344, 128)


def test_transformers_takes_square_chips_only(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "run", "data.chip=[32, 64]")
    with pytest.raises(InputError, match="32 x 64: transformers' ViTMAE takes square images only"):
        export(folder, "transformers")


def test_nothing_is_left_of_an_export_that_failed(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "run", scale=1e6)
    with pytest.raises(InputError, match=r"is not finite in torch.float16"):
        export(folder, "safetensors", tmp_path / "out", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_with_a_hole_is_no_export(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "run")
    (values,) = folder.glob("checkpoints/*/rank-*.safetensors")
    values.unlink()
    with pytest.raises(InputError, match=rf"is damaged: {values.name} is missing"):
        export(folder, "safetensors")
    assert not list(folder.glob("export/*"))


def test_data_built_anew_says_nothing_of_the_weights(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "run")
    saved = folder / "checkpoints" / "step-00000007" / "step.json"
    saved.write_text(sealed(json.loads(saved.read_text()) | {"data": "another digest"}))
    said = export(folder, "safetensors", tmp_path / "out")
    assert "without preprocessing (bands, mean, deviation): synthetic was built anew" in said
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert not {"bands", "mean", "std"} & file.metadata().keys()


def test_what_a_perceiver_learned_starts_another_run(tmp_path: Path) -> None:
    small = ["train.micro_batch=4", "optim.warmup_steps=0", "data.only=[series, table, scenes]"]
    hpcgeo(
        "train",
        "gpna_tiny",
        "objective.name=masked_tokens",
        "train.steps=2",
        *small,
        f"run.dir={tmp_path}/masked",
    )
    hpcgeo("export", tmp_path / "masked", "--to", "safetensors", "--out", tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    learned = load_file(file)
    assert learned.keys() == Weights(tmp_path / "masked/checkpoints/step-00000002").shapes.keys()
    # A learning rate of next to nothing leaves what was carried over.
    still = ["train.steps=1", "optim.base_lr=1e-20", "train.eval_every=null"]
    said = hpcgeo(
        "train", "gpna_tiny", *still, *small, f"run.dir={tmp_path}/multi", f"model.weights={file}"
    )
    weights = Weights(tmp_path / "multi/checkpoints/step-00000001")
    shared = learned.keys() & weights.shapes.keys()
    assert f"{len(shared)} of {len(weights.shapes)} weights" in said
    for part in ("backbone.blocks.", "backbone.tokenizer."):
        names = [name for name in weights.shapes if name.startswith(part)]
        assert names and shared.issuperset(names)
    for name in shared:
        torch.testing.assert_close(weights.read(name), learned[name])
    with pytest.raises(
        InputError,
        match="is no gpna_tiny of objective masked_tokens: choose --to s",
    ):
        export(tmp_path / "masked", "timm")


def hpcgeo(*words: str | Path) -> str:
    done = processes.hpcgeo(*words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no checkpoint of step 3; there are: 2, 4"):
        export(run, "timm", tmp_path / "out", step=3)
    with pytest.raises(InputError, match="holds no run"):
        export(tmp_path, "timm")
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(InputError, match="holds no checkpoint"):
        export(tmp_path, "timm")
    with pytest.raises(InputError, match=r"config\.yaml/out\S*: Not a directory"):
        export(run, "timm", tmp_path / "config.yaml" / "out")


def test_a_data_set_that_moved_is_found(run: Path) -> None:
    for place in ("elsewhere", "a: [b]#c"):  # never read as YAML
        moved = config_of(run, [place]).data
        assert isinstance(moved, Data) and moved.path == place


def test_the_average_is_exported_and_resumed(tmp_path: Path) -> None:
    """Of a run that keeps an average of its weights, of two ranks, it is what leaves the run."""
    options = ["optim.ema=0.6", "checkpoint.every=2", "parallel.strategy=FULL_SHARD"]
    code, said = train(tmp_path / "run", 2, *options, f"train.steps={STEP}")
    assert code == 0, said
    export(tmp_path / "run", "safetensors", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    weights, average = trained(tmp_path / "run", STEP), trained(tmp_path / "run", STEP)
    moving = {f"optimizer.state.{name}.ema": value for name, value in average.state_dict().items()}
    reader_of(tmp_path / "run" / "checkpoints" / f"step-{STEP:08d}").fill(moving)  # in place
    for name, value in average.state_dict().items():
        assert torch.equal(found[name], value)
    apart = [
        float((value - average.state_dict()[name]).abs().max())
        for name, value in weights.state_dict().items()
    ]
    assert max(apart) > 1e-5
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{STEP:08d}")
    code, said = train(tmp_path / "run", 1, *options, f"train.steps={STEP}")
    assert code == 0 and "from step 2 of" in said, said
    export(tmp_path / "run", "safetensors", tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.allclose(value, found[name], atol=2e-5) for name, value in again.items())
