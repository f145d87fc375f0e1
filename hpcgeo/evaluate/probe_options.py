"""What is asked of a probe: by which protocol, with how many labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Whose features are compared.
Whose = Literal["encoder", "random", "samples"]
#: Label subsets where there are fewer labels than all.
REPLICATES = 5
#: Of the random weights.
RANDOM = 0


@dataclass(frozen=True)
class ProbeOptions:
    """How an encoder is probed.

    Attributes:
        protocol: a row of `hpcgeo.evaluate.protocols.table`.
        blocks: whose features are tried; by default `Encoder.blocks`.
        poolings: that are tried, of `Encoder.poolings`; by default all.
        size: pixels on a side of the images; by default that of the encoder.
        normalise: by whose moments, "encoder" or "data".
        labels: fraction of the labels, or a number of them of each class.
        replicates: label subsets, by seeds 0, 1, ...; by default `REPLICATES`, 1 of all labels.
        refit: fit the choice to training and validation split together at last.
        metric: that is judged by; by default the usual one of the kind.
        beside: whose features are fitted to beside those of the encoder.
        cache: folder of features.
    """

    protocol: str = "linear"
    blocks: tuple[int, ...] = ()
    poolings: tuple[str, ...] = ()
    size: int | None = None
    normalise: Literal["encoder", "data"] = "encoder"
    labels: float | int = 1.0
    replicates: int | None = None
    refit: bool = True
    metric: str | None = None
    beside: tuple[Whose, ...] = ("random", "samples")
    cache: Path = Path("hpcgeo-features")
