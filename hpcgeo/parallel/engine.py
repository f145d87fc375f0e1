"""What the training loop asks of a model, however it is sharded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

#: What one forward takes, by name.
Inputs = Mapping[str, Any]
#: Gives rows of the initial value of a parameter, from its name and whole shape.
Initial = Callable[[str, Sequence[int], slice], Tensor]


class Engine(Protocol):
    """Forward and backward, step, state. Accumulation, precision and clipping live in here.

    An objective may have two hooks. `after_step()` is called on all ranks together after each
    update that was made, without gradients: it moves parameters that are not trained (a teacher
    that is a moving average), shard by shard. `gather`, which takes (B, ...) and returns it as it
    is, is replaced by one that returns the samples of all ranks, (W B, ...), with their gradients.
    """

    objective: nn.Module
    #: Whether in this step the backbone, and the optimizer state of its weights, stay as they are;
    #: their gradients are then no part of the norm. Set it before `forward_backward`.
    frozen: bool

    def forward_backward(
        self, micro_batches: Iterable[Inputs], count: int | None = None
    ) -> dict[str, Tensor]:
        """Run all micro-batches of one step of this rank; return the mean of each named scalar.

        Args:
            count: of the micro-batches, equal on all ranks; by default `accumulate`.
        """

    def step(self, lr: float) -> Tensor:
        """Update the parameters; return the norm of the whole gradient before clipping.

        Where the norm, which all ranks share, is not finite, nothing is updated. Layers of the
        backbone may learn at a part of `lr` (`hpcgeo.parallel.updates`).
        """

    def evaluate(self, method: str, inputs: Inputs) -> Any:
        """Call a method of the objective without gradients; every rank calls it together.

        Where a moving average of the weights is kept, it takes their place.
        """

    def state(self) -> dict[str, Any]:
        """Return parameters and optimizer state as this rank holds them, for a checkpoint."""

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that was filled in from a checkpoint."""

    def holdings(self) -> dict[str, list[Tensor]]:
        """Return the parameters, gradients and optimizer state that this rank holds just now, and
        apart, as `frozen`, parameters that are not trained."""
