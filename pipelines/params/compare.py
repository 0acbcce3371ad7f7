"""Section `compare` of params.yaml: the methods that are measured side by side, and what each may take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from pipelines.recipes.methods.table import CHECKS, STACKED, MethodName, Part, is_part_of, make_recipe
from pipelines.recipes.nested import BY_PART
from pipelines.sections import Count, Positive, Section, refuse


class ContenderParams(Section):
    """One line of the table.

    ``parts`` are those of its recipe that are not as `train` and `method` say. One of ``learning_rates`` is chosen;
    of lora_then_reft it is that of both, unless ``parts`` has lora.learning_rate.
    """

    method: MethodName
    parts: Annotated[dict[Part, Any], BY_PART]
    learning_rates: Annotated[list[Positive], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = []
        for part, value in self.parts.items():
            if not is_part_of(part, self.method) or part in ("epochs", *self.rates):
                problems.append(f"parts are the method's own, and neither its learning rate nor epochs; got {part}")
                continue
            try:
                CHECKS[part].validate_python(value)
            except ValidationError as error:
                said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
                problems.append(f"parts.{part}: {said}; got {value!r}")
        if len(set(self.learning_rates)) < len(self.learning_rates):
            problems.append(f"learning_rates are each given once; got {self.learning_rates}")
        refuse(problems)
        return self

    def values(self) -> dict[str, Any]:
        """The parts that are set, by their names."""
        return {str(part): value for part, value in self.parts.items()}

    @property
    def rates(self) -> tuple[Part, ...]:
        """The parts that a learning rate is given to."""
        if self.method == STACKED:
            return ("learning_rate",) if "lora.learning_rate" in self.parts else ("learning_rate", "lora.learning_rate")
        own: Any = f"{self.method}.learning_rate"
        return (own,) if own in CHECKS else ("learning_rate",)


class CompareParams(Section):
    """Section `compare`. ``tuning_rows`` are those of the trainings that choose a learning rate."""

    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    tuning_rows: Count
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    epochs: Count
    methods: Annotated[dict[str, ContenderParams], Field(min_length=1)]

    def needs_search(self, only: Sequence[str], fixed: Mapping[str, Any]) -> bool:
        """Whether a method has a part that is neither set here nor fixed, so that the search has to say it.

        Args:
            only: names of methods; all of them if there are none.
            fixed: what `train` and `method` say of all parts but those that are searched.
        """
        for name in only or self.methods:
            settings = self.methods[name]
            rates = {str(part): settings.learning_rates[0] for part in settings.rates}
            try:
                make_recipe(settings.method, {**fixed, **settings.values(), "epochs": self.epochs, **rates})
            except KeyError:
                return True
        return False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = []
        if len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds are each given once; got {self.seeds}")
        if self.tuning_rows > self.train_rows:
            problems.append(f"tuning_rows must not be above train_rows; got {self.tuning_rows} and {self.train_rows}")
        problems += [
            f"a name in the table is a line of at most 40 characters without |, and not base; got {name!r}; correct it"
            for name in self.methods
            if not re.fullmatch(r"[^|\s]([^|\n\r\t]{0,38}[^|\s])?", name) or name == "base"
        ]
        refuse(problems)
        return self
