"""What TensorBoard shows of a run: its options, numbers of every step, scores and pictures."""

import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from PIL import Image

from hpcgeo.config import RunConfig
from hpcgeo.workloads.scores import read_scores

FOLDER = "tensorboard"

#: Numbers of a row that are the same for all runs, by the group they are shown in.
GROUPS = {
    "memory": ("peak_memory_bytes",),
    "time": ("step_s", "data_wait_s", "checkpoint_s"),
    "throughput": ("images_per_s", "tokens_per_s", "padding", "passes"),
    "optimizer": ("lr", "grad_norm", "skipped"),
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


class Curves:
    """Writes the event file of a run; rank 0 has one."""

    def __init__(self, folder: Path, run: RunConfig, first_step: int) -> None:
        """Open it; what was written after `first_step` is dropped."""
        self._folder = folder
        threading.excepthook = _raised_again
        # Imported where it writes: it brings 150 modules that every rank would ask files for
        writer = import_module("torch.utils.tensorboard.writer")
        self._writer = writer.SummaryWriter(str(folder / FOLDER), purge_step=first_step + 1)
        text = indent(run.to_yaml(), "    ")  # Markdown: as it is
        self._writer.add_text("options", text, first_step + 1)

    def step(self, row: Mapping[str, Any]) -> None:
        """Show the numbers of a line of metrics."""
        for name, value in row.items():
            if name not in {"step", "epoch"} and value is not None:
                group = GROUP_OF.get(name)
                self._writer.add_scalar(f"{group}/{name}" if group else name, value, row["step"])

    def evaluation(self, step: int) -> None:
        """Show what an evaluation has left in the folder of the run: scores and pictures."""
        for score in read_scores(self._folder):
            if score.step == step:
                self._writer.add_scalar(f"score/{score.task}/{score.metric}", score.value, step)
        for path in sorted(self._folder.glob(f"*/*step-{step:08d}.png")):
            task = path.stem.removesuffix(f"step-{step:08d}").rstrip("-")
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            tag = "/".join(filter(None, [path.parent.name, task]))
            self._writer.add_image(tag, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _raised_again(found: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but for the writer's full disk: the next number raises that."""
    writes = type(found.thread).__module__.startswith("tensorboard.")
    if not (writes and isinstance(found.exc_value, OSError)):
        threading.__excepthook__(found)
