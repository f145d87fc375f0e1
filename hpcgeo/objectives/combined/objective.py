"""A weighted sum of objectives that train one backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator

from hpcgeo.errors import InputError
from hpcgeo.objectives.objective import IMAGES, Inputs, Material, Objective, ObjectiveOptions
from hpcgeo.objectives.single import single
from hpcgeo.options import Augment, OptionGroup

if TYPE_CHECKING:
    from torch import Tensor, nn


class Term(OptionGroup):
    """One of the objectives."""

    weight: float = Field(1.0, gt=0, description="factor of its loss")
    objective: SerializeAsAny[ObjectiveOptions] = Field(description="its name and its options")

    @field_validator("objective", mode="before")
    @classmethod
    def _of_its_row(cls, value: Any) -> Any:
        """Read options by the row that they name."""
        if not isinstance(value, dict):
            return value
        try:
            row = single(str(value.get("name")))
        except InputError as error:
            raise ValueError(str(error)) from None
        if IMAGES not in row.data:
            raise ValueError(f"{value['name']} is no objective of images that can be a term")
        return row.Options.model_validate(value)


class CombinedOptions(ObjectiveOptions):
    """Several objectives at once."""

    name: Literal["combined"] = "combined"
    terms: dict[str, Term] = Field(min_length=1, description="by a name of your choice")

    @field_validator("terms")
    @classmethod
    def _named(cls, value: dict[str, Term]) -> dict[str, Term]:
        for name in value:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is no name of a term: letters, digits, underscores")
        return value


class Combined(Objective):
    """Train one backbone by the weighted sum of the losses of several objectives."""

    title = "a weighted sum of other objectives of images, on one backbone"
    Options = CombinedOptions
    backbones = ("swin", "vit")
    data = (IMAGES,)
    options: CombinedOptions

    def __init__(self, options: Any, seed: int) -> None:
        super().__init__(options, seed)
        self.terms = {
            name: single(term.objective.name)(term.objective, seed)
            for name, term in self.options.terms.items()
        }

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.combined.network import Combination

        model = material.architecture
        for name, term in self.terms.items():
            if term.backbones is not None and model.family not in term.backbones:
                raise InputError(
                    f"objective.terms.{name}: {term.options.name} trains a "
                    f"{' or '.join(term.backbones)}, and model.name {model.name} is a "
                    f"{model.family}: leave it out, or choose another model"
                )
        networks = {name: term.network(material) for name, term in self.terms.items()}
        weights = {name: term.weight for name, term in self.options.terms.items()}
        return Combination(networks, weights)

    def sources(self, architecture: Any) -> Mapping[str, tuple[Path, Any]]:
        return {
            f"terms.{name}.{part}": source
            for name, term in self.terms.items()
            for part, source in term.sources(architecture).items()
        }

    def drawn_as(self, name: str) -> str:
        word, _, rest = name.partition(".")
        if word != "terms":
            return name
        term, _, own = rest.partition(".")
        return self.terms[term].drawn_as(own)

    def random_views(
        self, chip: tuple[int, int], augment: Augment
    ) -> Sequence[tuple[tuple[int, int], Augment]]:
        return [kind for _, kinds in self._kinds(chip, augment) for kind in kinds]

    def image_inputs(self, views: Sequence[Tensor], position: Any, num_patches: int) -> Inputs:
        inputs, first = {}, 0
        chip = views[0].shape[2], views[0].shape[3]
        for name, kinds in self._kinds(chip, Augment()):
            own = views[first : first + len(kinds)]
            inputs[name] = self.terms[name].image_inputs(own, position, num_patches)
            first += len(kinds)
        return {"inputs": inputs}

    def _kinds(self, chip: Any, augment: Augment) -> Iterator[tuple[str, Sequence[Any]]]:
        for name, term in self.terms.items():
            yield name, term.random_views(chip, augment)
