"""A plan as files: the sweep that settles a doubt, the recipe and the job of the answer."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcgeo.config import EXTENDS, load, recipes
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.launch import scripts
from hpcgeo.plan.answer import doubtful, global_batch
from hpcgeo.plan.candidates import Candidate, PlanRequest
from hpcgeo.sweep.points import overrides_of

#: Points that a sweep measures to settle a doubt.
SETTLING = 3
#: Warm-up is this part of the steps (MAE: 40 of 800 epochs).
WARMUP = 20
#: The recipe of what no recipe is named after.
ANY = "mae_vit_base"


@dataclass(frozen=True)
class PlannedRun:
    """What was planned, as it was asked for.

    Attributes:
        model, machine, objective, chip: as they were typed.
        images: samples x epochs; None: as many as the recipe says.
    """

    asked: PlanRequest
    model: str
    machine: str
    objective: str
    chip: int
    images: float | None = None

    def write_sweep(self, file: Path, found: list[Candidate]) -> list[str]:
        """Write the sweep that measures the best way and those nearest to it; say what is next."""
        ways = [found[0], *(doubtful(found) or found[1:])][:SETTLING]
        values = {
            "recipe": ANY,
            "steps": 30,
            "warmup": 10,
            "minutes": 15,
            "set": {"data.path": "synthetic", **self._same},
            "nodes": [self.asked.nodes],
            "grid": {"points": [dict(map(_value, one.options)) for one in ways]},
        }
        head = "# The ways that a plan cannot tell apart, by `hpcgeo plan --sweep`."
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, f"{head}\n{yaml.safe_dump(values, sort_keys=False)}")
        return [f"{file}: hpcgeo-profile sweep {file} measures what is in doubt"]

    def write_job(self, folder: Path, best: Candidate) -> list[str]:
        """Write the recipe of a way and its job; say where they are and what is next.

        Raises:
            InputError: there is such a recipe already, or training would refuse it.
        """
        where, nodes = self.asked.where, self.asked.nodes
        name = f"{self._objective['name']}_{Path(self.model).stem}"
        base = name if name in recipes() else ANY
        options = {"run.dir": f"runs/{name}", **self._same, **dict(map(_value, best.options))}
        options |= {"parallel.group_size": best.parallel.group_size}
        options |= {"train.accumulate": best.train.accumulate}
        if self.images:
            options["train.steps"] = steps = math.ceil(self.images / global_batch(best))
            options["optim.warmup_steps"] = steps // WARMUP
        recipe = folder / f"{name}.yaml"
        if recipe.exists():
            raise InputError(f"--write-job {folder}: {recipe} is there: choose another folder")
        load(base, list(overrides_of(options)))  # what training would refuse is said now
        values: dict[str, Any] = {EXTENDS: base}
        for key, value in options.items():
            group, _, field = key.partition(".")
            if field:
                values.setdefault(group, {})[field] = value
            else:
                values[group] = value
        folder.mkdir(parents=True, exist_ok=True)
        head = f"# As planned for {nodes} nodes of {where.name} by `hpcgeo plan`."
        write_text(recipe, f"{head}\n{yaml.safe_dump(values, sort_keys=False)}")
        time = scripts.time_of(60 * (where.hours(nodes) or 1.0))
        job = scripts.one_off(self._machine, str(recipe), nodes, time)
        script = folder / scripts.file_name(job)
        scripts.write(script, scripts.render(job))
        return [
            f"{recipe}: hpcgeo train {recipe} --dry --ranks {self.asked.world_size} looks at it",
            f"{script}: hpcgeo jobs check {script} looks at it before the queue",
        ]

    @property
    def _same(self) -> dict[str, Any]:
        """Options that all ways have in common."""
        return {
            "launch.machine": self._machine,
            "model.name": _whole(self.model),
            "objective": self._objective,
            "data.chip": self.chip,
            "train.dtype": self.asked.dtype,
        }

    @property
    def _machine(self) -> str:
        return _whole(self.machine)

    @property
    def _objective(self) -> dict[str, Any]:
        said = self.objective.strip()
        given = yaml.safe_load(said) if said.startswith("{") else {"name": said}
        return {"name": "mae", **given}


def _whole(name: str) -> str:
    """Return a name, or the whole path of a file."""
    return str(Path(name).absolute()) if name.endswith((".yaml", ".yml")) else name


def _value(option: str) -> tuple[str, str | int]:
    """Return key and value of an option, a number as such."""
    key, _, value = option.partition("=")
    return key, int(value) if value.isdigit() else value
