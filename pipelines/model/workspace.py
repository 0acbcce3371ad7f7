"""What search, train and evaluate share: from prepared rows and a recipe to a model that can be fitted and scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.bases.store import LoadedBase, load_base, read_base
from pipelines.contracts.prepared import Row, Split, TaskSpec, data_sha256, read_rows, read_task
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project.keys import constants_folder
from pipelines.recipes.methods import (
    AnyRecipe,
    FullRecipe,
    LoraRecipe,
    LowRankRecipe,
    PartRecipe,
    PrefixRecipe,
    PromptRecipe,
    PTuningRecipe,
    StackedRecipe,
    TimeLoraRecipe,
)
from pipelines.recipes.reft import Recipe
from pipelines.runtime.device import resolve_device
from reft import (
    ConeConfig,
    Encoded,
    FitConfig,
    LayerOverride,
    ReftConfig,
    StepMetrics,
    encode,
    fit,
    parse_layers,
    set_cone,
)
from reft.adapters.any_method import MethodModel, build_method
from reft.peers.methods import (
    FullConfig,
    LoraConfig,
    PartConfig,
    PeerConfig,
    PrefixConfig,
    PromptConfig,
    StackedConfig,
    TimeLoraConfig,
)
from reft.peers.stacked import StackedModel, Turns, fit_in_turn

GIB = 1 << 30
DomainRange = tuple[float, float]
ANY_RANGE: DomainRange = (-1.0, 1.0)  # where a form is wanted for its size, which the range does not change
LOWEST = 4  # layers whose outputs are kept of each row, at most; of the default base one is a twentieth of the keys


@dataclass(frozen=True)
class Bench:
    """The frozen base, its tokenizer and the prepared data, ready for use."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base_sha256: str
    base_source: str
    data: Path
    data_sha256: str
    task: TaskSpec
    pad_id: int

    def encoded(self, split: Split, limit: int | None = None) -> list[Encoded]:
        """The rows of a split as token ids, in file order."""
        return [self.encode_row(row) for row in self.rows(split)[:limit]]

    def encode_row(self, row: Row) -> Encoded:
        """One row as token ids, prompt and completion tokenised apart."""
        return encode(self.tokenizer, row.prompt, row.completion, domain=row.domain)

    def rows(self, split: Split) -> list[Row]:
        """The rows of a split."""
        return read_rows(self.data, split)

    def domain_range(self) -> DomainRange:
        """The lowest and the highest domain of all training rows, whatever part of them a training takes.

        Raises:
            PipelineError: if the rows have none.
        """
        found = [row.domain for row in self.rows("train") if row.domain is not None]
        if not found:
            raise PipelineError(
                "the prepared rows must have a domain", got="none", do="Set prepare.domain_column, and run prepare."
            )
        return min(found), max(found)

    def choices(self) -> list[tuple[int, ...]]:
        """The token ids of each label's word, in the order of the labels."""
        words = self.task.labels.values()
        return [tuple(self.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words]


def open_bench(params: Params, *, root: Path, base: Path, prepared: Path, recipes: Iterable[str] = ()) -> Bench:
    """Fix threads and device, load the base, open the prepared data.

    Args:
        params: all of params.yaml.
        root: the project's root.
        base: base.json.
        prepared: the folder of prepared data.
        recipes: edited layers of each recipe to come, as in params.yaml, where there are several.
    """
    torch.set_num_threads(params.run.threads)
    record = read_base(base)
    loaded: LoadedBase = load_base(record, device=resolve_device(params.run.device), root=root)
    lowest = sorted({parse_layers(layers, record.num_layers)[0] for layers in recipes})[:LOWEST]
    set_cone(loaded.model, replace(cone_config(params, root, record.sha256), layers=frozenset(lowest)))
    tokenizer = loaded.tokenizer
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Bench(
        base=loaded.model,
        tokenizer=tokenizer,
        base_sha256=loaded.record.sha256,
        base_source=loaded.record.source,
        data=prepared,
        data_sha256=data_sha256(prepared),
        task=read_task(prepared),
        pad_id=int(pad_id or 0),  # padding is masked out by position, so any id will do
    )


def cone_config(params: Params, root: Path, base_sha256: str) -> ConeConfig:
    """How the base's constants are kept: on disk, and in memory up to the budget or half of what is free.

    What is kept changes no bit of a result, so free memory does not either.
    """
    cone = params.cone
    return ConeConfig(
        enabled=cone.enabled,
        memory_bytes=min(int(cone.memory_gib * GIB), psutil.virtual_memory().available // 2),
        disk_bytes=int(cone.disk_gib * GIB),
        folder=constants_folder(root),
        base_sha256=base_sha256,
    )


def reft_config(recipe: Recipe, base: PreTrainedModel) -> ReftConfig:
    """The form of the recipe's adapter for this base.

    Raises:
        PipelineError: if the base has no such layer or its hidden states are narrower than the rank.
    """
    config = base.config
    try:
        form = reft_form(recipe, config.num_hidden_layers)
    except ValueError as error:
        raise PipelineError("layers must exist in the base model", got=f"{recipe.layers!r}: {error}") from None
    if recipe.rank > config.hidden_size:
        raise PipelineError(
            f"the rank must not be above the base's hidden size {config.hidden_size}",
            got=recipe.rank,
            do="Lower it in search.space, or in train.",
        )
    return form


def reft_form(recipe: Recipe, num_layers: int) -> ReftConfig:
    """The form of the recipe's adapter for a base of so many layers.

    Raises:
        ValueError: if there is no such layer, or one of its own that the recipe does not edit.
    """
    return ReftConfig(
        layers=parse_layers(recipe.layers, num_layers),
        positions=recipe.positions,
        rank=recipe.rank,
        method=recipe.method,
        init=recipe.init,
        tied=recipe.tied,
        activation=recipe.activation,
        dropout=recipe.dropout,
        dropout_on=recipe.dropout_on,
        projection_bias=recipe.projection_bias,
        overrides=tuple(LayerOverride(**override.model_dump()) for override in recipe.overrides),
    )


def peer_form(recipe: PartRecipe | StackedRecipe, num_layers: int, domains: DomainRange = ANY_RANGE) -> PeerConfig:
    """What a rival's recipe trains on a base of so many layers.

    Args:
        recipe: of the rival.
        num_layers: of the base.
        domains: the range of the training rows' domains, for a rival that reads them.

    Raises:
        ValueError: if there is no such layer.
    """
    if isinstance(recipe, StackedRecipe):
        lora = _part_form(recipe.lora, num_layers, domains)
        assert isinstance(lora, LoraConfig)
        return StackedConfig(lora, reft_form(recipe.reft, num_layers))
    return _part_form(recipe, num_layers, domains)


def _part_form(recipe: PartRecipe, num_layers: int, domains: DomainRange) -> PartConfig:
    match recipe:
        case TimeLoraRecipe():
            low, high = domains
            return TimeLoraConfig(**_low_rank(recipe, num_layers), low=low, high=high, degree=recipe.degree)
        case LoraRecipe():
            return LoraConfig(**_low_rank(recipe, num_layers), decomposed=recipe.name == "dora")
        case PromptRecipe():
            return PromptConfig(recipe.virtual_tokens, recipe.init)
        case PrefixRecipe():
            return PrefixConfig(recipe.virtual_tokens, recipe.width)
        case PTuningRecipe():
            return PrefixConfig(recipe.virtual_tokens)
        case FullRecipe():
            return FullConfig(parse_layers(recipe.layers, num_layers), recipe.embeddings)


def _low_rank(recipe: LowRankRecipe, num_layers: int) -> dict[str, Any]:
    return {
        "layers": parse_layers(recipe.layers, num_layers),
        "targets": tuple(recipe.target_modules.split(",")),
        "rank": recipe.rank,
        "alpha": recipe.alpha,
        "dropout": recipe.dropout,
    }


def build_model(bench: Bench, recipe: AnyRecipe, *, seed: int) -> MethodModel:
    """A fresh model of the recipe's method over the shared base; its first weights depend on the seed alone.

    Raises:
        PipelineError: if the base has not what the recipe names, or the rows no domain that the recipe reads.
    """
    if isinstance(recipe, Recipe):
        return build_method(bench.base, reft_config(recipe, bench.base), seed=seed)
    if isinstance(recipe, StackedRecipe):
        reft_config(recipe.reft, bench.base)
    try:
        domains = bench.domain_range() if isinstance(recipe, TimeLoraRecipe) else ANY_RANGE
        form = peer_form(recipe, bench.base.config.get_text_config().num_hidden_layers, domains)
        return build_method(bench.base, form, seed=seed)
    except ValueError as error:
        raise PipelineError("the base must have what the method trains", got=error, do="Correct method.") from None


def train_steps(
    model: MethodModel,
    rows: Sequence[Encoded],
    recipe: AnyRecipe,
    params: Params,
    *,
    seed: int,
    pad_id: int,
    checkpoint: Path | None = None,
    max_steps: int | None = None,
) -> Iterator[StepMetrics]:
    """Train a model of the recipe, one step for each item; see :func:`reft.fit`.

    Raises:
        PipelineError: if there are too few steps for a recipe of two methods.
    """
    if isinstance(model, StackedModel) and isinstance(recipe, StackedRecipe):
        # Another seed for the second turn, which would else see the rows of the first again, in their order.
        lora, reft = fit_config(recipe.lora, params, seed=seed), fit_config(recipe.reft, params, seed=seed + 1)
        turns = Turns(lora, reft, recipe.lora_share)
        try:
            return fit_in_turn(model, rows, turns, pad_id=pad_id, checkpoint=checkpoint, max_steps=max_steps)
        except ValueError as error:
            do = "Raise rows or epochs, or lower train.batch_size."
            raise PipelineError("a training must have steps for both methods", got=error, do=do) from None
    assert not isinstance(recipe, StackedRecipe)
    settings = fit_config(recipe, params, seed=seed)
    return fit(model, rows, settings, pad_id=pad_id, checkpoint=checkpoint, max_steps=max_steps)


def fit_config(recipe: Recipe | PartRecipe, params: Params, *, seed: int) -> FitConfig:
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
        checkpoint_every=params.train.checkpoint_every,
        gradient_checkpointing=params.train.gradient_checkpointing,
    )
