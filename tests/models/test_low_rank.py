"""LoRA: the formula of peft, what is trained, and that it begins as the model was."""

import pytest
import torch
from torch import nn

from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.models.backbone import adapted
from hpcgeo.models.initialise import draw
from hpcgeo.models.layers import TransformerBlock
from hpcgeo.models.low_rank import LowRank, adapt, additions_to, is_addition, product
from hpcgeo.models.perceiver import CrossBlock
from hpcgeo.stacks import Stack

RANK = 3
STACK = Stack(width=16, depth=1, heads=2, hidden=24, mlp="gated")


class Backbone(nn.Module):
    """Two kinds of block, and a layer outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.blocks = nn.ModuleList([CrossBlock(16, 8, 2, 24, "plain"), TransformerBlock(STACK)])

    def stacks(self) -> list[list[nn.Module]]:
        return [list(self.blocks)]


def backbone() -> Backbone:
    torch.manual_seed(0)
    made = Backbone()
    adapt(made, RANK)
    return made


def test_it_is_the_formula_of_peft() -> None:
    """`peft.tuners.lora.Linear`: W x + B A x alpha / r, here with alpha = r."""
    owner = nn.Module()
    owner.out, owner.low_rank = nn.Linear(5, 7), nn.ModuleDict({"out": LowRank(5, 7, RANK)})
    x, added = torch.randn(2, 4, 5), owner.low_rank["out"]
    A, B, alpha = added.into_rank.weight, added.from_rank.weight, RANK
    theirs = owner.out(x) + x @ A.T @ B.T * alpha / RANK
    torch.testing.assert_close(product(owner, "out", x), theirs)
    peft = pytest.importorskip("peft")
    wrapped = peft.tuners.lora.Linear(owner.out, "default", r=RANK, lora_alpha=RANK)
    wrapped.lora_A.default.weight.data, wrapped.lora_B.default.weight.data = A.data, B.data
    torch.testing.assert_close(product(owner, "out", x), wrapped(x))


def test_additions_alone_are_trained_in_every_product_of_blocks() -> None:
    made = backbone()
    trained = {name for name, value in made.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in made.named_parameters() if is_addition(name)}
    matrices = {
        name
        for name, module in made.blocks.named_modules()
        if isinstance(module, nn.Linear) and not is_addition(f"{name}.")
    }
    both = {f"blocks.{one}" for name in matrices for one in additions_to(f"{name}.weight")}
    assert both == trained


def test_merged_it_is_a_plain_block() -> None:
    made = backbone()
    x, context = torch.randn(2, 6, 16), torch.randn(2, 9, 8)
    found = made.blocks[1](made.blocks[0](x, context))
    plain, values = Backbone(), dict(made.named_parameters())
    with torch.no_grad():
        for name, value in plain.named_parameters():
            value.copy_(values[name])
            last, first = additions_to(name)
            if last in values:
                value.add_(values[last] @ values[first])
    torch.testing.assert_close(plain.blocks[1](plain.blocks[0](x, context)), found)


def test_it_begins_as_the_model_was() -> None:
    last, first = additions_to("backbone.blocks.0.mlp.out.weight")
    assert not draw(last, (16, RANK), slice(None), 0).any()
    assert draw(first, (RANK, 24), slice(None), 0).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.lora_rank 2 keeps .* give model\.weights"):
        load("gpna_tiny", ["model.lora_rank=2"])
    empty = Backbone()
    empty.blocks = nn.ModuleList()
    with pytest.raises(InputError, match="nothing can be added to the blocks of a mine"):
        adapted(empty, "mine", 0.0, 2)
