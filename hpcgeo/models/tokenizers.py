"""Observations of any sensor become tokens: a stem for every band, and encodings of coordinates.

Letters: S samples of a pass, G observations of a group, T dates, L bands, H x W pixels, h x w
tokens of one date and band, V values of a vector, C width of a token.

A stem is three convolutions that mix neither bands nor dates (GPNA, appendix 7.1.1). A band without
a stem of its own is read by that of unknown bands: what it is, its spectral encoding says. A token
is the stem's answer plus encodings of place, time and spectrum. What conditions a tokenizer, such
as a prompt that describes a new modality, would be added to the encodings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models import coordinates
from hpcgeo.models.ragged import TokenLayout

#: Sensor, band, and the length of a vector (0: an image).
Channel = tuple[str, str, int]

#: The first two of three convolutions have these fractions of the width.
NARROW = (4, 2)

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ObservationGroup:
    """Observations alike in sensor, bands and shape.

    Attributes:
        channels: (L,)
        named: whether bands are read by their own stems; False: by that of unknown bands.
        patch: pixels on a side of a token; of vectors 1.
        values: (G, T, L, H, W) or (G, T, L, V), NaN where missing.
        time: (G, T, 2) centre and half-width, days since 2000, float64.
        gsd_m: (U,) the ground sampling distances there are; NaN: unknown.
        gsd_of: (G,) which of them.
        place: (G, 2) longitude and latitude, degrees.
        place_spread_m: (G,)
        wavelength_nm, bandwidth_nm: (L,), NaN where there is none.
        flags: (G, L, 5) polarisation HH, HV, VH, VV; orbit of a SAR image, 1 or -1.
        kept: (n,) which of its G T L h w tokens are not missing.
        samples: (G,) which sample of the pass each observation is of.
    """

    channels: tuple[Channel, ...]
    named: bool
    patch: int
    values: Tensor
    time: Tensor
    gsd_m: Tensor
    gsd_of: Tensor
    place: Tensor
    place_spread_m: Tensor
    wavelength_nm: Tensor
    bandwidth_nm: Tensor
    flags: Tensor
    kept: Tensor
    samples: Tensor

    @property
    def size(self) -> int:
        """Values of a token."""
        return self.patch**2 * max(1, self.channels[0][2])

    def there(self) -> Tensor:
        """Return which tokens are not missing, (G, T, L, h, w)."""
        G, T, L = self.values.shape[:3]
        vector = self.values.dim() == 4
        h, w = (1, 1) if vector else (size // self.patch for size in self.values.shape[3:])
        there = torch.zeros(G * T * L * h * w, dtype=torch.bool, device=self.kept.device)
        there[self.kept] = True
        return there.view(G, T, L, h, w)


@dataclass(frozen=True)
class Tokens:
    """What is to become the tokens of one forward-backward pass.

    Attributes:
        groups: of observations.
        place: (S, 2), place_spread_m: (S,), height_m: (S, 2), of the samples.
        order: (N,) which of [samples, kept tokens of all groups] each token of the pass is; each
            sample has first a token of its own, so that none is without any.
        layout: which of them are whose.
        keys: (S,) int64, by which samples skip blocks in training, where they do
            (`hpcgeo.models.drop_path`).
    """

    groups: tuple[ObservationGroup, ...]
    place: Tensor
    place_spread_m: Tensor
    height_m: Tensor
    order: Tensor
    layout: TokenLayout
    keys: Tensor | None = None

    def keys_of_images(self) -> Tensor | None:
        """Return the key of the sample of each image, dates of observations in turn, (n,)."""
        if self.keys is None:
            return None
        of_images = (
            self.keys[group.samples].repeat_interleave(group.values.shape[1])
            for group in self.groups
        )
        return torch.cat([self.keys[:0], *of_images])


class Read(NamedTuple):
    """What a tokenizer makes of a pass.

    Attributes:
        flat: (N, C) the tokens in the order of the layout.
        grids: of each group (G, T, L, h, w, C), its tokens, also missing ones.
        where: of each group, their encodings alone; broadcasts to the same shape.
    """

    flat: Tensor
    grids: list[Tensor]
    where: list[Tensor]


class ImageStem(nn.Module):
    """Three convolutions on one band, 1 -> C / 4 -> C / 2 -> C, and what it is called.

    `own_token` tells apart what has no wavelength, or the same one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [1, *(width // part for part in NARROW), width]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in pairwise(sizes))
        self.own_token = nn.Parameter(torch.empty(width))


class VectorStem(nn.Module):
    """An MLP on one vector, and what it is called."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(length, width)
        self.out = nn.Linear(width, width)
        self.own_token = nn.Parameter(torch.empty(width))

    def forward(self, values: Tensor) -> Tensor:
        return self.out(F.gelu(self.into(values)))


class Tokenizer(nn.Module):
    """Stems for the channels there are, and the encodings that all of them share."""

    def __init__(self, channels: Sequence[Channel], width: int, density: str = "uniform") -> None:
        """Build the stems.

        Args:
            channels: every one that samples may hold.
            width: of a token, C.
            density: of what is known of a coordinate around it; see `fourier.encode`.
        """
        super().__init__()
        self.width, self.density = width, density
        images = [named(channel) for channel in channels if not channel[2]]
        self.images = nn.ModuleDict({name: ImageStem(width) for name in (*images, UNKNOWN)})
        self.vectors = nn.ModuleDict(
            {named(channel): VectorStem(channel[2], width) for channel in channels if channel[2]}
        )
        self.encodings = nn.ModuleDict(
            {name: nn.Linear(features, width) for name, features in coordinates.WIDTHS.items()}
        )
        self.flags = nn.Linear(5, width)
        self.sample_token = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tokens) -> Read:
        where = [self.encoding(group) for group in tokens.groups]
        read = [
            self.features(group) + encoding
            for group, encoding in zip(tokens.groups, where, strict=True)
        ]
        return Read(self.arrange(tokens, read), read, where)

    def arrange(self, tokens: Tokens, read: Sequence[Tensor]) -> Tensor:
        """Return the tokens of a pass (N, C) in the order of its layout."""
        own = (
            self.sample_token
            + self._cast(zero_of(self))  # each stem takes part, whatever bands there are
            + self._place(tokens.place, tokens.place_spread_m)
            + self._encoded("height", *tokens.height_m.unbind(-1))
        )
        kept = [
            part.reshape(-1, self.width)[group.kept]
            for part, group in zip(read, tokens.groups, strict=True)
        ]
        return torch.cat([own, *(part.to(own.dtype) for part in kept)])[tokens.order]

    def features(self, group: ObservationGroup) -> Tensor:
        """Return what the stems say, (G, T, L, h, w, C); h = w = 1 for vectors.

        A stem reaches into the tokens around its own: what is missing or hidden is zero there.
        """
        stems = self._stems(group)
        there = group.there()
        if group.channels[0][2]:
            values = self._cast(known(group.values, there[..., 0]))
            read = [stem(values[:, :, band]) for band, stem in enumerate(stems)]
            return torch.stack(read, dim=2)[:, :, :, None, None]
        G, T, L, H, W = group.values.shape
        there = there.repeat_interleave(group.patch, 3).repeat_interleave(group.patch, 4)
        x = known(group.values, there).reshape(G * T, L, H, W)
        halvings = min(len(NARROW) + 1, group.patch.bit_length() - 1)
        for number in range(len(NARROW) + 1):
            # The bands are the groups of one convolution.
            layers = [stem.layers[number] for stem in stems]
            weight = torch.cat([layer.weight for layer in layers])
            bias = torch.cat([layer.bias for layer in layers])
            # Beyond its edge a frame goes on as it ends: a single pixel is like a field of its own.
            x = F.pad(x.to(weight.dtype), _margins(number, halvings), mode="replicate")
            x = F.conv2d(x, weight, bias, stride=2 if number < halvings else 1, groups=L)
            if number < len(NARROW):
                x = F.gelu(x)
        if group.patch > 8:
            x = F.avg_pool2d(x, group.patch // 8)
        return x.reshape(G, T, L, self.width, *x.shape[2:]).permute(0, 1, 2, 4, 5, 3)

    def _stems(self, group: ObservationGroup) -> list[Any]:
        """Return the stem of each channel; images that are not known have that of unknown bands."""
        stems: Any = self.vectors if group.channels[0][2] else self.images
        names = (named(channel) for channel in group.channels)
        if group.channels[0][2]:
            return [stems[name] for name in names]
        return [stems[name if group.named and name in stems else UNKNOWN] for name in names]

    def encoding(self, group: ObservationGroup) -> Tensor:
        """Return where, when and at what wavelength it was observed; see `features`."""
        spectrum = self._encoded("spectrum", group.wavelength_nm, group.bandwidth_nm)  # (L, C)
        own = torch.stack([stem.own_token for stem in self._stems(group)])  # (L, C)
        band = spectrum + own + self.flags(group.flags.to(spectrum.dtype))  # (G, L, C)
        time = self._encoded("moment", group.time)  # (G, T, C)
        of_sample = self._place(group.place, group.place_spread_m)  # (G, C)
        x = time[:, :, None] + band[:, None] + of_sample[:, None, None]  # (G, T, L, C)
        x = x[:, :, :, None, None]
        return x if group.channels[0][2] else x + self._space(group)[:, None, None]

    def _space(self, group: ObservationGroup) -> Tensor:
        """Return the encoding of the tokens' places in their frame, (G, h, w, C)."""
        *_, H, W = group.values.shape
        device = group.values.device
        axes = [
            (torch.arange(size // group.patch, dtype=torch.float64, device=device) + 0.5)
            * (group.patch / size)
            for size in (H, W)
        ]
        position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # (h, w, 2)
        # Filled on the device: a tensor made of Python's numbers would be waited for.
        extent = torch.stack(
            [axis.new_full((), size) for axis, size in zip(axes, (H, W), strict=True)]
        )
        half = group.patch / 2 / extent
        gsd = group.gsd_m[:, None, None, None].double()  # (U, 1, 1, 1)
        offset = (position - 0.5) * extent * gsd  # (U, h, w, 2)
        near = self._encoded("ground", offset, (gsd * group.patch / 2).expand(-1, -1, -1, 2))
        fine = self.encodings["scale"](self._cast(coordinates.scale(group.gsd_m)))  # (U, C)
        in_frame = self._encoded("frame", position, half)
        return (near + fine[:, None, None])[group.gsd_of] + in_frame

    def _place(self, place: Tensor, spread_m: Tensor) -> Tensor:
        return self._encoded("place", place, spread_m)

    def _encoded(self, name: str, *position: Tensor) -> Tensor:
        features = getattr(coordinates, name)(*position, density=self.density)
        return self.encodings[name](self._cast(features))

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.flags.weight.dtype)


def named(channel: Channel) -> str:
    """Return the name of a channel's stem: data sets that share a band share it."""
    sensor, band, length = channel
    name = f"{sensor}/{band}" + (f"/{length}" if length else "")
    return name.replace(".", ",")  # the name of a module has no dot


def known(values: Tensor, there: Tensor) -> Tensor:
    """Return values with zeros where they, or their tokens, are missing."""
    there = there if there.dim() == values.dim() else there[..., None]
    return values.where(there & values.isfinite(), 0.0)


def _margins(number: int, halvings: int) -> tuple[int, int, int, int]:
    """Return how far a layer pads: left, right, top, bottom.

    A kernel of 3 that halves an even side has its middle half a pixel off, to the right or to the
    left; the last layer goes back against those before it, which leaves half a pixel of the image.
    """
    if number >= halvings:
        return (1, 1, 1, 1)
    return (1, 0, 1, 0) if number == halvings - 1 else (0, 1, 0, 1)


def zero_of(module: nn.Module) -> Tensor:
    """Return a zero that depends on every parameter: so each has a gradient, used or not."""
    return torch.stack([parameter.float().sum() for parameter in module.parameters()]).sum() * 0
