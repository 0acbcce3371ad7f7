"""Which methods are compared, and what each trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.compare.cells import Contender
from pipelines.contracts.best import read_chosen
from pipelines.errors import PipelineError
from pipelines.model.fitting import build_model, train_steps
from pipelines.model.workspace import TrainingRow, Workspace
from pipelines.params.compare import ContenderParams
from pipelines.params.whole import Params
from pipelines.project.settings import TrainingSettings
from pipelines.recipes.methods.reft import SEARCHED
from pipelines.recipes.methods.table import STACKED, AnyRecipe, make_recipe, plain_parts
from reft import CausalModel


class MethodContender(Contender):
    """A method of this project.

    Args:
        name: in the table.
        settings: of params.yaml.
        params: all of params.yaml.
        found: what the last search chose, by part; empty without one.

    Raises:
        PipelineError: if a part is searched, and neither set nor found; or there are too few steps for two methods.
    """

    def __init__(self, name: str, settings: ContenderParams, params: Params, found: Mapping[str, Any]) -> None:
        self._settings = settings
        self._training = TrainingSettings.of(params.train)
        self._values = {**params.recipe_space().fixed, **found, **settings.values(), "epochs": params.compare.epochs}
        try:
            recipe = plain_parts(self._recipe(settings.learning_rates[0]))
        except KeyError as error:
            raise PipelineError(
                f"a compared recipe must be whole; compare.methods has one whose part is {SEARCHED} in train or method",
                got=f"no {error.args[0]} for {name}",
                do="Set it in its parts, or run the search first.",
            ) from None
        key = {part: value for part, value in recipe.items() if part not in settings.rates}
        key["gradient_checkpointing"] = params.train.gradient_checkpointing
        super().__init__(name, settings.method, tuple(settings.learning_rates), key)
        fewest = "tuning_rows" if len(settings.learning_rates) > 1 else "train_rows"
        steps = self.steps(getattr(params.compare, fewest))
        if settings.method == STACKED and steps < 2:
            raise PipelineError(
                "a training must have steps for both methods",
                got=f"{steps} for {name}",
                do=f"Raise compare.{fewest} or compare.epochs, or lower train.batch_size.",
            )

    def train(
        self, workspace: Workspace, rows: Sequence[TrainingRow], *, learning_rate: float, seed: int
    ) -> Iterator[tuple[CausalModel, int]]:
        """Yield the model and its number of trained parameters before the first step, and after each."""
        recipe = self._recipe(learning_rate)
        model = build_model(workspace, recipe, seed=seed)
        assert isinstance(model, CausalModel)  # of a decoder, as all that are compared
        count = model.num_trainable()
        yield model, count
        for _ in train_steps(model, rows, recipe, self._training, seed=seed, pad_id=workspace.pad_id):
            yield model, count

    def steps(self, rows: int) -> int:
        """How many steps a training of so many rows takes."""
        values = self._values
        batches = -(-rows // values["batch_size"])
        return int(values["epochs"] * -(-batches // values["accumulation"]))

    def _recipe(self, learning_rate: float) -> AnyRecipe:
        return make_recipe(
            self._settings.method, {**self._values, **dict.fromkeys(self._settings.rates, learning_rate)}
        )


def contenders(params: Params, *, best: Path, only: Sequence[str] = ()) -> list[Contender]:
    """The methods of section `compare`, in their order; some ``only``, if any are named.

    Raises:
        PipelineError: for a name that is not there, or a recipe that is not whole.
    """
    methods = params.compare.methods
    strangers = [name for name in only if name not in methods]
    if strangers:
        raise PipelineError(
            f"compare.methods has {', '.join(methods)}", got=", ".join(strangers), do="Name some of those."
        )
    found = _found(best) if best.is_file() else {}
    return [MethodContender(name, methods[name], params, found) for name in (only or methods)]


def _found(best: Path) -> dict[str, Any]:
    """What the last search chose, by part; of its other parts nothing is taken."""
    return read_chosen(best).chosen
