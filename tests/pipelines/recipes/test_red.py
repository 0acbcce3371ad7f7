"""RED through the whole pipeline: a recipe without a rank is searched, trained, registered, served and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from pipelines.contracts.base import read_base
from pipelines.contracts.facts import StageFiles
from pipelines.errors import PipelineError
from pipelines.exchange.export import export_adapter
from pipelines.exchange.imports import load_published
from pipelines.model.scores import answers
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.search.sizes import parameters_of
from pipelines.stages import evaluate, register, search, train
from pipelines.tasks.family import open_family
from pipelines.tracking.store import store_uri
from reft import CausalModel, load_adapter
from tests.searching import make_context, make_params

STORE = {"tracking.uri": "sqlite:///mlflow/mlflow.db"}
RED: dict[str, Any] = {
    "train.method": "red", "train.rank": None, "search.space.rank": None, "search.trials": 2, "search.reports": 1,
    "search.enqueue": [{"layers": "upper-third", "positions": "l4", "learning_rate": 0.02}],
    "train.epochs": 1, "evaluate.bootstrap": 100, **STORE,
}  # fmt: skip
AMONG: dict[str, Any] = {
    "train.method": "searched", "search.space.method": ["loreft", "red"], "search.enqueue": [],
    "search.space.rank": {"among": [2, 4], "when": {"method": ["loreft"]}, "otherwise": None},
}  # fmt: skip


def probabilities(workspace: Workspace, model: CausalModel) -> list[list[float]]:
    """Of some test rows, the probability of each label."""
    task, rows = open_family(workspace.task), workspace.rows("test")[:3]
    said = answers(workspace, task, model, rows, batch_size=3, title="rows")
    readings = [task.read(row, answer).details["probabilities"] for row, answer in zip(rows, said, strict=True)]
    return [list(reading.values()) for reading in readings]


def test_it_goes_through_the_whole_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(tmp_path / "home"))
    project = make_context(tmp_path, RED)
    root, base, prepared = project.root, project.base, project.prepared
    places: dict[str, Any] = {"root": root, "base": base, "prepared": prepared}
    searched = {"search": root / "search", "search_metrics": root / "metrics" / "search.json"}
    search.run(project.params, **places, out=searched["search"], metrics=searched["search_metrics"])
    trained = train.run(
        project.params, **places, search=root / "search", out=root / "models" / "adapter",
        metrics=root / "metrics" / "train.json", plots=root / "plots",
    )  # fmt: skip
    assert trained.trainable_parameters == 2 * 32  # one layer of three, and two numbers for each of its coordinates
    recipe = project.params.recipe_space().whole(trained.chosen)
    assert parameters_of(recipe, read_base(base)) == trained.trainable_parameters
    evaluate.run(
        project.params, **places, adapter=root / "models" / "adapter",
        train_metrics=root / "metrics" / "train.json", out=root / "metrics" / "evaluation.json",
        predictions=root / "predictions.parquet", plots=root / "evaluate", page=root / "evaluation.html",
        model_card=root / "model_card.md",
    )  # fmt: skip
    made = register.run(
        project.params, root=root, out=root / "registration.json",
        files=StageFiles(
            base=places["base"], prepared=places["prepared"], card=root / "metrics" / "data.json", **searched,
            adapter=root / "models" / "adapter", train_metrics=root / "metrics" / "train.json",
            train_plots=root / "plots", evaluation=root / "metrics" / "evaluation.json",
            predictions=root / "predictions.parquet", evaluate_plots=root / "evaluate",
            evaluation_page=root / "evaluation.html", model_card=root / "model_card.md",
        ),
    )  # fmt: skip

    workspace = open_workspace(project.params.computation(), **places)
    model = load_adapter(root / "models" / "adapter", workspace.base, base_sha256=workspace.base_sha256)
    expected = probabilities(workspace, model)
    mlflow.set_tracking_uri(store_uri(project.params.tracking, root))
    served = mlflow.pyfunc.load_model(f"models:/{project.params.register_.model}/{made.version}")
    texts = [row.prompt.removeprefix("Review: ").removesuffix("\nSentiment:") for row in workspace.rows("test")[:3]]
    said = [list(answer["probabilities"].values()) for answer in served.predict(texts)]
    torch.testing.assert_close(torch.tensor(said), torch.tensor(expected), rtol=0, atol=1e-5, check_dtype=False)

    export_adapter(None, root / "published", layout="hub", root=root)
    assert "RED" in (root / "published" / "README.md").read_text(encoding="utf-8")
    published = load_published(str(root / "published"), root=root)
    again = probabilities(workspace, published.model)
    torch.testing.assert_close(torch.tensor(again), torch.tensor(expected), rtol=0, atol=1e-6)
    with pytest.raises(PipelineError, match="got red, for which it has none"):
        export_adapter(None, root / "peer", layout="pyreft", root=root)


def test_a_rank_is_refused_where_it_is_no_part_of_the_recipe() -> None:
    for changes in ({"search.space.rank": [2, 4], "train.rank": "searched"}, {"train.rank": 4}):
        with pytest.raises(PipelineError, match=r"red has no rank, because it edits no subspace; got \d; set rank to"):
            make_params({**RED, "search.enqueue": [], **changes})
    with pytest.raises(PipelineError, match="loreft needs a rank"):
        make_params({"train.rank": None, "search.space.rank": None, "search.enqueue": []})
    with pytest.raises(PipelineError, match="red has no rank"):
        make_params({**AMONG, "search.space.rank": [2, 4]})


def test_in_a_space_of_several_methods_the_rank_is_searched_under_a_condition() -> None:
    recipes = make_params(AMONG).recipe_space()
    found = {
        (recipe.method, recipe.rank)
        for recipe in recipes.corners(["method", "rank"])  # type: ignore[union-attr]
    }
    assert found == {("loreft", 2), ("loreft", 4), ("red", None)}


def test_two_starts_of_it_are_one_recipe() -> None:
    """It starts at s = 1 and b = 0 whatever `init` says, so a search tries it once."""
    one, other = (
        make_params({**RED, "train.init": init}).recipe_space().recipe(RED["search.enqueue"][0]).effect(3)
        for init in ("identity", "paper")
    )
    assert json.dumps(one) == json.dumps(other)
