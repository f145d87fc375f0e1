"""Several labelled tasks at once: options, which tasks it takes, and what it takes of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from hpcgeo.errors import InputError
from hpcgeo.objectives.objective import (
    TASKS,
    Inputs,
    Material,
    Objective,
    ObjectiveOptions,
    SampleBatch,
)
from hpcgeo.options import FREE, NEUTRAL, Task

if TYPE_CHECKING:
    from torch import nn

    from hpcgeo.data.labelled import TaskSet
    from hpcgeo.data.labelled_batches import Bool, Drawn
    from hpcgeo.data.mixing import Mixing


class MultiTaskOptions(ObjectiveOptions):
    """Several tasks at once, a head each (GPNA, roadmap step 2)."""

    name: Literal["multitask"]
    balance: Literal["fixed", "uncertainty"] = Field(
        "fixed",
        description="weights of the losses: fixed, or learned (Kendall et al. 2018, "
        "arXiv 1705.07115)",
    )
    queries: PositiveInt = Field(
        1024, description="pixels of a sample that a dense head answers for in training, at random"
    )
    unnamed: float = Field(
        0.1,
        ge=0,
        le=1,
        description="fraction of bands read, in training, as if they had no stem of their own: so "
        "that the stem of unknown bands learns; a ViT has no such stem, and reads all as they are",
    )
    mixup: float = Field(
        0.0,
        ge=0,
        description="alpha of mixup: each image of one class or of labels is blended with another "
        "of its task, the share from a Beta distribution (Zhang et al. 2018, arXiv 1710.09412); 0: "
        "none",
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        description="alpha of CutMix: a rectangle of each image is that of another of its task "
        "(Yun et al. 2019, arXiv 1905.04899); with mixup each has half of the samples; 0: none",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="fraction of a label, of one class or of several labels, that is spread evenly "
        "over what it might be (Szegedy et al. 2016, arXiv 1512.00567)",
    )
    patience: PositiveInt | None = Field(
        None,
        description="early stopping: evaluations without a better score after which a task is "
        "done; the run ends when all are",
        json_schema_extra=FREE | NEUTRAL,
    )


class MultiTask(Objective):
    """Several tasks at once, with their labels: pretraining, fine-tuning or training anew."""

    title = "learn the labels of one or several tasks, a head each (GPNA); fine-tuning"
    Options = MultiTaskOptions
    backbones = None
    data = (TASKS,)
    labels = True
    exports = ("timm",)
    model_options = ("drop_path", "lora_rank")
    options: MultiTaskOptions

    @property
    def unnamed(self) -> float:  # type: ignore[override]
        return self.options.unnamed

    @property
    def patience(self) -> int | None:  # type: ignore[override]
        return self.options.patience

    @property
    def mixing(self) -> Mixing | None:  # type: ignore[override]
        from hpcgeo.data.mixing import Mixing

        options = self.options
        amounts = options.mixup, options.cutmix, options.label_smoothing
        return Mixing(*amounts) if any(amounts) else None

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.models.backbone import adapted, backbone
        from hpcgeo.objectives.multitask.network import Asked, MultiTaskNetwork

        assert material.tasks is not None and material.sets is not None
        tasks = {
            name: Asked(material.sets[name].target, task.loss, task.local, task.head)
            for name, task in material.tasks.items()
        }
        made = backbone(material.architecture, material.channels, material.bands, material.density)
        adapted(made, material.architecture.family, material.drop_path, material.lora_rank)
        return MultiTaskNetwork(made, tasks, self.options, material.density)

    def check(self, tasks: Mapping[str, Task], sets: Mapping[str, TaskSet]) -> None:
        from torch import nn

        from hpcgeo.kinds.metrics import metric_of
        from hpcgeo.kinds.table import kind_of
        from hpcgeo.models.heads import ATTENTIVE

        self._refuse_mixing(sets)
        for name, task in tasks.items():
            if not kind_of(sets[name].target).labels:
                raise InputError(
                    f"task {name}: {task.path} has no labels, and objective.name multitask learns "
                    f"from labels: leave the task out, or pretrain with masked_tokens or mae"
                )
            metric_of(task.metric, sets[name].target)
            if self.options.balance == "uncertainty" and task.loss != 1:
                raise InputError(
                    f"data.tasks.{name}.loss {task.loss} has no effect where objective.balance is "
                    f"uncertainty: leave it out, or choose fixed"
                )
            if kind_of(sets[name].target).dense and task.head != ATTENTIVE:
                raise InputError(
                    f"data.tasks.{name}.head {task.head} is for labels of whole samples, and those "
                    f"of {task.path} are of pixels: leave it out"
                )
            if hasattr(nn.ModuleDict, name):
                raise InputError(f"task {name}: torch has that word for itself: name it otherwise")

    def _refuse_mixing(self, sets: Mapping[str, TaskSet]) -> None:
        """Refuse to mix or smooth what cannot be, in any task; an InputError names the option."""
        from hpcgeo.data.mixing import are_images
        from hpcgeo.kinds.table import kind_of

        soft = [part for part in sets.values() if kind_of(part.target).mixes]
        images = any(are_images(part.read(0)) for part in soft) if self.mixing else False
        for option in ("mixup", "cutmix", "label_smoothing"):
            of = "samples" if option == "label_smoothing" else "images"
            if getattr(self.options, option) and not (soft if of == "samples" else images):
                raise InputError(
                    f"objective.{option} {getattr(self.options, option)} has no effect: no task "
                    f"has {of} of one class or of several labels; leave it out"
                )

    def visible(self, drawn: Sequence[Drawn], tasks: Mapping[str, Task]) -> list[tuple[Bool, ...]]:
        from hpcgeo.objectives.masking import hide

        return [
            hide(one, ratio, self.seed)[0] if (ratio := tasks[one.task].hide) else one.kept
            for one in drawn
        ]

    def task_inputs(self, batch: SampleBatch) -> Inputs:
        from hpcgeo.objectives.collate import drop_keys, questions

        made, grouping = batch.tokens()
        if batch.material.drop_path and not batch.whole:
            made = replace(made, keys=drop_keys(batch.drawn, self.seed))
        queries = None if batch.whole else self.options.queries
        return {"tokens": made, "questions": questions(batch.drawn, grouping, queries, self.seed)}
