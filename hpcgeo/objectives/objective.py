"""What an objective is: options, network, closed forms, the data and backbones it takes, in one.

An objective is one class and one row of `hpcgeo.objectives.table`, or an entry point of the group
`hpcgeo.objectives` in any installed package. Nothing else of ours asks which objective a run has.
This file and the classes beside the networks import no torch: a configuration is read at once on a
login node.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from hpcgeo.options import NEUTRAL, Augment, OptionGroup, Task
from hpcgeo.zoo import Forms

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hpcgeo.data.labelled import DescribedSet, TaskSet
    from hpcgeo.data.labelled_batches import Bool, Drawn
    from hpcgeo.data.mixing import Mixing
    from hpcgeo.models.tokenizers import Tokens
    from hpcgeo.objectives.collate import Collate, Grouping

#: What one forward takes, by name.
Inputs = Mapping[str, Any]

#: The two kinds of data: `data.path`, images of one layout; `data.tasks`, samples of any sensors.
IMAGES, TASKS = "images", "tasks"


class ObjectiveOptions(OptionGroup):
    """The options of an objective; `name` is a literal, the key of its row."""

    name: str = Field(
        description="a row of `hpcgeo list objectives`; without it mae", json_schema_extra=NEUTRAL
    )


@dataclass(frozen=True)
class Material:
    """What a network is built for.

    Attributes:
        architecture: of the backbone.
        bands: of the images; 0: of several sensors.
        chip: height and width of the images, where all have the same.
        channels: the bands of labelled samples: of all sensors together, or of images of one set of
            bands in their order.
        sets: data sets by task.
        tasks: their options.
        density: how what is known of a coordinate is distributed around it.
        drop_path: how often samples skip the last block in training.
        lora_rank: of matrices that are added to a frozen backbone; None: it is trained itself.
    """

    architecture: Any
    bands: int
    chip: tuple[int, int] | None
    channels: tuple[Any, ...] = ()
    sets: Mapping[str, DescribedSet] | None = None
    tasks: Mapping[str, Task] | None = None
    density: str = "uniform"
    drop_path: float = 0.0
    lora_rank: int | None = None


@dataclass(frozen=True)
class SampleBatch:
    """Samples of one forward.

    Attributes:
        drawn: the samples.
        visible: of each, which tokens take part.
        collate: makes their tokens.
        material: what the network was built for.
        whole: ask for all that a sample could be asked, for evaluation.
    """

    drawn: Sequence[Drawn]
    visible: Sequence[tuple[Bool, ...]]
    collate: Collate
    material: Material
    whole: bool = False

    def tokens(self) -> tuple[Tokens, Grouping]:
        """Return the tokens that take part, and which observations are read together."""
        return self.collate(self.drawn, self.visible)


class Objective(ABC):
    """What a run is trained for; made once from its options.

    Attributes:
        title: a sentence for `hpcgeo list objectives`.
        Options: its options.
        backbones: families of backbones that it trains (`hpcgeo list models`); None: any that
            is a `hpcgeo.models.backbone.Backbone`.
        data: what it learns from: IMAGES, TASKS or both.
        labels: whether it learns from labels, and is judged by metrics of them.
        exports: formats of `hpcgeo export` beside our own.
        model_options: options of `model` that have an effect under it, of those that not every
            objective takes.
        unnamed: fraction of observations whose bands are read as unknown ones.
        patience: evaluations without a better score after which a task is done; None: never.
        mixing: how labelled samples are mixed in training (`hpcgeo.data.mixing.Mixing`), if at all.
    """

    title: ClassVar[str]
    Options: ClassVar[type[ObjectiveOptions]]
    backbones: ClassVar[tuple[str, ...] | None]
    data: ClassVar[tuple[str, ...]]
    labels: ClassVar[bool] = False
    exports: ClassVar[tuple[str, ...]] = ()
    model_options: ClassVar[tuple[str, ...]] = ()
    unnamed: float = 0.0
    patience: int | None = None
    mixing: Mixing | None = None

    def __init__(self, options: Any, seed: int) -> None:
        """Take the options of a run, and its seed."""
        self.options, self.seed = options, seed

    @classmethod
    def takes(cls, data: str) -> bool:
        """Return whether it learns from IMAGES or TASKS; images are samples without labels too."""
        return data in cls.data or (data == IMAGES and TASKS in cls.data and not cls.labels)

    @abstractmethod
    def network(self, material: Material) -> nn.Module:
        """Return the module that is trained; called where the meta device is the default.

        Its `forward` returns named scalars, `loss` among them; `stacks()` lists the blocks, each a
        unit to shard; `methods` names what may be called for evaluation. Its backbone is called
        `backbone`: by that name weights go from one objective to another.
        """

    def forms(self, architecture: Any, bands: int, chip: tuple[int, int]) -> Forms | None:
        """Return parameters, FLOPs and bytes in closed form; None: they are not known."""
        return None

    def check(self, tasks: Mapping[str, Task], sets: Mapping[str, TaskSet]) -> None:  # noqa: B027
        """Refuse tasks that cannot be learned; an InputError says what would fit."""

    def sources(self, architecture: Any) -> Mapping[str, tuple[Path, Any]]:
        """Return where parts of the network beside the backbone have their weights from: the prefix
        of their names (they go on as `backbone.`), to a file as of `model.weights` and the
        architecture of what is in it.

        Args:
            architecture: of the backbone.
        """
        return {}

    def drawn_as(self, name: str) -> str:
        """Return the parameter whose first value this one has too: that of a teacher's student."""
        return name

    def gain(self, name: str) -> float:
        """Return how much larger than usual a parameter begins."""
        return 1.0

    def random_views(
        self, chip: tuple[int, int], augment: Augment
    ) -> Sequence[tuple[tuple[int, int], Augment]]:
        """Return the kinds of the random views of an image that one forward takes: height and
        width, and the ranges they are drawn from.

        Args:
            chip, augment: of `data`.
        """
        return [(chip, augment)]

    def image_inputs(self, views: Sequence[Tensor], position: Any, num_patches: int) -> Inputs:
        """Return what one forward takes of views (B, C, h, w) of images at positions (B,)."""
        return {"images": views[0]} if len(views) == 1 else {"views": tuple(views)}

    def visible(self, drawn: Sequence[Drawn], tasks: Mapping[str, Task]) -> list[tuple[Bool, ...]]:
        """Return which tokens of each sample take part."""
        return [one.kept for one in drawn]

    def task_inputs(self, batch: SampleBatch) -> Inputs:
        """Return what one forward takes of samples, beside `scale`."""
        return {"tokens": batch.tokens()[0]}
