"""Wrong inputs of every command: the value, the rule and the way out; exit code 2, no traceback.

The best of some 280 that were tried; all in this process, so that each takes milliseconds.
"""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgeo.cli import main, ranks

T = "train mae_vit_tiny run.dir=new"
G = "train gpna_tiny run.dir=new"
J = "jobs render --machine frontier --recipe mae_vit_1b"
B = "data build photos --out new"

#: What is typed; what the answer says, in this order.
CASES = [
    ("trian mae_vit_tiny", "no command 'trian' (did you mean 'train'?)"),
    ("train", "Missing argument 'recipe'; see `hpcgeo train --help`"),
    ("train mae_vit_bse", "'mae_vit_bse' (did you mean 'mae_vit_base'?)"),
    ("train MAE_ViT_tiny", "(did you mean 'mae_vit_tiny'?)"),
    ("train nowhere.yaml", "nowhere.yaml: No such file * give a YAML file that is there"),
    ("train folder.yaml", "folder.yaml: Is a directory: give"),
    ("train empty.yaml", "empty.yaml: expected a mapping of options, found None: * --print"),
    ("train torn.yaml", "torn.yaml, line 2, column 1: not YAML: "),
    ("train latin.yaml", "latin.yaml: not a text file in UTF-8"),
    ("train cycle.yaml", "they extend each other"),
    (f"{T} foo", "'foo': write it as key=value, e.g. train.steps=20"),
    (f"{T} steps=5", "'steps' (did you mean 'train.steps'?)"),
    (f"{T} train.steps=-5", "train.steps = -5: Input should be greater than 0"),
    (f"{T} train.steps=1e400", "train.steps = '1e400'"),
    (f"{T} train.steps=99999999999999999999", "column 1: not YAML: found an integer beyond 64"),
    (f"{T} train.steps=5", "warmup_steps 10 is longer * train longer (optim.warmup_steps is of"),
    (f"{T} train.dtype=BF16", "'BF16': Input should be * (did you mean 'bfloat16'?)"),
    (f"{T} model.name=ViT—Ω", "unknown model 'ViT—Ω'; known: vit_nano"),
    (f"{T} model.name=gpna_tiny", "trains a vit, and model.name gpna_tiny is a perceiver: choose"),
    (f"{T} objective.name=multitask", "learns labels of data.tasks, and this run has images"),
    (f"{T} parallel.strategy=FSDP", "'FSDP' (did you mean 'FULL_SHARD'?)"),
    (f"{T} parallel.group_size=2", "group_size 2 has no effect under DDP: drop it, or"),
    (f"{T} optim.momentum=0.5", "momentum has no effect under optim.name=AdamW: drop it"),
    (f"{T} data.path=photos", "photos: no index.json; write a data set with `hpcgeo data build`"),
    (f"{T} data.path=afile", "afile: a file: give the folder of a data set"),
    (f"{T} data.chip=30", "30 x 30 is no multiple of the 8-pixel patch of vit_tiny: set data.chip"),
    (f"{G} data.only=[scene]", "no task 'scene'; known: scenes, tiles"),
    (f"{G} 'model.density=import os'", "'import os': it is no expression; name one"),
    (f"{T} --ranks 0 --dry", "--ranks 0: Input should be greater"),
    (B.replace("photos", "nowhere"), "nowhere: no such folder"),
    (B.replace("photos", "afile"), "afile: a file: give its folder"),
    (B.replace("photos", "webps"), "no image in it, but 2 .webp; known: .jpeg"),
    (f"{B} --chip abc", "--chip abc: Input should be a valid integer"),
    (f"{B} --chip 1000000", "chip 1000000: one of 3 bands in uint8 takes 3,000 GB"),
    (f"{B} --sensor S2", "'S2' (did you mean 'sentinel2'?)"),
    (f"{B} --compression GZip", "'GZip' is not one of * (did you mean 'gzip'?)"),
    ("data build photos --out afile/x", "--out afile/x: Not a directory: choose another"),
    ("data synthesize afile", "afile: File exists: choose another"),
    ("profile run mae_vit_tiny --records folder.yaml", "--records folder.yaml: a folder: choose"),
    ("profile run mae_vit_tiny --trace afile", "--trace afile: no folder: choose another"),
    ("profile sweep sweep.yaml", "unknown key 'gird' (did you mean 'grid'?)"),
    ("profile sweep sweep.yaml --watch", "--watch: for jobs of a scheduler: add --submit"),
    ("profile collectives --from -5KB", "'-5KB' is no size: write a number with B, KB"),
    ("profile compare torn.jsonl torn.jsonl", "torn.jsonl:1: not JSON: * give lines that"),
    ("report newer.jsonl --out new", "newer.jsonl:1: a record of version 99 * install a newer"),
    ("report nowhere --out new", "nowhere: no such file or folder of records"),
    ("report torn.jsonl --out afile", "--out afile: no folder: choose another"),
    ("jobs render --machine frontier", "--machine: one script needs --recipe, --nodes, --time"),
    (f"{J} --nodes 100000 --time 01:00:00", "100000 nodes are more than a job on frontier may"),
    (f"{J} --nodes 2 --time 99:99:99", "'99:99:99': write the time as HH:MM:SS"),
    ("export photos --to timm", "photos holds no run (no config.yaml): give the run.dir of a run"),
    ("export photos --to onnx", "--to onnx: 'onnx' is not one of 'safetensors'"),
    ("probe photos --labels 2", "labels 2.0: a fraction above 0, at most 1"),
    ("evaluate photos --baselines KNN", "'KNN' (did you mean 'knn'?)"),
    ("evaluate photos --out t.xlsx", "unknown format of a table '.xlsx'; known: .json"),
    ("list strategy", "'strategy' is not one of * (did you mean 'strategies'?)"),
    ("list options trian.", "no row begins so (did you mean 'train'?)"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what people have lying about."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("photos/0.png", "photos/1.png", "webps/0.webp", "webps/1.webp"):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "folder.yaml").mkdir()
    for name, content in {
        "afile": b"hello\n",
        "empty.yaml": b"",
        "torn.yaml": b"a: [1,\n",
        "latin.yaml": b"run: {dir: caf\xe9}\n",
        "cycle.yaml": b"extends: cycle.yaml\n",
        "sweep.yaml": b"recipe: mae_vit_tiny\nranks: [1]\ngird: {seed: [1]}\n",
        "torn.jsonl": b'{"schema_version": 1, "mod',
        "newer.jsonl": json.dumps({"schema_version": 99}).encode(),
    }.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    """Return what calls the command line, in that folder: exit code, and what it says."""

    def tell(words: str) -> tuple[int, str]:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["hpcgeo", *shlex.split(words)])
        monkeypatch.setattr(ranks.os, "_exit", sys.exit)  # ranks end their process so
        monkeypatch.setattr(ranks.faulthandler, "enable", lambda: None)
        with pytest.raises(SystemExit) as ended:
            main.hpcgeo()
        return int(str(ended.value.code)), capsys.readouterr().err

    return tell


@pytest.mark.parametrize(("words", "said"), CASES, ids=[words for words, _ in CASES])
def test_wrong_input(
    words: str, said: str, told: Callable[[str], tuple[int, str]], place: Path
) -> None:
    code, text = told(words)
    assert code == 2, text
    assert "Traceback" not in text and "pydantic" not in text
    for part in said.split(" * "):
        assert part in text
        text = text[text.index(part) :]
    assert len(text) < 1500
    assert not (place / "new").exists()  # nothing was begun
    assert (place / "afile").read_text() == "hello\n"
