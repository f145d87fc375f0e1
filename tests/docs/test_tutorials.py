"""The four tutorials, run as they are printed: their `bash` and `python` blocks, in order."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgeo.data.shards.synthetic import scene
from tests.distributed import ALL

DOCS = Path(__file__).parents[2] / "docs"
LONG = pytest.mark.skipif(not ALL, reason="long: HPCGEO_ALL=1 runs it")
#: A fenced block: language, title, content.
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


def photos(folder: Path) -> None:
    """What a reader brings: photographs in two class folders, of fields and of noise."""
    land, rng = scene(256, 0), np.random.default_rng(0)
    for number in range(24):
        row, column = rng.integers(0, 192, 2)
        kinds = {
            "land": land[:, row : row + 64, column : column + 64],
            "noise": rng.integers(0, 255, (3, 64, 64), dtype=np.uint8),
        }
        for name, pixels in kinds.items():
            path = folder / "photos" / name / f"{number:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(path)


def nothing(folder: Path) -> None:
    """The tutorial makes all it needs."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "given", "left"),
    [
        ("first-hour", nothing, ["runs/first/record.json", "weights/model.safetensors"]),
        pytest.param(
            *("own-images", photos, ["weights/model.safetensors", "runs/tuned/scores.jsonl"]),
            marks=LONG,
        ),
        pytest.param("own-geotiffs", nothing, ["vit_mae/preprocessor_config.json"], marks=LONG),
        pytest.param("profiling", nothing, ["records.jsonl", "report/report.html"], marks=LONG),
    ],
)
def test_a_tutorial_works_as_printed(
    page: str, given: Callable[[Path], None], left: list[str], tmp_path: Path
) -> None:
    given(tmp_path)
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text("utf-8"))
    assert any(language == "bash" for language, *_ in blocks)
    script = ["set -euo pipefail"]
    for number, (language, title, content) in enumerate(blocks):
        if title:
            (tmp_path / title).write_text(content)
        elif language == "bash":
            script.append(content)
        elif language == "python":
            (tmp_path / f"block_{number}.py").write_text(content)
            script.append(f"python block_{number}.py\n")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in left:
        assert (tmp_path / name).exists(), name
