"""Strategies as data: what each one shards, over which ranks, and what it pays per step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from hpcgeo.errors import InputError
from hpcgeo.options import Parallel
from hpcgeo.tables import find, read

Over = Literal["none", "group", "world"]
Backend = Literal["native", "deepspeed"]


#: Options that not every strategy has a use for, and the value that asks for nothing.
IDLE = {name: Parallel.model_fields[name].default for name in Parallel.marked("only")}


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


class Layout(NamedTuple):
    """World size = dp_replicate x dp_shard x tp: copies, ranks a copy is cut over, ranks a matrix
    product is cut over."""

    dp_replicate: int
    dp_shard: int
    tp: int

    @property
    def data_parallel(self) -> int:
        """How many ranks read samples of their own."""
        return self.dp_replicate * self.dp_shard


@dataclass(frozen=True)
class Strategy:
    """A row of facts/strategies.yaml.

    Between steps, `parameters`, `gradients` and `optimizer` are whole on every rank ("none") or cut
    over a group or the world. With `reshard_after_forward` a unit is gathered again for backward.
    `takes` names the options of `parallel` for which not every strategy has a use.
    """

    name: str
    sentence: str
    source: str
    backend: Backend
    takes: tuple[str, ...]
    parameters: Over
    gradients: Over
    optimizer: Over
    reshard_after_forward: bool
    collectives: tuple[Collective, ...]

    def layout(self, world_size: int, options: Mapping[str, Any]) -> Layout:
        """Return how so many ranks are divided.

        Args:
            world_size: all ranks.
            options: of `parallel`, by name.

        Raises:
            InputError: the ranks cannot be divided so, or an option has no effect under this
                strategy.
        """
        if options["backend"] not in (None, self.backend):
            names = [row.name for row in strategies().values() if row.backend == options["backend"]]
            raise InputError(
                f"{self.name} is a strategy of parallel.backend={self.backend}: drop "
                f"parallel.backend={options['backend']}, or choose one of {', '.join(names)}"
            )
        self._refuse_idle(options)
        tp = options["tensor"]
        if world_size % tp:
            raise InputError(
                f"parallel.tensor {tp} does not divide the world of {world_size} ranks: choose one "
                f"of {_divisors(world_size)}"
            )
        k = self.shard_size(world_size // tp, options["group_size"])
        return Layout(world_size // tp // k, k, tp)

    def shard_size(self, data_parallel: int, group_size: int | None = None) -> int:
        """Return how many ranks together hold one copy of the optimizer's state.

        Args:
            data_parallel: ranks that read samples of their own.
            group_size: ranks that together hold one copy, for strategies that take it.

        Raises:
            InputError: `group_size` is missing, has no effect, or does not divide the ranks.
        """
        self._refuse_idle({"group_size": group_size})
        if "group_size" in self.takes and group_size is None:
            raise InputError(
                f"{self.name} needs parallel.group_size: on {data_parallel} ranks one of "
                f"{_divisors(data_parallel)}"
            )
        if group_size is not None and (group_size < 1 or data_parallel % group_size):
            raise InputError(
                f"parallel.group_size {group_size} does not divide {data_parallel} data-parallel "
                f"ranks: choose one of {_divisors(data_parallel)}"
            )
        return {"none": 1, "group": group_size or 1, "world": data_parallel}[self.optimizer]

    def _refuse_idle(self, options: Mapping[str, Any]) -> None:
        """Refuse an option that is set and that this strategy has no use for."""
        for option, value in options.items():
            if option in IDLE and option not in self.takes and value != IDLE[option]:
                users = [row.name for row in strategies().values() if option in row.takes]
                raise InputError(
                    f"parallel.{option} {value} has no effect under {self.name}: drop it, or "
                    f"choose parallel.strategy from {', '.join(users)}"
                )


def _divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, number + 1) if number % size == 0)


@cache
def strategies() -> dict[str, Strategy]:
    """Return every strategy by name."""
    return {
        name: Strategy(
            name=name,
            sentence=row["sentence"],
            source=row["source"],
            backend=row["backend"],
            takes=tuple(row["takes"]),
            **row["shard"],
            reshard_after_forward=row["reshard"],
            collectives=tuple(Collective(*cells) for cells in row["pays"]),
        )
        for name, row in read("strategies").items()
    }


def strategy(name: str) -> Strategy:
    """Return one strategy; an unknown name is an InputError that lists the known ones."""
    return find(strategies(), name, "strategy")
