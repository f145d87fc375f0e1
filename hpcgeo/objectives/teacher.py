"""An encoder whose features a student learns, as options: it is read, never trained."""

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from hpcgeo.options import FREE, Beta, OptionGroup


class TeacherOptions(OptionGroup):
    """The teacher: an encoder that is not trained, which holds no gradient and no optimizer
    state."""

    name: str | None = Field(
        None,
        description="a row of `hpcgeo list models`, or a YAML file; by default the student's",
    )
    weights: Path | None = Field(
        None,
        description="its run (run.dir), export or public file, as of model.weights; it stays as it "
        "is, and reads images as the student does: normalised by the data set",
    )
    momentum: Beta | None = Field(
        None,
        description="instead of weights: the teacher is a moving average of the student, over some "
        "1 / (1 - momentum) steps",
    )
    size: PositiveInt | None = Field(
        None,
        description="pixels on a side to which images are resized for it; by default as they are",
    )
    stage: PositiveInt | None = Field(
        None,
        description="the stage of a Swin, or block of a ViT, whose features are learned; by "
        "default a Swin's third, a ViT's last",
    )
    replicate: bool = Field(
        False,
        description="every rank holds it whole, where the student is sharded: no gathering",
        json_schema_extra=FREE,
    )

    @model_validator(mode="after")
    def _has_one_origin(self) -> "TeacherOptions":
        if (self.weights is None) == (self.momentum is None):
            raise ValueError(
                "objective.teacher needs weights (of an encoder that stays as it is) or momentum "
                "(of a moving average of the student, e.g. 0.996), one of the two"
            )
        if self.momentum is not None and (self.name or self.replicate):
            raise ValueError(
                "objective.teacher.momentum: a moving average is of the student's model and its "
                "shards: leave name and replicate out"
            )
        return self
