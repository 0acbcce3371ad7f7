"""The section ``align`` of params.yaml: where a variable is looked for, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipelines.recipes.methods.reft import Layers, PositionsSpec
from pipelines.sections import Count, Name, Section, refuse
from reft.edits.positions import parse_positions


def _of_prompt(spec: str) -> str:
    if parse_positions(spec).generated:
        raise ValueError("a variable is looked for at tokens of prompts, and gN is behind them; take it out")
    return spec


PromptPositions = Annotated[PositionsSpec, AfterValidator(_of_prompt)]


class TeachParams(Section):
    """A LoReFT adapter that learns the task before an alignment is looked for in the edited model."""

    layers: Layers
    positions: PromptPositions
    rank: Count
    learning_rate: Annotated[float, Field(gt=0)]
    rows: Count
    epochs: Count
    batch_size: Count


class AlignParams(Section):
    """Where a variable is looked for, and how: `reft align`. No stage reads it, so a change makes nothing stale."""

    data: str
    variable: Name
    model: Literal["base", "taught", "adapter"]
    teach: TeachParams | None
    questions: Annotated[int, Field(ge=24)]
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    layers: Layers
    positions: Annotated[list[PromptPositions], Field(min_length=1)]
    dimensions: Annotated[list[Count], Field(min_length=1)]
    blocks: list[Count]
    method: Literal["das", "boundless"]
    epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    random_rotations: Count

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = []
        for name, choices in (
            ("positions", self.positions),
            ("dimensions", self.dimensions),
            ("blocks", self.blocks),
        ):
            if len(set(choices)) < len(choices):
                problems.append(f"{name} are tried once each; got {choices}; take the second one out")
        if self.data != "price-range" and not self.data.startswith("file:"):
            problems.append(f"data is price-range or a file: source; got {self.data}; choose one")
        if self.data == "price-range" and self.variable not in ("lower", "upper"):
            problems.append(f"the variables of price-range are lower and upper; got {self.variable}; choose one")
        if (self.model == "taught") != (self.teach is not None):
            problems.append(f"model: taught and teach go together; got {self.model} and {self.teach}; give both")
        if self.teach is not None and self.data != "price-range":
            problems.append(f"the task that is taught is price-range; got {self.data}; set teach: null and model: base")
        if self.method == "boundless" and len(self.dimensions) > 1:
            problems.append(f"boundless learns the dimension; got {self.dimensions}; leave one, for the random control")
        refuse(problems)
        return self
