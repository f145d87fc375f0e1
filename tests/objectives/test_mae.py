"""MAE against its public peer: same weights and mask, same loss, gradients and files."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.stacks import Stack
from hpcgeo.weights.foreign import converted
from hpcgeo.weights.names import TRANSFORMERS, Names, convert, positions
from hpcgeo.zoo import Architecture

transformers.logging.disable_progress_bar()
CHIP = 48
SMALL = Architecture(
    "small",
    Stack(32, 3, 4, 128, "plain"),
    patch=8,
    source="test",
    decoder=Stack(16, 2, 2, 64, "plain"),
)


def initialised(architecture: Architecture, bands: int, objective: MaeOptions) -> MAE:
    mae = MAE(architecture, bands, objective)
    for name, parameter in mae.named_parameters():
        parameter.data = draw(name, parameter.shape, slice(None), seed=0)
    return mae


def peer(normalise: bool, bands: int = 3) -> ViTMAEForPreTraining:
    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        image_size=CHIP,
        patch_size=8,
        num_channels=bands,
        layer_norm_eps=1e-6,
        norm_pix_loss=normalise,
    )
    model = ViTMAEForPreTraining(config)
    # Newer releases leave the positions zero in the constructor; their own code fills them.
    embeddings = model.vit.embeddings
    embeddings.patch_embeddings.projection._is_hf_initialized = False
    embeddings.initialize_weights()
    model.decoder.initialize_weights(embeddings.patch_embeddings.num_patches)
    assert embeddings.position_embeddings.any()
    assert model.decoder.decoder_pos_embed.any()
    return model


def exported(mae: MAE, names: Names) -> dict[str, torch.Tensor]:
    theirs = positions(SMALL, (CHIP // 8, CHIP // 8), names)
    for name, value in mae.state_dict().items():
        parts = convert(name, value, SMALL, names)
        on_meta = convert(name, value.to("meta"), SMALL, names)
        assert {n: p.shape for n, p in parts.items()} == {n: p.shape for n, p in on_meta.items()}
        theirs |= {target: part.contiguous() for target, part in parts.items()}
    return theirs


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("bands", [3, 5])
def test_loss_and_gradients_equal_transformers(normalise: bool, bands: int) -> None:
    theirs = peer(normalise, bands)
    mae = initialised(SMALL, bands, MaeOptions(normalise_target=normalise))
    mae.load_state_dict(converted(theirs.state_dict(), SMALL, mae.state_dict()))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, bands, CHIP, CHIP, generator=generator)
    noise = torch.rand(4, 36, generator=generator)

    loss = mae(images, noise)["loss"]
    loss.backward()
    expected = theirs(pixel_values=images, noise=noise).loss
    expected.backward()

    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    gradients = {name: p.grad for name, p in mae.named_parameters()}
    wanted = converted(
        {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}, SMALL, gradients
    )
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-5, msg=name)


def test_weights_go_out_and_come_back() -> None:
    mae = initialised(SMALL, 3, MaeOptions())
    back = converted(exported(mae, TRANSFORMERS), SMALL, mae.state_dict())
    assert all(torch.equal(back[name], value) for name, value in mae.state_dict().items())


def test_transformers_reads_what_is_exported_and_we_read_its_file(tmp_path) -> None:
    mae = initialised(SMALL, 3, MaeOptions(normalise_target=True))
    theirs = peer(normalise=True)
    theirs.config.save_pretrained(tmp_path)
    save_file(
        exported(mae, TRANSFORMERS),
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    loaded = ViTMAEForPreTraining.from_pretrained(tmp_path)
    images, noise = torch.randn(2, 3, CHIP, CHIP), torch.rand(2, 36)
    torch.testing.assert_close(
        loaded(pixel_values=images, noise=noise).loss,
        mae(images, noise)["loss"],
        atol=1e-5,
        rtol=1e-5,
    )
    loaded.save_pretrained(tmp_path / "again")
    written = load_file(tmp_path / "again" / "model.safetensors")
    again = converted(written, SMALL, mae.state_dict())
    assert all(torch.equal(again[name], value) for name, value in mae.state_dict().items())


def test_foreign_weights_of_another_size_are_refused() -> None:
    mae = initialised(SMALL, 5, MaeOptions())
    with pytest.raises(InputError, match="does not fit backbone"):
        converted(peer(True, 3).state_dict(), SMALL, mae.state_dict())
    with pytest.raises(InputError, match="no weight"):
        converted({}, SMALL, mae.state_dict())


def test_aspect_and_permutation() -> None:
    """A chip that is not square works, and the loss does not depend on values behind the mask."""
    mae = initialised(SMALL, 3, MaeOptions(normalise_target=False))
    images, noise = torch.randn(2, 3, 32, 64), torch.rand(2, 32)
    holes, whole = mae.reconstruct(images, noise)
    assert holes.shape == whole.shape == images.shape
    seen = ~holes.isnan()
    assert torch.equal(whole[seen], images[seen])
    assert seen.float().mean() == pytest.approx(0.25)
    changed = torch.where(seen, images, torch.randn_like(images))
    _, other = mae.reconstruct(changed, noise)
    torch.testing.assert_close(other, whole)
