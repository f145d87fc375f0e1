"""Strategies as data: what each one shards, over which ranks, and what it pays per step."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from hpcgeo.errors import InputError
from hpcgeo.tables import find, read

Over = Literal["none", "group", "world"]


class Collective(NamedTuple):
    """One collective of a step; a whole model passes it, over replicas one shard of it."""

    name: Literal["all_reduce", "all_gather", "reduce_scatter"]
    of: Literal["parameters", "gradients"]
    over: Literal["world", "group", "replicas"]
    when: Literal["forward", "backward"]

    def volume(self, world_size: int, shard_size: int) -> float:
        """Return what one rank sends per step with a ring, in model sizes (Thakur et al. 2005).

        All-gather and reduce-scatter over n ranks send (n - 1) / n of the whole, all-reduce both.
        """
        ranks, size = {
            "world": (world_size, 1.0),
            "group": (shard_size, 1.0),
            "replicas": (world_size // shard_size, 1 / shard_size),
        }[self.over]
        rounds = 2 if self.name == "all_reduce" else 1
        return rounds * size * (ranks - 1) / ranks


@dataclass(frozen=True)
class Strategy:
    """A row of facts/strategies.yaml.

    Between steps, `parameters`, `gradients` and `optimizer` are whole on every rank ("none") or cut
    over a group or the world. With `reshard_after_forward` a unit is gathered again for backward.
    """

    name: str
    sentence: str
    source: str
    parameters: Over
    gradients: Over
    optimizer: Over
    reshard_after_forward: bool
    collectives: tuple[Collective, ...]

    def shard_size(self, world_size: int, group_size: int | None = None) -> int:
        """Return how many ranks together hold one copy of the model.

        Args:
            world_size: all ranks.
            group_size: ranks that together hold one copy, for HYBRID_SHARD.

        Raises:
            InputError: `group_size` is missing, has no effect, or does not divide `world_size`.
        """
        if self.parameters != "group":
            if group_size is not None:
                raise InputError(
                    f"parallel.group_size {group_size} has no effect under {self.name}: drop it, "
                    f"or set parallel.strategy=HYBRID_SHARD"
                )
            return world_size if self.parameters == "world" else 1
        if group_size and group_size > 0 and world_size % group_size == 0:
            return group_size
        choices = ", ".join(str(k) for k in range(1, world_size + 1) if world_size % k == 0)
        if group_size is None:
            raise InputError(
                f"{self.name} needs parallel.group_size: on {world_size} ranks one of {choices}"
            )
        raise InputError(
            f"parallel.group_size {group_size} does not divide the world of {world_size} "
            f"ranks: choose one of {choices}"
        )


@cache
def strategies() -> dict[str, Strategy]:
    """Return every strategy by name."""
    return {
        name: Strategy(
            name=name,
            sentence=row["sentence"],
            source=row["source"],
            **row["shard"],
            reshard_after_forward=row["reshard"],
            collectives=tuple(Collective(*cells) for cells in row["pays"]),
        )
        for name, row in read("strategies").items()
    }


def strategy(name: str) -> Strategy:
    """Return one strategy; an unknown name is an InputError that lists the known ones."""
    return find(strategies(), name, "strategy")
