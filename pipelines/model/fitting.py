"""A model of a recipe's method on the base, and its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.model.forms import ANY_RANGE, peer_form, reft_config
from pipelines.model.workspace import TrainingRow, Workspace
from pipelines.project.settings import TrainingSettings
from pipelines.recipes.methods.lora_then_reft import StackedRecipe
from pipelines.recipes.methods.parts import PartRecipe
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import READS_DOMAIN, AnyRecipe
from reft import FitConfig, Labelled, ReftModel, StepMetrics, fit
from reft.adapters.any_method import MethodModel, build_encoder, build_method
from reft.models.limits import check_rows
from reft.peers.model import PeerModel
from reft.peers.stacked import StackedModel, Turns, fit_in_turn
from reft.training.contrast import base_rows


def build_model(workspace: Workspace, recipe: AnyRecipe, *, seed: int) -> MethodModel:
    """A fresh model of the recipe's method over the shared base; its first weights depend on the seed alone.

    Raises:
        PipelineError: if the base has not what the recipe names, or the rows no domain that the recipe reads.
    """
    if isinstance(recipe, Recipe):
        form = reft_config(recipe, workspace.base)
        build = build_encoder if workspace.kind == "encoder" else build_method
        return build(workspace.base, form, seed=seed)
    if isinstance(recipe, StackedRecipe):
        reft_config(recipe.reft, workspace.base)
    try:
        domains = workspace.domain_range() if recipe.name in READS_DOMAIN else ANY_RANGE
        rival = peer_form(recipe, workspace.base.config.get_text_config().num_hidden_layers, domains)
        return build_method(workspace.base, rival, seed=seed)
    except ValueError as error:
        raise PipelineError("the base must have what the method trains", got=error, do="Correct method.") from None


def train_steps(
    model: MethodModel,
    rows: Sequence[TrainingRow],
    recipe: AnyRecipe,
    settings: TrainingSettings,
    *,
    seed: int,
    pad_id: int,
    checkpoint: Path | None = None,
    max_steps: int | None = None,
) -> Iterator[StepMetrics]:
    """Train a model of the recipe, one step for each item; see :func:`reft.fit`.

    Raises:
        PipelineError: if there are too few steps for a recipe of two methods, or no row has a token that is edited.
        BaseLimitError: if rows and virtual tokens are more than the base's positions; in a step, than its window.
    """
    _check_reached(model, rows)
    if isinstance(model, PeerModel):
        check_rows(model.base, base_rows(rows), more=model.part.virtual_tokens)
    if isinstance(model, StackedModel) and isinstance(recipe, StackedRecipe):
        # Another seed for the second turn, which would else see the rows of the first again, in their order.
        lora, reft = fit_config(recipe.lora, settings, seed=seed), fit_config(recipe.reft, settings, seed=seed + 1)
        turns = Turns(lora, reft, recipe.lora_share)
        try:
            prompts = [row for row in rows if not isinstance(row, Labelled)]  # as no row of a decoder is
            return fit_in_turn(model, prompts, turns, pad_id=pad_id, checkpoint=checkpoint, max_steps=max_steps)
        except ValueError as error:
            do = "Raise rows or epochs, or lower train.batch_size."
            raise PipelineError("a training must have steps for both methods", got=error, do=do) from None
    assert isinstance(recipe, Recipe | PartRecipe)
    config = fit_config(recipe, settings, seed=seed)
    return fit(model, rows, config, pad_id=pad_id, checkpoint=checkpoint, max_steps=max_steps)


def _check_reached(model: MethodModel, rows: Sequence[TrainingRow]) -> None:
    """Refuse positions that no row has a token at, with which a training would end where it began."""
    edited = model.reft if isinstance(model, StackedModel) else model
    if isinstance(edited, ReftModel) and not edited.reaches(base_rows(rows)):
        raise PipelineError(
            "a training must have rows with a token at the edited positions; gN needs completions of two tokens or "
            "more, because the last one is not read",
            got=edited.config.positions,
            do="Take other positions, in train or in search.space.",
        )


def fit_config(recipe: Recipe | PartRecipe, settings: TrainingSettings, *, seed: int) -> FitConfig:
    """How to train the recipe."""
    return FitConfig(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        warmup_ratio=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=seed,
        checkpoint_every=settings.checkpoint_every,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
