"""Closed forms of objectives that describe views of an image, beside a teacher that does so too.

Letters: N patches of a view, T tokens, W width of the backbone, P values of a patch.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

from hpcgeo.stacks import ReusedStack
from hpcgeo.zoo import Architecture, Forms

#: Widths of layers from the input's to the output's, as of `hpcgeo.models.projection.Projection`.
Widths = Sequence[int]


def parameters_of(widths: Widths) -> int:
    """Return the parameters of a projection: layers with biases, norms between them."""
    return sum((a + 1) * b for a, b in pairwise(widths)) + 2 * sum(widths[1:-1])


def flops_of(widths: Widths) -> int:
    """Return the forward FLOPs of a projection of one vector."""
    return sum(2 * a * b for a, b in pairwise(widths))


def numbers_of(widths: Widths) -> int:
    """Return the numbers that a projection keeps of one vector: what enters layers, norms, GELU."""
    return sum(widths[:-1]) + 2 * sum(widths[1:-1])


def forms(
    architecture: Architecture,
    bands: int,
    views: Sequence[tuple[int, int]],
    taught: int,
    heads: Sequence[Widths],
    teacher_heads: Sequence[Widths],
    *,
    beside: int = 0,
    flops: int = 0,
    loss_bytes: int = 0,
) -> Forms:
    """Return the closed forms for one image.

    Outside of the blocks a view keeps its patches and what enters the last norm, and its heads what
    they are given; the teacher reads its views when all of that is held: beside it, in its MLP,
    what enters it and the norm before, and both sides of the activation.

    Args:
        architecture: a ViT.
        bands: of the images.
        views: height and width of each that the student reads.
        taught: how many of them, from the first, the teacher reads.
        heads, teacher_heads: projections of every view.
        beside: parameters of the student and of the teacher each, beside backbone and heads.
        flops: of a view, beside backbone and heads, of either.
        loss_bytes: what the loss keeps.
    """
    stack, W, P = architecture.encoder, architecture.encoder.width, architecture.patch**2 * bands
    patches = [architecture.num_patches(view) for view in views]
    tokens = [N + 1 + architecture.registers for N in patches]
    again = ReusedStack(**asdict(stack))
    embedding = [2 * N * P * W for N in patches]
    own, theirs = (sum(map(flops_of, each)) + flops for each in (heads, teacher_heads))
    kept = sum(N * P + T * W for N, T in zip(patches, tokens, strict=True))
    kept += len(views) * sum(map(numbers_of, heads))
    reading = sum(T * 2 * (W + stack.hidden) for T in tokens[:taught])

    def edge_bytes(dtype_bytes: int) -> float:
        return dtype_bytes * kept + max(loss_bytes, dtype_bytes * reading)

    return Forms(
        stacks=((stack, tokens[0]), *((again, T) for T in tokens[1:])),
        root_parameters=_parameters(architecture, bands, heads, beside) - stack.parameters,
        edge_flops=sum(embedding) + len(views) * own,
        input_flops=sum(embedding),
        edge_bytes=edge_bytes,
        view_bytes=4 * bands * sum(height * width for height, width in views),
        summary=f"{len(views)} views of {' and '.join(map(str, dict.fromkeys(patches)))} patches",
        frozen_parameters=_parameters(architecture, bands, teacher_heads, beside),
        frozen_flops=sum(
            N + stack.flops(T) + theirs for N, T in zip(embedding[:taught], tokens, strict=False)
        ),
    )


def _parameters(
    architecture: Architecture, bands: int, heads: Sequence[Widths], beside: int
) -> int:
    return architecture.parameters(bands) + sum(map(parameters_of, heads)) + beside
