"""The training state on disk: written aside, renamed when whole, the oldest then forgotten.

checkpoints/
  step-00000100/       parameters and optimizer, torch.distributed.checkpoint: any world size
    step.json          what the loop needs: step, global batch
  step-00000200/
"""

import json
import shutil
import time
from pathlib import Path

import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from hpcgeo.errors import InputError
from hpcgeo.files import sync_folder, write_text
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import on_rank_0


class Checkpoints:
    """The checkpoints of one run; every rank calls every method."""

    def __init__(self, folder: Path, keep: int, *, global_batch: int, data: str) -> None:
        """Keep the newest `keep` checkpoints below `folder`.

        Args:
            global_batch: samples of a step; with another one the order of samples would break.
            data: digest of the data set, likewise.
        """
        self.folder = folder
        self.keep = keep
        self.save_s = 0.0  #: the longest whole save so far in seconds
        self._order = {"global_batch": global_batch, "data": data}

    def save(self, step: int, engine: Engine) -> None:
        """Write the state after `step` steps, unless it is there."""
        final = self.folder / f"step-{step:08d}"
        aside = final.with_suffix(".partial")
        if on_rank_0(lambda: step in self.steps()):
            return
        begin = time.perf_counter()
        on_rank_0(lambda: shutil.rmtree(aside, ignore_errors=True))
        save(engine.state(), checkpoint_id=aside)
        dist.barrier()
        on_rank_0(lambda: self._finish(aside, final, step))
        self.save_s = max(self.save_s, time.perf_counter() - begin)

    def restore(self, engine: Engine) -> int:
        """Load the newest checkpoint and return its step; 0 where there is none.

        Raises:
            InputError: the run had another global batch or another data set.
        """
        found = on_rank_0(self._newest)
        if found is None:
            return 0
        folder, step = found
        state = engine.state()
        load(state, checkpoint_id=folder)
        engine.load(state)
        return step

    def steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, ascending."""
        return sorted(
            int(path.parent.name[5:]) for path in self.folder.glob("step-*[0-9]/step.json")
        )

    def _newest(self) -> tuple[Path, int] | None:
        steps = self.steps()
        if not steps:
            return None
        folder = self.folder / f"step-{steps[-1]:08d}"
        saved = json.loads((folder / "step.json").read_text())
        if saved["global_batch"] != self._order["global_batch"]:
            raise InputError(
                f"{folder} was written with a global batch of {saved['global_batch']}, this run "
                f"has {self._order['global_batch']}: choose train.micro_batch x train.accumulate x "
                f"ranks = {saved['global_batch']}"
            )
        if saved["data"] != self._order["data"]:
            raise InputError(
                f"{folder} was written while reading other data: the data set has been built anew "
                f"since, so its samples have another order; choose another run.dir"
            )
        return folder, saved["step"]

    def _finish(self, aside: Path, final: Path, step: int) -> None:
        write_text(aside / "step.json", json.dumps({"step": step, **self._order}))
        aside.rename(final)
        sync_folder(self.folder)
        for old in self.steps()[: -self.keep]:
            folder = self.folder / f"step-{old:08d}"
            (folder / "step.json").unlink()  # what is half forgotten is no checkpoint
            shutil.rmtree(folder)


def saved(folder: Path) -> dict[int, Path]:
    """Return the folders of all whole checkpoints below a folder by their step, ascending."""
    whole = (path.parent for path in folder.glob("step-*[0-9]/step.json"))
    return dict(sorted((int(path.name[5:]), path) for path in whole))
