"""GFM: its losses by hand, the weights of its teacher, and runs that resume."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.gfm.network import GFM
from hpcgeo.objectives.gfm.objective import GfmOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.objectives.simmim.network import SimMIM
from hpcgeo.objectives.simmim.objective import SimmimOptions
from hpcgeo.zoo import architecture
from tests.processes import hpcgeo
from tests.ranks import ended, launch, metrics

CHIP, BANDS = 64, 3


def made(student: str, teacher: str, told: dict[str, Any], **options: Any) -> GFM:
    config = GfmOptions(teacher={"weights": "file"} | told, **options)
    network = GFM(
        Material(architecture(student), BANDS, (CHIP, CHIP)), architecture(teacher), config
    )
    for name, parameter in network.named_parameters():
        parameter.data = draw(name, parameter.shape, slice(None), seed=0)
    return network


@pytest.mark.parametrize(
    ("student", "teacher", "told", "stages", "widths"),
    [
        ("swin_nano", "swin_nano", {}, (3, 3), (192, 192)),
        ("vit_tiny", "swin_nano", {"size": 96, "stage": 1}, (4, 1), (128, 48)),
        ("swin_nano", "vit_nano", {"stage": 1}, (2, 1), (96, 64)),
    ],
)
def test_the_losses_by_hand(
    student: str, teacher: str, told: dict[str, Any], stages: tuple[int, int], widths: Any
) -> None:
    """That of the pixels is SimMIM's; that of the features 1 less the cosine of what the student
    says, projected, of the image with holes, and the teacher of the whole one, resized."""
    own = {} if stages[0] in (3, 4) else {"stage": stages[0]}
    network = made(student, teacher, told, alpha=0.5, **own)
    assert (network.project.in_features, network.project.out_features) == widths
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, BANDS, CHIP, CHIP, generator=generator)
    noise = torch.rand(2, 4, generator=generator)
    found = network(images, noise)
    plain = SimMIM(architecture(student), BANDS, (CHIP, CHIP), SimmimOptions())
    plain.load_state_dict(network.state_dict(), strict=False)
    torch.testing.assert_close(found["mim"], plain(images, noise)["loss"])
    hidden = network._hidden(images, noise)
    places = [*network._places(images, hidden)][stages[0] - 1]
    student_says = network.project(places.flatten(1, 2).mean(1))
    size = (told.get("size", CHIP),) * 2
    seen = F.interpolate(images, size, mode="bilinear", antialias=True)
    teacher_says = [*network.teacher.backbone.places(seen)][stages[1] - 1].flatten(1, 2).mean(1)
    products = (student_says * teacher_says).sum(1)
    cosines = products / student_says.norm(dim=1) / teacher_says.norm(dim=1)
    torch.testing.assert_close(found["feature"], 1 - cosines.mean())
    torch.testing.assert_close(found["loss"], found["mim"] + 0.5 * found["feature"])
    found["loss"].backward()
    assert all(value.grad is None for value in network.teacher.parameters())


@pytest.mark.parametrize(
    ("told", "options", "said"),
    [
        ({"stage": 5}, {}, "objective.teacher.stage 5: the backbone has 4: choose 1 to 4"),
        ({}, {"stage": 9}, "objective.stage 9: the backbone has 4"),
        ({"size": 50}, {}, "chip 50 x 50 is no multiple of the 32 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(
    told: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        made("swin_nano", "swin_nano", told, **options)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "needs weights .* or momentum"),
        ({"weights": "file", "momentum": 0.9}, "one of the two"),
        ({"momentum": 0.9, "replicate": True}, "leave name and replicate out"),
        ({"momentum": 1.0}, "less than 1"),
    ],
)
def test_a_teacher_has_one_origin(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GfmOptions(teacher=told)  # type: ignore[arg-type]


OPTIONS = [
    *("mae_vit_tiny", "data.chip=32", "train.steps=4", "optim.warmup_steps=1"),
    *("checkpoint.every=2", "launch.threads=1", "train.eval_every=null"),
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    done = hpcgeo(
        "train", *OPTIONS, "train.steps=2", "train.micro_batch=8", f"run.dir={folder}/run"
    )
    assert done.returncode == 0, done.stderr
    out = hpcgeo("export", folder / "run", "--to", "safetensors", "--out", folder / "out")
    assert out.returncode == 0, out.stderr
    return folder / "out"


def test_a_run_with_an_earlier_one_as_its_teacher(teacher: Path, tmp_path: Path) -> None:
    """The student begins at random; one rank that is stopped half-way and goes on as two of FSDP2
    with a replicated teacher = one rank; the export's backbone is the student."""
    words = f"objective={{name: gfm, mask_cell: 8, teacher: {{weights: {teacher}}}}}"
    one = hpcgeo("train", *OPTIONS, words, "train.micro_batch=8", f"run.dir={tmp_path}/one")
    assert one.returncode == 0, one.stderr
    assert "out: 53 of 53 weights; not used: decoder" in one.stderr, one.stderr
    losses = [row["loss"] for row in metrics(tmp_path / "one")]
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000004")
    code, said = ended(
        launch(
            2,
            *("train", *OPTIONS, words, "train.micro_batch=4", f"run.dir={tmp_path}/two"),
            *("parallel.strategy=FULL_SHARD", "objective.teacher.replicate=true"),
        )
    )
    assert code == 0 and "from step 2 of 4" in said, said
    assert [row["loss"] for row in metrics(tmp_path / "two")] == pytest.approx(losses, abs=1e-5)
    out = hpcgeo("export", tmp_path / "one", "--to", "safetensors", "--out", tmp_path / "out")
    assert out.returncode == 0, out.stderr
    again = hpcgeo(
        *("train", *OPTIONS, f"model.weights={tmp_path}/out", "train.micro_batch=8"),
        f"run.dir={tmp_path}/again",
    )
    assert again.returncode == 0 and "not used: " in again.stderr, again.stderr


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("weights: nothing", "objective.teacher.weights nothing: "),
        ("weights: TEACHER, name: vit_nano", "weight 'backbone.class_token' has shape"),
    ],
)
def test_weights_that_are_no_teacher(teacher: Path, tmp_path: Path, told: str, said: str) -> None:
    told = told.replace("TEACHER", str(teacher))
    options = f"objective={{name: gfm, mask_cell: 8, teacher: {{{told}}}}}"
    done = hpcgeo("train", *OPTIONS, options, f"run.dir={tmp_path}/run")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "objective.teacher.weights" in done.stderr
