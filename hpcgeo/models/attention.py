"""Attention through one function, which picks the fused kernel or plain products."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: On a CPU plain batched products are faster than the fused kernel up to this many tokens
#: (forward and backward; benchmarks/attention.py measures the crossing). Elsewhere fused always is.
PLAIN_UP_TO = {torch.bfloat16: 1024}


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v.

    Args:
        q, k, v: (B, H, T, d), of one dtype.

    Returns:
        (B, H, T, d)
    """
    if q.device.type == "cpu" and k.shape[2] <= PLAIN_UP_TO.get(q.dtype, 0):
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, T)
        return weights.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)
