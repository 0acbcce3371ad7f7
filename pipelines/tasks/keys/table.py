"""The one table of the task families. A family's code is the module of `pipelines.tasks` that has its name."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from pipelines.tasks.keys.classification import ClassificationParams
from pipelines.tasks.keys.generation import GenerationParams

# The section `prepare` of params.yaml, whose key `task` says which of these it is.
Families = ClassificationParams | GenerationParams
AnyPrepareParams = Annotated[Families, Field(discriminator="task")]

# The names of the families, in that order.
FAMILIES: tuple[str, ...] = tuple(
    name for keys in (get_args(Families) or (Families,)) for name in get_args(keys.model_fields["task"].annotation)
)
