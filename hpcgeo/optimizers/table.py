"""Optimizers as rows: what each keeps, takes and needs. Nothing here imports torch before `make`.

A package adds one by an entry point of the group ``hpcgeo.optimizers`` that names an `Optimizer`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from hpcgeo.errors import InputError
from hpcgeo.options import Optim
from hpcgeo.tables import brief, loaded, nearest, plugins

GROUP = "hpcgeo.optimizers"


class Group(NamedTuple):
    """Parameters that are updated alike, on one mesh.

    Attributes:
        parameters: plain tensors or shards (DTensor).
        matrices: of more than one dimension; others neither decay nor are scaled by norms.
        hidden: matrices of two dimensions inside a block; not embeddings, heads, tokens.
    """

    parameters: list[Any]
    matrices: bool
    hidden: bool


@dataclass(frozen=True)
class Optimizer:
    """A row of the table.

    Attributes:
        block_bytes: state of a parameter in a block, in bytes.
        other_bytes: state of any other parameter.
        takes: options of `optim` that not every optimizer has a use for.
        whole_matrices: it gathers every matrix of a block, one after another, on every rank.
        make: returns a `torch.optim.Optimizer` whose groups have a learning rate `lr`.
    """

    name: str
    block_bytes: int
    other_bytes: int
    takes: tuple[str, ...]
    whole_matrices: bool
    source: str
    make: Callable[[Sequence[Group], Optim], Any]

    def state_bytes(self, optim: Optim) -> tuple[int, int]:
        """Return the state of a parameter in a block, and of any other, in bytes."""
        average = 4 * (optim.ema is not None)
        return self.block_bytes + average, self.other_bytes + average

    def refuse(self, optim: Optim, backend: str, offload: bool) -> None:
        """Refuse what this optimizer cannot do.

        Raises:
            InputError: an option has no effect, or it needs more than a strategy holds together.
        """
        for name in ("betas", "momentum"):
            # A saved configuration names every option: one with its usual value asks for nothing.
            usual = Optim.model_fields[name].default
            if name not in self.takes and getattr(optim, name) != usual:
                raise InputError(
                    f"optim.{name} has no effect under optim.name={self.name}: drop it, or choose "
                    f"one of {', '.join(o.name for o in optimizers().values() if name in o.takes)}"
                )
        if backend == "deepspeed" and optim.ema is not None:
            raise InputError(
                f"optim.ema={optim.ema} under parallel.backend=deepspeed, whose engine keeps no "
                f"average of the weights: drop it, or choose parallel.strategy=FULL_SHARD"
            )
        if backend == "deepspeed" and self.name != "AdamW":
            raise InputError(
                f"optim.name={self.name} under parallel.backend=deepspeed: its engine is held to "
                f"AdamW alone; choose parallel.strategy=FULL_SHARD"
            )
        if self.whole_matrices and offload:
            raise InputError(
                f"optim.name={self.name} with parallel.offload: it gathers matrices on the device; "
                f"drop parallel.offload, or choose optim.name=AdamW"
            )


def _plain(groups: Sequence[Group], optim: Optim) -> list[dict[str, Any]]:
    return [
        {"params": group.parameters, "weight_decay": optim.weight_decay * group.matrices}
        for group in groups
    ]


def _adapting(groups: Sequence[Group], optim: Optim) -> list[dict[str, Any]]:
    plain = zip(_plain(groups, optim), groups, strict=True)
    return [options | {"adapt": group.matrices} for options, group in plain]


def _adamw(groups: Sequence[Group], optim: Optim) -> Any:
    import torch

    return torch.optim.AdamW(_plain(groups, optim), betas=optim.betas, fused=True)


def _sgd(groups: Sequence[Group], optim: Optim) -> Any:
    import torch

    return torch.optim.SGD(_plain(groups, optim), lr=0.0, momentum=optim.momentum)


def _lars(groups: Sequence[Group], optim: Optim) -> Any:
    from hpcgeo.optimizers.layerwise import LARS

    return LARS(_adapting(groups, optim), optim.momentum)


def _lamb(groups: Sequence[Group], optim: Optim) -> Any:
    from hpcgeo.optimizers.layerwise import LAMB

    return LAMB(_adapting(groups, optim), optim.betas)


def _muon(groups: Sequence[Group], optim: Optim) -> Any:
    from hpcgeo.optimizers.layerwise import Muon

    plain = zip(_plain(groups, optim), groups, strict=True)
    chosen = [options | {"orthogonal": group.hidden} for options, group in plain]
    return Muon(chosen, optim.momentum, optim.betas)


ROWS = (
    Optimizer(
        *("AdamW", 8, 8, ("betas",), False),
        source="Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2",
        make=_adamw,
    ),
    Optimizer(
        *("SGD", 4, 4, ("momentum",), False),
        source="Sutskever et al. 2013, section 2, as torch.optim.SGD",
        make=_sgd,
    ),
    Optimizer(
        *("LARS", 4, 4, ("momentum",), False),
        source="You et al. 2017, arXiv 1708.03888; vectors as in the linear probes of MAE and "
        "MoCo v3: no adaptation, no decay",
        make=_lars,
    ),
    Optimizer(
        *("LAMB", 8, 8, ("betas",), False),
        source="You et al. 2020, arXiv 1904.00962, algorithm 2; vectors as LARS",
        make=_lamb,
    ),
    Optimizer(
        *("Muon", 4, 8, ("betas", "momentum"), True),
        source="Jordan et al. 2024, kellerjordan.github.io/posts/muon; step size of Liu et al. "
        "2025, arXiv 2502.16982, section 2.2; AdamW outside the matrices of blocks",
        make=_muon,
    ),
)


@cache
def optimizers() -> dict[str, Optimizer]:
    """Return every optimizer by name: our own, then those of installed packages."""
    added = [loaded(entry) for entry in plugins(GROUP).values()]
    return {row.name: row for row in (*ROWS, *added)}


def optimizer(name: str) -> Optimizer:
    """Return a row.

    Raises:
        InputError: no such row; the message lists the known ones and says how to add one.
    """
    known = optimizers()
    if name not in known:
        raise InputError(
            f"unknown optim.name {brief(name)}{nearest(name, known)}; known: {', '.join(known)}; "
            f"an installed package adds one by an entry point of the group {GROUP}"
        )
    return known[name]
