"""The one table of the task families. A family's code is the module of `pipelines.tasks` that has its name."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from pipelines.tasks.keys.choice import ChoiceParams
from pipelines.tasks.keys.classification import ClassificationParams
from pipelines.tasks.keys.generation import GenerationParams
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.keys.regression import RegressionParams

# The section `prepare` of params.yaml, whose key `task` says which of these it is.
Families = ClassificationParams | GenerationParams | ChoiceParams | RegressionParams
AnyPrepareParams = Annotated[Families, Field(discriminator="task")]

# The keys of each family, by its name, in that order.
FAMILY_KEYS: dict[str, type[PrepareParams]] = {
    name: keys
    for keys in (get_args(Families) or (Families,))
    for name in get_args(keys.model_fields["task"].annotation)
}

# The names of the families.
FAMILIES: tuple[str, ...] = tuple(FAMILY_KEYS)
