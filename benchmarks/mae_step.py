"""Training step of our MAE against transformers' ViTMAE: same weights, images and mask.

    python benchmarks/mae_step.py --dtype bfloat16 --rounds 5

Both run ViT-B at 224 pixels with fused AdamW; the peer runs SDPA. Prints the median and the spread
of each, and the median of the ratios of neighbouring steps.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.weights.foreign import converted
from hpcgeo.zoo import architecture


def step_of(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], dtype: torch.dtype
) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        step.loss = value.item()
        return time.perf_counter() - begin

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=32)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)

    torch.manual_seed(0)
    config = ViTMAEConfig(layer_norm_eps=1e-6, norm_pix_loss=True, attn_implementation="sdpa")
    peer = ViTMAEForPreTraining(config)
    peer.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    peer.vit.embeddings.initialize_weights()
    peer.decoder.initialize_weights(196)
    ours = MAE(architecture("vit_base"), 3, MaeOptions())
    ours.load_state_dict(
        converted(peer.state_dict(), architecture("vit_base"), ours.state_dict())
    )
    images = torch.randn(options.micro_batch, 3, 224, 224)
    noise = torch.rand(options.micro_batch, 196)

    step = {
        "ours": step_of(ours, lambda: ours(images, noise)["loss"], dtype),
        "peer": step_of(peer, lambda: peer(pixel_values=images, noise=noise).loss, dtype),
    }
    for warm_up in range(2):
        for run in step.values():
            run()
        if warm_up == 0:
            print("loss of the first step:", {name: run.loss for name, run in step.items()})
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(options.rounds):
        for name, run in step.items():
            times[name].append(run())
    for name, values in times.items():
        print(
            f"{name}: median {statistics.median(values):.3f} s, "
            f"{min(values):.3f} to {max(values):.3f}"
        )
    ratios = [peer / mine for peer, mine in zip(times["peer"], times["ours"], strict=True)]
    print(
        f"{options.dtype}, micro-batch {options.micro_batch}, {torch.get_num_threads()} threads: "
        f"peer / ours = {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
