"""What of params.yaml a study and a training depend on: they are handed these, and keyed by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pipelines.params.computation import Computation
from pipelines.params.search import SearchParams
from pipelines.params.whole import Params
from pipelines.recipes.methods.reft import TrainParams
from pipelines.recipes.recipe_space import RecipeSpace


@dataclass(frozen=True)
class TrainingSettings:
    """How a recipe is trained, whichever it is."""

    gradient_checkpointing: bool
    checkpoint_every: int

    @classmethod
    def of(cls, train: TrainParams) -> Self:
        """What the section says."""
        return cls(train.gradient_checkpointing, train.checkpoint_every)


@dataclass(frozen=True)
class StudySettings:
    """All that a study's trials may read of params.yaml: so no figure depends on what its key leaves out.

    Attributes:
        recipes: what is tried.
        search: how, and which is chosen.
        training: how each is trained.
        computation: on what.
        score_batch: rows that are scored together.
        seed: of the proposals, the initial weights and the order of rows.
    """

    recipes: RecipeSpace
    search: SearchParams
    training: TrainingSettings
    computation: Computation
    score_batch: int
    seed: int

    @classmethod
    def of(cls, params: Params) -> Self:
        """What params.yaml says."""
        return cls(
            recipes=params.recipe_space(),
            search=params.search,
            training=TrainingSettings.of(params.train),
            computation=params.computation(),
            score_batch=params.evaluate.batch_size,
            seed=params.seed,
        )
