"""What is asked of a probe: on which data, by which protocol, with how many labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcgeo.errors import InputError
from hpcgeo.evaluate.cache import POOLINGS

#: Whose features are compared.
Whose = Literal["encoder", "random", "samples"]
#: Label subsets where there are fewer labels than all.
REPLICATES = 5
#: Of the random weights.
RANDOM = 0


@dataclass(frozen=True)
class DataSet:
    """A labelled data set to be probed on.

    Attributes:
        name: of the task.
        reader: a row of `hpcgeo list readers`.
        path: folder or file.
        target: which label, where there are several.
    """

    name: str
    reader: str
    path: Path
    target: str | None = None


@dataclass(frozen=True)
class ProbeOptions:
    """How an encoder is probed.

    Attributes:
        protocol: a row of `hpcgeo.evaluate.protocols.table`.
        blocks: whose features are tried; by default `Encoder.blocks`.
        poolings: that are tried, keys of `POOLINGS`; by default all.
        size: pixels on a side of the images; by default that of the encoder.
        normalise: by whose moments, "encoder" or "data".
        labels: fraction of the labels, or a number of them of each class.
        replicates: label subsets, by seeds 0, 1, ...; by default `REPLICATES`, 1 of all labels.
        refit: fit the choice to training and validation split together at last.
        split: that is scored.
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
    split: Literal["test", "validation"] = "test"
    metric: str | None = None
    beside: tuple[Whose, ...] = ("random", "samples")
    cache: Path = Path("hpcgeo-features")

    @property
    def features(self) -> str:
        """Among which features is chosen, for records; of all poolings the order is one."""
        blocks = ", ".join(map(str, sorted(self.blocks))) or "of the second half"
        return f"blocks {blocks}; {', '.join(sorted(self.poolings or POOLINGS))}"


def data_set(text: str) -> DataSet:
    """Return what [NAME=]READER:PATH[:TARGET] names.

    Raises:
        InputError: it is not of that form.
    """
    name, equals, rest = text.partition("=")
    if not equals or ":" in name or "/" in name:
        name, rest = "", text
    reader, colon, path = rest.partition(":")
    if not colon or not path:
        raise InputError(
            f"--on {text!r}: READER:PATH, e.g. scenes:data/ucmerced; readers: `hpcgeo list readers`"
        )
    target = None
    if ":" in path and not Path(path).exists() and Path(path.rpartition(":")[0]).exists():
        path, _, target = path.rpartition(":")
    return DataSet(name or Path(path).stem, reader, Path(path), target or None)
