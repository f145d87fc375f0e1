"""Training from a folder of JPEG, end to end: ours against the loop a user would write.

    python benchmarks/end_to_end.py PHOTOS --rounds 3 --workers 0 1

The peer is transformers' ViTMAE of the same sizes, a PyTorch data set that decodes and augments
with Pillow (the recipe of benchmarks/views.py), torch's DataLoader and AdamW; ours is `hpcgeo
train` on shards of the same photographs, with its metrics, logging, checkpoint at the end and
record. Both are commands of their own, by turns, with equally many threads; all but the building of
the shards counts, from start to end, and beside it the median step after the first ten. Prints
ratios of neighbouring rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "mae_vit_tiny"


def peer(photos: Path, options: argparse.Namespace) -> None:
    """Train as a user's own script would; print the seconds of each step."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers import ViTMAEConfig, ViTMAEForPreTraining
    from views import Recipe

    from hpcgeo.config import load
    from hpcgeo.weights.export import _vit_mae
    from hpcgeo.zoo import architecture

    class Photos(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.paths = sorted(photos.rglob("*.jpg"))
            self.recipe = Recipe(options.chip, np.array([124.0] * 3), np.array([54.0] * 3))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.from_numpy(self.recipe(Image.open(self.paths[index]).convert("RGB")))

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    run = load(MODEL, [f"data.chip={options.chip}"])
    config = _vit_mae(run, architecture(run.model.name), 3)
    model = ViTMAEForPreTraining(ViTMAEConfig(**config, attn_implementation="sdpa"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    loader = torch.utils.data.DataLoader(
        Photos(),
        batch_size=options.micro_batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers[0],
        persistent_workers=options.workers[0] > 0,
    )
    seconds: list[float] = []
    before = time.perf_counter()
    while len(seconds) < options.steps:
        for images in loader:
            loss = model(pixel_values=images).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            now = time.perf_counter()
            seconds.append(now - before)
            before = now
            if len(seconds) == options.steps:
                break
    print(json.dumps(seconds))


def timed(command: list[str]) -> tuple[float, str]:
    begin = time.perf_counter()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - begin, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--chip", type=int, default=224)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options.photos, options)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    same = [f"--{name}={getattr(options, name)}" for name in ("chip", "steps", "threads")]
    same.append(f"--micro-batch={options.micro_batch}")
    hpcgeo = [sys.executable, "-m", "hpcgeo"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        timed([*hpcgeo, "data", "build", str(options.photos), "--out", str(folder / "set")])
        for workers in options.workers:
            whole: list[tuple[float, float]] = []
            steps: list[tuple[float, float]] = []
            for number in range(options.rounds):
                run = folder / f"run-{workers}-{number}"
                wanted = ["--peer", *same, f"--workers={workers}"]
                theirs, said = timed([sys.executable, __file__, str(options.photos), *wanted])
                wanted = [
                    f"run.dir={run}",
                    f"data.path={folder / 'set'}",
                    f"data.chip={options.chip}",
                    f"data.workers={workers}",
                    f"train.steps={options.steps}",
                    f"train.micro_batch={options.micro_batch}",
                    f"launch.threads={options.threads}",
                    "train.eval_every=null",
                ]
                ours, _ = timed([*hpcgeo, "train", MODEL, *wanted])
                rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
                mine = [row["step_s"] for row in rows][10:]
                whole.append((theirs, ours))
                steps.append((statistics.median(json.loads(said)[10:]), statistics.median(mine)))
            for what, pairs in (("command", whole), ("step", steps)):
                ratios = sorted(peer / mine for peer, mine in pairs)
                peers, mines = (statistics.median(values) for values in zip(*pairs, strict=True))
                print(
                    f"{workers} workers, {what}: plain loop {peers:.3f} s, hpcgeo {mines:.3f} s; "
                    f"{statistics.median(ratios):.2f} x as fast ({ratios[0]:.2f} to "
                    f"{ratios[-1]:.2f})"
                )
    return None


if __name__ == "__main__":
    main()
