"""A Perceiver gives the same in every layout, cut or whole, and what its public peer gives."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverBasicDecoder

from hpcgeo.config import Parallel
from hpcgeo.models import attention
from hpcgeo.models.initialise import draw
from hpcgeo.models.layers import NORM_EPS, Attention, TransformerBlock
from hpcgeo.models.perceiver import CrossBlock, Perceiver
from hpcgeo.models.ragged import TokenLayout, packed, padded
from hpcgeo.objectives.collate import moved
from hpcgeo.parallel.parallelise import initialise, parallelise
from hpcgeo.parallel.topology import lay_out
from hpcgeo.stacks import Stack
from hpcgeo.strategies import strategy
from hpcgeo.zoo import PerceiverArchitecture
from tests.distributed import on_ranks

LENGTHS = [3, 17, 1, 40, 17]
LAYOUTS: dict[str, TokenLayout] = {
    "one batch": padded(LENGTHS, [range(5)]),
    "clusters": padded(LENGTHS, [[3], [4, 1], [0, 2]]),
    "each alone": padded(LENGTHS, [[sample] for sample in range(5)]),
    "packed": packed(LENGTHS),
}


def small(mlp: Any = "plain") -> PerceiverArchitecture:
    stack = Stack(width=32, depth=2, heads=4, hidden=64, mlp=mlp)
    return PerceiverArchitecture("small", stack, latents=6, context=20, source="test")


def build(mlp: Any = "plain") -> Perceiver:
    """Return a Perceiver whose norms and biases say something too."""
    model = Perceiver(small(mlp))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model


def tokens(lengths: Sequence[int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 20, generator=generator)


def answer(model: Perceiver, x: Tensor, layout: TokenLayout) -> tuple[Tensor, list[Tensor]]:
    """Return the latents, and the gradients of the tokens and of all parameters."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    latents = model(x, layout)
    latents.square().sum().backward()
    gradients = [wanted.grad for wanted in (x, *model.parameters())]
    assert all(gradient is not None for gradient in gradients)
    return latents.detach(), gradients


@torch.no_grad()
def differ(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the largest difference, of the largest value."""
    pairs = zip(a, b, strict=True)
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in pairs)


def one_by_one(model: Perceiver, lengths: Sequence[int]) -> Tensor:
    """Return the latents of every sample as the block gives them without any layout."""
    rows = []
    for sample in tokens(lengths).split(list(lengths)):
        x = model.read(model.latent_token, sample[None])
        for block in model.blocks:
            x = block(x)
        rows.append(x)
    return torch.cat(rows)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("mlp", ["plain", "gated"])
def test_every_layout_gives_the_same(name: str, mlp: str) -> None:
    model = build(mlp)
    latents, gradients = answer(model, tokens(LENGTHS), LAYOUTS[name])
    assert latents.shape == (5, 6, 32)
    whole, expected = answer(model, tokens(LENGTHS), LAYOUTS["one batch"])
    assert differ([latents], [whole]) < 1e-6
    assert differ(gradients, expected) < 1e-5
    assert differ([latents], [one_by_one(model, LENGTHS)]) < 1e-6


@settings(max_examples=30)
@given(st.data())
def test_any_lengths_in_any_clusters(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    marks = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    order = data.draw(st.permutations(range(len(lengths))))
    clusters = [[row for row in order if marks[row] == mark] for mark in sorted(set(marks))]
    model = build()
    with torch.no_grad():
        expected = one_by_one(model, lengths)
        for layout in (padded(lengths, clusters), packed(lengths)):
            assert differ([model(tokens(lengths), layout)], [expected]) < 1e-6


def test_samples_may_have_queries_of_their_own() -> None:
    block = build().read
    x, context = torch.randn(5, 7, 32), tokens(LENGTHS)
    expected = block(x[3:4], context[None, 21:61])
    for layout in LAYOUTS.values():
        assert differ([block(x, context, layout)[3:4]], [expected]) < 1e-6


@pytest.mark.parametrize("layout", [packed([]), padded([], [])], ids=["packed", "padded"])
def test_a_pass_without_samples_gives_nothing_and_zero_gradients(
    monkeypatch: pytest.MonkeyPatch, layout: TokenLayout
) -> None:
    """No fused kernel sees it: some of them abort the process."""
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", None)
    latents, gradients = answer(build(), torch.zeros(0, 20), layout)
    assert latents.shape == (0, 6, 32)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_no_sample(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", None)
    q = torch.zeros(0, 2, 3, 8, dtype=dtype, requires_grad=True)
    kv = torch.zeros(0, 2, 2000, 8, dtype=dtype, requires_grad=True)
    for mask in (None, torch.ones(0, 2000, dtype=torch.bool)):
        read = attention.attention(q, kv, kv, mask)
        assert read.shape == q.shape and read.dtype == dtype
        read.sum().backward()
        assert q.grad is not None and q.grad.shape == q.shape


def test_padding_says_nothing() -> None:
    layout = padded([2, 3], [[0, 1]])
    assert layout.clusters[0].mask is not None
    assert layout.clusters[0].index.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert padded([3, 3], [[1, 0]]).clusters[0].mask is None


@pytest.mark.parametrize("clusters", [[[0]], [[0, 1], [1]], [[0, 1], []], [[0, 2]]])
def test_a_layout_holds_every_sample_once(clusters: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="name each of 0 to 1 once"):
        padded([2, 3], clusters)


def test_a_sample_has_a_token() -> None:
    for lay in (packed, partial(padded, clusters=[[0, 1]])):
        with pytest.raises(ValueError, match=r"lengths \[2, 0\]: every sample"):
            lay([2, 0])


def test_plain_products_know_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    fused = answer(model, tokens(LENGTHS), LAYOUTS["clusters"])
    monkeypatch.setattr(attention, "PLAIN_UP_TO", {torch.float32: 10**9})
    plain = answer(model, tokens(LENGTHS), LAYOUTS["clusters"])
    assert differ([plain[0], *plain[1]], [fused[0], *fused[1]]) < 1e-5


def test_bfloat16() -> None:
    model = build().bfloat16()
    x = tokens(LENGTHS).bfloat16()
    latents = [model(x, layout) for layout in LAYOUTS.values()]
    assert latents[0].dtype == torch.bfloat16
    exact = build()(tokens(LENGTHS), LAYOUTS["packed"])
    assert all(differ([found.float()], [exact]) < 0.05 for found in latents)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernel_for_samples_of_any_length() -> None:
    model, device = build().bfloat16().cuda(), torch.device("cuda")
    x = tokens(LENGTHS).bfloat16().to(device)
    assert torch.bfloat16 in attention.RAGGED_KERNEL
    got = answer(model, x, moved(LAYOUTS["packed"], device))
    expected = answer(model, x, moved(LAYOUTS["clusters"], device))
    assert differ([got[0], *got[1]], [expected[0], *expected[1]]) < 0.05


# The public peer, with the same weights.


def linear(own: nn.Linear, *theirs: nn.Linear, heads: int = 1) -> None:
    """Take over products; several are interleaved by head, (H, parts, d)."""
    for word in ("weight", "bias"):
        parts = [getattr(one, word).detach().unflatten(0, (heads, -1)) for one in theirs]
        getattr(own, word).data = torch.stack(parts, dim=1).flatten(0, 2)


def norm(own: nn.LayerNorm, theirs: nn.LayerNorm) -> None:
    own.load_state_dict(theirs.state_dict())
    theirs.eps = NORM_EPS


def take(own: Any, layer: Any) -> None:
    """Take over the weights of one PerceiverLayer."""
    core = layer.attention.self
    heads = core.num_heads
    if isinstance(own.attention, Attention):
        norm(own.attention_norm, core.layernorm1)
        linear(own.attention.qkv, core.query, core.key, core.value, heads=heads)
    else:
        norm(own.attention.norm, core.layernorm1)
        norm(own.attention.context_norm, core.layernorm2)
        linear(own.attention.q, core.query)
        linear(own.attention.kv, core.key, core.value, heads=heads)
    linear(own.attention.out, layer.attention.output.dense)
    norm(own.mlp_norm, layer.layernorm)
    linear(own.mlp.into, layer.mlp.dense1)
    linear(own.mlp.out, layer.mlp.dense2)


def test_it_is_the_perceiver_of_transformers() -> None:
    torch.manual_seed(0)
    own = build()
    config = PerceiverConfig(
        num_latents=6,
        d_latents=32,
        d_model=20,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
        self_attention_widening_factor=2,
        cross_attention_widening_factor=2,
        cross_attention_shape_for_attention="q",
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
    )
    decoder = PerceiverBasicDecoder(
        config,
        output_num_channels=5,
        position_encoding_type="none",
        num_channels=32,
        num_heads=4,
        widening_factor=2,
        use_query_residual=True,
    )
    peer = PerceiverModel(config).eval()
    for parameter in (*peer.parameters(), *decoder.parameters()):
        nn.init.normal_(parameter, 0, 0.3)
    own.latent_token.data = peer.embeddings.latents.data
    take(own.read, peer.encoder.cross_attention)
    for block, layer in zip(own.blocks, peer.encoder.self_attends, strict=True):
        take(block, layer)
    answers = CrossBlock(32, 32, 4, 64, "plain")
    take(answers, decoder.decoding_cross_attention)

    lengths, queries = [9, 4, 1], torch.randn(3, 11, 32)
    context = tokens(lengths)
    inputs, mask = torch.randn(3, 9, 20), torch.zeros(3, 9)  # padding is no zero
    for row, part in enumerate(context.split(lengths)):
        inputs[row, : len(part)], mask[row, : len(part)] = part, 1
    with torch.no_grad():
        theirs = peer(inputs=inputs, attention_mask=mask).last_hidden_state
        said = decoder(queries, theirs).logits
        for layout in (padded(lengths, [[0, 1, 2]]), padded(lengths, [[1, 2], [0]])):
            assert differ([own(context, layout)], [theirs]) < 1e-5
        latents = own(context, packed(lengths))
        assert differ([latents], [theirs]) < 1e-5
        assert differ([decoder.final_layer(answers(queries, latents))], [said]) < 1e-5

        whole = peer(inputs=inputs).last_hidden_state  # without a mask
        assert differ([own(inputs.flatten(0, 1), packed([9, 9, 9]))], [whole]) < 1e-5


# On ranks.


class Toy(nn.Module):
    """A Perceiver as an objective."""

    methods = ()

    def __init__(self) -> None:
        super().__init__()
        self.perceiver = Perceiver(small("gated"))

    def stacks(self) -> list[list[nn.Module]]:
        return self.perceiver.stacks()

    def forward(self, tokens: Tensor, layout: TokenLayout) -> dict[str, Tensor]:
        return {"loss": self.perceiver(tokens, layout).square().sum()}

    def reconstruct(self) -> None:
        """Every objective has one."""


def alone(lengths: Sequence[int], seed: int) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and the gradients of one process."""
    toy = Toy()
    initialise(toy, partial(draw, seed=0))
    loss = toy(tokens(lengths, seed), packed(lengths))["loss"]
    loss.backward()
    return loss.item(), {name: wanted.grad for name, wanted in toy.named_parameters()}


def on_rank(options: dict[str, Any], parts: list[tuple[list[int], Any]]) -> tuple[float, Any]:
    """Return the loss of this rank and whole gradients, of samples and their clusters."""
    parallel = Parallel(**options)
    chosen = strategy(parallel.strategy)
    layout = chosen.layout(dist.get_world_size(), dict(parallel))
    rank = dist.get_rank()
    topology = lay_out(rank, rank, "host", torch.device("cpu"), chosen, layout)
    with torch.device("meta"):
        toy = Toy()
    model = parallelise(toy, topology, parallel, torch.float32, partial(draw, seed=0))
    lengths, clusters = parts[topology.data_rank]
    lay = packed(lengths) if clusters is None else padded(lengths, clusters)
    loss = model(tokens(lengths, topology.data_rank), lay)["loss"]
    loss.backward()
    gradients = {
        name: getattr(wanted.grad, "full_tensor", lambda grad=wanted.grad: grad)().numpy()
        for name, wanted in toy.named_parameters()
    }
    return loss.item(), gradients


@pytest.mark.parametrize("clusters", [None, [[3], [4, 1], [0, 2]]], ids=["packed", "clusters"])
def test_cut_over_ranks(clusters: Any) -> None:
    loss, gradients = alone(LENGTHS, 0)
    options = {"strategy": "FULL_SHARD", "tensor": 2}
    for got, found in on_ranks(on_rank, 2, options, [(LENGTHS, clusters)]):
        assert got == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert differ([torch.from_numpy(found[name])], [gradient]) < 1e-5, name


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "DDP", "recompute": "full"},
        {"strategy": "FULL_SHARD"},
        {"strategy": "FULL_SHARD", "recompute": "selective"},
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_ranks_of_other_clusters_or_none_do_not_wait_for_each_other(options: Any) -> None:
    parts: list[tuple[list[int], Any]] = [(LENGTHS, [[3], [4, 1], [0, 2]]), ([], [])]
    loss, gradients = alone(LENGTHS, 0)
    (first, found), (second, _) = on_ranks(on_rank, 2, options, parts)
    assert first == pytest.approx(loss, rel=1e-5) and second == 0
    for word, gradient in gradients.items():
        assert differ([torch.from_numpy(found[word])], [gradient / 2]) < 1e-5, word


def test_the_plan_names_every_product() -> None:
    model = build("gated")
    for unit in (model.read, model.blocks[0]):
        assert isinstance(unit, CrossBlock | TransformerBlock)
        products = {word for word, part in unit.named_modules() if isinstance(part, nn.Linear)}
        assert products == {
            word for word in unit.tensor_plan() if isinstance(unit.get_submodule(word), nn.Linear)
        }


def compilations() -> list[int]:
    """Return how many graphs were compiled after each of ten layouts."""
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model = build()
    forward = torch.compile(model.read.forward, backend=backend)
    counts = []
    for last in range(2, 12):
        lengths = [*range(1, last), 40 - last]
        for layout in (packed(lengths), padded(lengths, [[row] for row in range(last)])):
            forward(model.latent_token, tokens(lengths), layout).sum().backward()
        counts.append(len(compiled))
    return counts


def test_a_new_layout_is_not_compiled_again() -> None:
    [counts] = on_ranks(compilations, 1)
    assert counts[0] > 0 and counts[2] == counts[-1]
