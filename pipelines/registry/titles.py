"""What runs are called on MLflow's pages: the project, the recipe and the figure, and a description of a few lines."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.contracts.trials import TrialRecord
from pipelines.markdown import code, text
from pipelines.registry.facts import Facts
from pipelines.wording import many, points, recipe_words, share

MAIN = ("method", "layers", "positions", "rank", "learning_rate")

Title = tuple[str, str]
"""A run's name, and its description in Markdown."""


def pipeline_title(project: str, facts: Facts) -> Title:
    """The run of a whole pipeline: how its adapter fares beside the base."""
    measure, adapter, base = facts.evaluation.measure, facts.evaluation.adapter.value, facts.evaluation.base.value
    lead = points(facts.evaluation.difference.value)
    return (
        f"{project}: {share(adapter)}, {lead}",
        f"{text(_recipe(facts))} on {code(facts.base.source)}, trained on {code(facts.data_source)}: "
        f"{text(measure)} {share(adapter)} on "
        f"{many(facts.evaluation.rows, 'test row')}, {lead} to the frozen base's {share(base)}. Adapter "
        f"{code(facts.adapter_sha256)}.",
    )


def search_title(project: str, facts: Facts) -> Title:
    """The run of a search: what it found, in how many trials; one that was killed is run again, and is no trial."""
    ended = [trial for trial in facts.trials if not trial.was_killed]
    found, count = share(facts.search.best_value), many(len(ended), "trial")
    return (
        f"{project} search: {found} of {count}",
        f"{count} of study {code(facts.best.study)}; trial {facts.best.trial} won with {found} on the validation "
        f"rows: {text(recipe_words({**_main(facts.best.chosen), **facts.best.chosen}))}.",
    )


def train_title(project: str, facts: Facts) -> Title:
    """The run of a training: its recipe."""
    losses = f"{facts.train.first_loss:.3f} to {facts.train.last_loss:.3f} nats a token"
    return (
        f"{project} train: {_recipe(facts)}",
        f"Trial {facts.train.trial} of study {code(facts.train.study)}, trained on all rows: loss from {losses}.",
    )


def trial_title(name: str, trial: TrialRecord) -> Title:
    """The run of a trial: its score, or how it ended, and its recipe."""
    ended = trial.state if trial.value is None else share(trial.value)
    point: Mapping[str, object] = trial.params
    return f"{name}: {ended}, {recipe_words({**_main(point), **point})}", text(trial.error or "")


def _recipe(facts: Facts) -> str:
    return recipe_words(_main(facts.train.recipe))


def _main(recipe: Mapping[str, object]) -> dict[str, object]:
    """The parts that people ask for first, in the order in which they do."""
    return {part: recipe[part] for part in MAIN if part in recipe}
