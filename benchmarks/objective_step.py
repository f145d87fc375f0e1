"""Training steps of our objectives against transformers': same weights, images and masks.

    python benchmarks/objective_step.py mae --dtype bfloat16 --rounds 5
    python benchmarks/objective_step.py simmim --micro-batch 8
    python benchmarks/objective_step.py simmim --only ours   # and peer: peaks of memory, each alone

mae: ViT-B at 224 pixels, our MAE and CrossMAE against ViTMAE. simmim: Swin-B, windows of 6, at 192
pixels, against SwinForMaskedImageModeling. All with fused AdamW; the peers run SDPA where they can.
Prints the median and the spread of each, the median of the ratios of neighbouring steps, and the
peak of resident memory, which means something where one runs alone.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from hpcgeo.objectives.cross_mae.network import CrossMAE
from hpcgeo.objectives.cross_mae.objective import CrossMaeOptions
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.objectives.simmim.network import SimMIM
from hpcgeo.objectives.simmim.objective import SimmimOptions
from hpcgeo.weights.foreign import converted
from hpcgeo.weights.foreign_swin import ForeignSwin
from hpcgeo.zoo import architecture

Loss = Callable[[], torch.Tensor]
GIB = 2**20  # of ru_maxrss, in KiB


def mae(batch: int) -> dict[str, tuple[nn.Module, Loss]]:
    config = transformers.ViTMAEConfig(
        layer_norm_eps=1e-6, norm_pix_loss=True, attn_implementation="sdpa"
    )
    peer = transformers.ViTMAEForPreTraining(config)
    peer.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    peer.vit.embeddings.initialize_weights()
    peer.decoder.initialize_weights(196)
    row = architecture("vit_base")
    ours = MAE(row, 3, MaeOptions())
    ours.load_state_dict(converted(peer.state_dict(), row, ours.state_dict()))
    cross = CrossMAE(row, 3, CrossMaeOptions())
    for parameter in cross.parameters():
        nn.init.normal_(parameter, std=0.02)
    cross.backbone.load_state_dict(ours.backbone.state_dict())
    images, noise = torch.randn(batch, 3, 224, 224), torch.rand(batch, 196)
    return {
        "ours": (ours, lambda: ours(images, noise)["loss"]),
        "cross": (cross, lambda: cross(images, noise)["loss"]),
        "peer": (peer, lambda: peer(pixel_values=images, noise=noise).loss),
    }


def simmim(batch: int) -> dict[str, tuple[nn.Module, Loss]]:
    row, side = architecture("swin_base_w6"), 192
    config = transformers.SwinConfig(
        image_size=side,
        embed_dim=row.width,
        depths=list(row.depths),
        num_heads=list(row.heads),
        window_size=row.window,
        encoder_stride=row.stride,
        drop_path_rate=0.0,
    )
    peer: Any = transformers.SwinForMaskedImageModeling(config)
    ours = SimMIM(row, 3, (side, side), SimmimOptions())
    theirs, r = peer.state_dict(), row.stride
    foreign, state = ForeignSwin(theirs, row), {}
    for name, value in ours.named_parameters():
        if name.startswith("backbone."):
            foreign.check(name, value.shape)
            state[name] = foreign.rows(name, value.shape, slice(None))
    state["mask_token"] = theirs["swin.embeddings.mask_token"].flatten()
    for word in ("weight", "bias"):
        own = theirs[f"decoder.0.{word}"].unflatten(0, (3, r, r)).movedim(0, 2).flatten(0, 2)
        state[f"predict.{word}"] = own.flatten(1) if word == "weight" else own
    ours.load_state_dict(state)
    images, noise = torch.randn(batch, 3, side, side), torch.rand(batch, (side // 32) ** 2)
    hidden = ours._hidden(images, noise)[:, :: row.patch, :: row.patch].flatten(1)
    return {
        "ours": (ours, lambda: ours(images, noise)["loss"]),
        "peer": (peer, lambda: peer(images, bool_masked_pos=hidden).loss),
    }


class Step:
    """A step of a model; `loss` is that of the last."""

    def __init__(self, model: nn.Module, loss: Loss, dtype: torch.dtype) -> None:
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self._loss, self._low = loss, dtype == torch.bfloat16
        self.loss = 0.0

    def __call__(self) -> float:
        """Do it; return the seconds it took."""
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._low):
            value = self._loss()
        value.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.loss = value.item()
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("objective", choices=["mae", "simmim"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--only", help="run this one alone: ours, cross, peer")
    options = parser.parse_args()
    torch.manual_seed(0)
    models = {"mae": mae, "simmim": simmim}[options.objective](options.micro_batch)
    dtype = getattr(torch, options.dtype)
    steps = {
        name: Step(*pair, dtype) for name, pair in models.items() if options.only in (None, name)
    }
    del models
    for warm_up in range(2):
        for run in steps.values():
            run()
        if warm_up == 0:
            print("loss of the first step:", {name: run.loss for name, run in steps.items()})
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, run in steps.items():
            times[name].append(run())
    for name, values in times.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        rate = options.micro_batch / middle
        print(f"{name}: median {middle:.3f} s, {low:.3f} to {high:.3f}; {rate:.2f} images/s")
    said = f"{options.dtype}, micro-batch {options.micro_batch}, {torch.get_num_threads()} threads"
    for name in times:
        if "peer" in times and name != "peer":
            pairs = zip(times["peer"], times[name], strict=True)
            ratios = [peer / mine for peer, mine in pairs]
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            print(f"{said}: peer / {name} = {middle:.2f} ({low:.2f} to {high:.2f})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    print(f"{said}: peak of resident memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
