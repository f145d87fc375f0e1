"""Tensor parallelism: the products of a block cut over the axis `tp`, by the model's own plan.

Between blocks, and in the norms, activations are cut along the tokens (sequence parallel,
Korthikanti et al. 2022, arXiv 2205.05198, section 4.2): attention and MLP gather them before their
first product and scatter the sums of their last. They are DTensors there, which know their whole
length: it need not be a multiple of the ranks. A block that reads a context of many tokens with few
latents is cut by heads and hidden units alone: both are whole on every rank, as are its sums.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

TOKENS = Shard(1)

#: Gathered tokens that are no multiple of the ranks, and their gradients, lie in memory with gaps,
#: which torch's products refuse before this version.
UNORDERED = torch.torch_version.TorchVersion(torch.__version__) < (2, 13)  # type: ignore[operator]

#: What the words of a plan mean.
STYLES: dict[str, ParallelStyle] = {
    "sequence": SequenceParallel(),
    "gather": PrepareModuleInput(
        input_layouts=TOKENS, desired_input_layouts=Replicate(), use_local_output=False
    ),
    "columns": ColwiseParallel(),
    "gather_columns": ColwiseParallel(input_layouts=TOKENS),
    "rows": RowwiseParallel(output_layouts=TOKENS, use_local_output=False),
    "sums": RowwiseParallel(),
}
#: At the begin of a stack.
ENTER = PrepareModuleInput(
    input_layouts=Replicate(), desired_input_layouts=TOKENS, use_local_output=False
)


class Block(Protocol):
    """A unit that can be cut."""

    def tensor_plan(self) -> dict[str, str]:
        """Return a word of `STYLES` for each module that is cut, by its name in this one."""


def cut(stacks: Iterable[Sequence[Any]], mesh: DeviceMesh) -> None:
    """Cut every block of every stack over a mesh of one axis; parameters become DTensors.

    Outside the stacks every rank of the axis computes the same.

    Args:
        stacks: blocks in the order of their use; each takes and returns (B, T, W). The blocks of
            one stack either all have their tokens cut or all have them whole.
        mesh: of the axis `tp`; `refuse_cut` of the architecture says which sizes fit.
    """
    for stack in stacks:
        for block in stack:
            words = block.tensor_plan()
            plan = {name: STYLES[word] for name, word in words.items()}
            modules = {name: block.get_submodule(name) for name in words}
            for name, word in words.items():
                if _bare(modules[name]) or (UNORDERED and word == "rows"):
                    # So that the hook comes before that of the style.
                    modules[name].register_forward_hook(_gradient_in_order)
            frozen = [name for name, value in block.named_parameters() if not value.requires_grad]
            parallelize_module(block, mesh, plan, src_data_rank=None)
            for name in frozen:  # not every style keeps them so
                block.get_parameter(name).requires_grad_(False)
            for name, word in words.items():
                if _bare(modules[name]) or (UNORDERED and word == "gather"):
                    modules[name].register_forward_pre_hook(_input_in_order)
        if "sequence" in stack[0].tensor_plan().values():
            for block in stack:
                block.register_forward_pre_hook(partial(_everywhere, mesh), with_kwargs=True)
            parallelize_module(stack[0], mesh, ENTER)
            stack[-1].register_forward_hook(_leave)


def _everywhere(
    mesh: DeviceMesh, block: Any, inputs: Any, named: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Say of what a block takes by name that it is the same on all ranks."""
    whole = {
        name: DTensor.from_local(value, mesh, [Replicate()], run_check=False)
        for name, value in named.items()
    }
    return inputs, whole


def _bare(module: Any) -> bool:
    """Return whether a module is a product without bias, which wants tokens without gaps."""
    return isinstance(module, nn.Linear) and module.bias is None


def _in_order(value: Any) -> Any:
    if not isinstance(value, DTensor) or value._local_tensor.is_contiguous():
        return value
    return value.clone(memory_format=torch.contiguous_format)


def _input_in_order(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_in_order(value) for value in inputs)


def _gradient_in_order(module: Any, inputs: Any, output: Any) -> None:
    if output.requires_grad:
        output.register_hook(_in_order)


def _leave(block: Any, inputs: Any, output: Any) -> Tensor:
    """Gather all tokens at the end of a stack; a copy, since FSDP2 wants no view from a unit."""
    whole: Tensor = output.full_tensor().clone()
    return whole
