"""The options of the job that a run is: where it lives, what it keeps, how it is launched."""

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from hpcgeo.options import FREE, NEUTRAL, OptionGroup


class RunPlace(OptionGroup):
    """Where the run lives."""

    marks = FREE | NEUTRAL
    dir: Path = Field(description="folder of the run; an existing run there is resumed")


class Checkpoint(OptionGroup):
    """What is kept of the training state."""

    marks = FREE | NEUTRAL
    every: int = Field(
        100, ge=0, description="steps between checkpoints; 0: none, not even at the end"
    )
    keep: PositiveInt = Field(2, description="newest checkpoints kept")
    keep_every: PositiveInt | None = Field(
        None, description="checkpoints of every n-th step are kept for ever; a multiple of `every`"
    )
    asynchronous: bool = Field(
        True,
        description="train on while a copy of the state on the host is written; false: wait, and "
        "need no copy",
    )

    @model_validator(mode="after")
    def _some_are_kept(self) -> "Checkpoint":
        if self.keep_every and (not self.every or self.keep_every % self.every):
            raise ValueError(
                f"keep_every {self.keep_every} is no multiple of every {self.every}: no checkpoint "
                f"falls on these steps"
            )
        return self


class Launch(OptionGroup):
    """Where the run runs and for how long."""

    marks = FREE | NEUTRAL
    machine: str = Field("local", description="a row of `hpcgeo list machines`, or a YAML file")
    threads: PositiveInt | None = Field(
        None,
        le=4096,
        description="threads of a rank on its host; by default its share of the cores",
    )
    rendezvous_timeout_s: float = Field(50.0, gt=0, description="seconds that ranks wait to meet")
    time_limit: float | None = Field(
        None,
        gt=0,
        description="seconds within which the run saves and stops; by default the job's own end",
    )
    requeue: Path | None = Field(
        None,
        description="file that rank 0 leaves when a stopped run can go on; the job script, which "
        "names it, then asks the scheduler to requeue the job",
    )
