"""The networks to compare with are those of their articles."""

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from hpcgeo.evaluate.nets import ResNet18, UNet


def parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_resnet18_has_the_size_that_is_known():
    assert parameters(ResNet18(3, 1000)) == 11_689_512


def test_resnet18_computes_what_transformers_does():
    """The layers of both are in one order; weights go from one to the other by it."""
    torch.manual_seed(0)
    peer = ResNetModel(
        ResNetConfig(
            num_channels=5,
            layer_type="basic",
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
        )
    ).eval()
    net = ResNet18(5, 7)
    for tensor in peer.buffers():  # statistics that are not those of a start
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    own = net.state_dict()
    names = [name for name in own if not name.startswith("head")]
    net.load_state_dict(own | dict(zip(names, peer.state_dict().values(), strict=True)))
    net.eval()
    images = torch.randn(2, 5, 64, 48)
    wanted = net.head(peer(images).pooler_output.flatten(1))
    assert torch.allclose(net(images), wanted, atol=1e-5)


@pytest.mark.parametrize("frame", [(32, 32), (33, 21)])
def test_unet_answers_every_pixel(frame):
    net = UNet(4, 3, width=4)
    assert net(torch.randn(2, 4, *frame)).shape == (2, 3, *frame)
