"""Attention through one place, which picks the fused kernel or plain products.

Letters: B batch, H heads, T tokens, Q queries, d width of a head; N tokens of S samples.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from hpcgeo.models.ragged import Packed

#: On a CPU plain batched products are faster than the fused kernel up to this many tokens
#: (forward and backward; benchmarks/attention.py measures the crossing). Elsewhere fused always is.
PLAIN_UP_TO = {torch.bfloat16: 1024}

#: What the kernel for samples of any length computes in, on a GPU.
RAGGED_KERNEL: tuple[torch.dtype, ...] = ()

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # PyTorch before 2.10
    pass
else:
    RAGGED_KERNEL = (torch.bfloat16, torch.float16)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v.

    Args:
        q: (B, H, Q, d)
        k, v: (B, H, T, d), of the dtype of q.
        mask: (B, T), True at what may be attended to: something in every row; None: all of it.

    Returns:
        (B, H, Q, d)
    """
    seen = None if mask is None else mask[:, None, None]
    plain = q.device.type == "cpu" and k.shape[2] <= PLAIN_UP_TO.get(q.dtype, 0)
    if plain or not q.shape[0]:  # fused kernels abort on a pass without samples
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, Q, T)
        if seen is not None:
            weights = weights.masked_fill(~seen, -torch.inf)
        return weights.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def packed_attention(q: Tensor, kv: Tensor, layout: Packed) -> Tensor:
    """Return the attention of each sample's queries to its own tokens alone.

    On a GPU one kernel does all samples, where PyTorch has it. Elsewhere, and in float32, which it
    does not know, each has a call of its own: on a CPU that takes about an eighth of the time of
    nested tensors, which have no fused kernel there.

    Args:
        q: (S, H, Q, d)
        kv: (N, H, 2, d), the keys and values of all tokens.
        layout: of the tokens.

    Returns:
        (S, H, Q, d)
    """
    if q.device.type == "cuda" and q.dtype in RAGGED_KERNEL:
        S, H, Q, d = q.shape
        k, v = kv.unbind(2)  # (N, H, d)
        starts = torch.arange(0, (S + 1) * Q, Q, dtype=torch.int32, device=q.device)
        flat = q.transpose(1, 2).reshape(S * Q, H, d)
        most = max(layout.lengths)
        read = varlen_attn(flat, k, v, starts, layout.bounds, Q, most)  # (S Q, H, d)
        return cast(Tensor, read).view(S, Q, H, d).transpose(1, 2)
    # Split before heads come first: then the gradients of samples are joined without a copy more.
    # Queries before heads, as the kernel leaves them in memory: what follows needs no copy either.
    parts = [
        attention(one[None], *own.permute(2, 1, 0, 3).unsqueeze(1)).transpose(1, 2)
        for one, own in zip(q, torch.split(kv, list(layout.lengths)), strict=True)
    ]
    return torch.cat(parts).transpose(1, 2)
