"""Encoders run the whole pipeline: pairs of texts, a head beside the edits, and the head alone to measure against."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModel

from pipelines.bases.store import obtain, store_path
from pipelines.contracts.base import read_base
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import read_rows
from pipelines.contracts.task import prompt_task, read_task
from pipelines.contracts.training import read_training
from pipelines.errors import PipelineError
from pipelines.exchange import load_published
from pipelines.exchange.export import export_adapter
from pipelines.model import frozen
from pipelines.model.fitting import build_model
from pipelines.model.frozen import HeadTraining, head_alone
from pipelines.model.scores import answers, ask
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import REFT, make_recipe
from pipelines.registry.package import model_input
from pipelines.reports.evaluation_markdown import evaluation_markdown
from pipelines.search.sizes import check_limit, parameters_of
from pipelines.serving.pyfunc import AdapterModel
from pipelines.tasks.family import open_family
from reft.adapters.any_method import load_method
from tests.pipelines.staged import run_stages, write_json_rows
from tests.pipelines.tasks import test_choice as choice
from tests.pipelines.tasks import test_generation as generation
from tests.searching import FEW, raw_params
from tests.tiny import encoder_tokenizer, tiny_encoder, write_tiny_base, write_tiny_encoder

pytestmark = pytest.mark.usefixtures("same_home")

CHANGES: dict[str, Any] = FEW | {
    "base.kind": "encoder",
    "prepare.source": "file:data/own/rows.jsonl",
    "prepare.format": "jsonl",
    "prepare.template": "{one}",
    "prepare.second_template": "{other}",
    "prepare.max_tokens": 48,
    "prepare.train_rows": 60,
    "prepare.validation_rows": 20,
    "prepare.test_rows": 40,
    "search.train_rows": 60,
    "search.trials": 1,
    "search.space.layers": ["upper-half"],
    "search.space.positions": ["f1", "f2+l2"],
    "search.enqueue": [{"layers": "upper-half", "positions": "f2+l2", "rank": 4, "learning_rate": 0.02}],
    "train.epochs": 6,
}
WORDS = {"good": 5.0, "fair": 3.0, "bad": 1.0}


def make_params(task: str, **changes: Any) -> Params:
    raw = raw_params(CHANGES)
    own: dict[str, Any] = {
        "measure": "accuracy",
        "label_column": "said",
        "labels": {word: {"word": None, "min": None, "max": None, "values": [word]} for word in WORDS},
    }
    if task == "regression":
        raw["search"]["objectives"] = ["spearman"]
        own = {"number_column": "stars", "low": 1.0, "high": 5.0, "words": None, "measure": "spearman"}
    raw["prepare"] = {
        key: raw["prepare"][key] for key in raw["prepare"] if key not in ("label_column", "labels", "measure")
    }
    raw["prepare"] |= {"task": task, **own}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        raw[section][name] = value
    return check_params(raw, "params.yaml")


def make_project(root: Path, family: str, params: Params) -> Path:
    """Run the stages on pairs of which the second decides: how good a thing is."""
    write_tiny_encoder(root / "models" / "own" / "tiny", family)
    things = ("film", "song", "plot")
    rows = [
        {"one": f"{thing} {place}", "other": word, "said": word, "stars": stars}
        for thing in things
        for place in range(20)
        for word, stars in WORDS.items()
    ]
    write_json_rows(root, rows)
    run_stages(root, params)
    return root


@pytest.fixture(scope="module")
def bert(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("bert"), "bert", make_params("regression"))


@pytest.fixture(scope="module")
def roberta(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("roberta"), "roberta", make_params("classification"))


def opened(project: Path, params: Params) -> Workspace:
    return open_workspace(params.computation(), root=project, base=project / "base.json", prepared=project / "prepared")


def served(project: Path) -> AdapterModel:
    model = AdapterModel()
    model.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    return model


def test_a_row_is_a_pair_and_its_tokens_are_those_that_the_encoder_reads(bert: Path) -> None:
    row = read_rows(bert / "prepared", "train")[0]
    assert row.second in WORDS
    assert row.references == (str(WORDS[row.second]),)
    assert read_task(bert / "prepared").second_template == "{other}"
    encoded = opened(bert, make_params("regression")).training_rows([row])[0]
    read = encoder_tokenizer("bert")(row.prompt, row.second)
    assert list(encoded.input_ids) == read["input_ids"]
    assert list(encoded.segments) == read["token_type_ids"]
    assert max(encoded.segments) == 1
    assert encoded.label == (WORDS[row.second] - 1) / 4


def test_edits_and_head_learn_more_than_the_head_alone(bert: Path) -> None:
    """The second text decides, and a random encoder's first token says little of it."""
    evaluation = read_evaluation(bert / "evaluation.json")
    assert evaluation.measure == "spearman"
    assert evaluation.adapter.value > evaluation.base.value + 0.1
    assert evaluation.diagnostics is not None
    assert evaluation.diagnostics.forgetting is None
    assert "an encoder continues no text" in evaluation_markdown(evaluation, [], seed=0)


def test_classes_are_measured_as_scikit_learn_does(roberta: Path) -> None:
    evaluation, rows = read_evaluation(roberta / "evaluation.json"), read_predictions(roberta / "predictions.parquet")
    right = [row.label for row in rows]
    for system, figures in (("adapter", evaluation.adapter), ("base", evaluation.base)):
        said = [getattr(row, system).value for row in rows]
        assert figures.value == accuracy_score(right, said)
        assert figures.summary["macro_f1"] == pytest.approx(f1_score(right, said, average="macro"))


def test_the_adapter_holds_edits_and_head_and_the_search_counts_both(bert: Path) -> None:
    trained = read_training(bert / "train.json")
    with safe_open(bert / "adapter" / "adapter.safetensors", "pt") as file:
        sizes = {name: int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    head = {name for name in sizes if name.startswith("head.")}
    assert head == {
        f"head.{name}.{part}" for name in ("bert.pooler.dense", "classifier") for part in ("weight", "bias")
    }
    assert sum(sizes.values()) == trained.trainable_parameters
    params, record = make_params("regression"), read_base(bert / "base.json")
    recipe = make_recipe(REFT, trained.recipe)
    assert parameters_of(recipe, record, open_family(read_task(bert / "prepared")).outputs) == sum(sizes.values())
    with pytest.raises(PipelineError, match="must leave a recipe"):  # the head alone is above
        check_limit(params.recipe_space(), 1000, record, 1)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_served_model_says_what_the_evaluation_noted(name: str, request: pytest.FixtureRequest) -> None:
    project = request.getfixturevalue(name)
    noted, rows = read_predictions(project / "predictions.parquet")[:5], read_rows(project / "prepared", "test")[:5]
    said = served(project).predict([{"one": row.prompt, "other": row.second} for row in rows])
    key = "number" if name == "bert" else "label"
    expected = [one.adapter.value for one in noted]
    assert [one[key] for one in said] == (pytest.approx(expected, abs=1e-4) if name == "bert" else expected)


def test_the_store_has_an_encoder_without_a_pooler_that_computes_what_its_source_does(bert: Path) -> None:
    record = read_base(bert / "base.json")
    assert record.kind == "encoder"
    with safe_open(store_path(record) / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "pooler" in name]  # noqa: SIM118
    ids = torch.tensor([[1, 7, 9, 2]])
    stored = AutoModel.from_pretrained(store_path(record)).eval()
    with torch.no_grad():
        assert torch.equal(stored(ids)[0], tiny_encoder("bert")(ids)[0])


@pytest.mark.long
def test_a_pooler_of_the_source_changes_nothing(bert: Path, tmp_path: Path) -> None:
    """It is part of the head, which starts from the seed: with or without, the base is the same one."""
    folder = write_tiny_encoder(tmp_path / "models" / "own" / "tiny", "bert")
    whole = AutoModel.from_pretrained(folder)  # with a pooler, at random
    whole.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert [name for name in file.keys() if "pooler" in name]  # noqa: SIM118
    found = obtain("file:models/own/tiny", None, "float32", "encoder", root=tmp_path)
    assert found.sha256 == read_base(bert / "base.json").sha256


def test_a_head_starts_from_the_seed_alone_whatever_was_trained_before(bert: Path) -> None:
    params = make_params("regression")
    workspace = opened(bert, params)
    recipe = params.recipe_space().recipe(params.recipe_space().first[0])
    before = {name: value.clone() for name, value in build_model(workspace, recipe, seed=7).head_tensors().items()}
    other = build_model(workspace, recipe, seed=8).head_tensors()
    assert not torch.equal(other["classifier.weight"], before["classifier.weight"])
    again = build_model(workspace, recipe, seed=7).head_tensors()
    assert all(torch.equal(again[name], value) for name, value in before.items())


def test_the_head_alone_keeps_the_best_of_its_rates_and_is_the_base_of_the_evaluation(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params("regression")
    workspace, recipe = opened(bert, params), make_recipe(REFT, read_training(bert / "train.json").recipe)
    assert isinstance(recipe, Recipe)
    asked = {split: workspace.rows(split) for split in ("validation", "test")}
    training = HeadTraining(workspace.rows("train"), asked["validation"], recipe, params.seed, 16)

    def value(split: str) -> float:
        model, task = head_alone(workspace, training), workspace.family
        with model.disabled():
            said = answers(workspace, task, model, asked[split], batch_size=16, title="the head alone")
        return task.measure.add_up(task.scores(asked[split], said))

    best = value("validation")
    assert value("test") == pytest.approx(read_evaluation(bert / "evaluation.json").base.value, abs=1e-6)
    single = []
    for rate in frozen.RATES:
        monkeypatch.setattr(frozen, "RATES", (rate,))
        single.append(value("validation"))
    assert best == max(single) > min(single)


def test_what_is_kept_of_the_lower_layers_changes_no_answer(bert: Path) -> None:
    params = make_params("regression")
    plain = make_params("regression", cone__enabled=False)
    said = []
    for each in (params, plain):
        workspace = opened(bert, each)
        model = load_method(bert / "adapter", workspace.base, base_sha256=workspace.base_sha256)
        rows = workspace.rows("test")
        said.append([answers(workspace, workspace.family, model, rows, batch_size=8, title="a") for _ in range(2)][1])
    assert said[0] == pytest.approx(said[1], abs=1e-5)


def test_an_exported_adapter_answers_as_before_and_its_card_tells_of_the_head(bert: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    shutil.copytree(bert / "adapter", given)
    shutil.copyfile(bert / "base.json", given / "base.json")
    export_adapter(str(given), tmp_path / "out", layout="hub", root=bert)
    loaded = load_published(str(tmp_path / "out"), root=bert)
    rows, task = read_rows(bert / "prepared", "test")[:5], open_family(prompt_task(loaded.prompt))
    said = ask(loaded.model, loaded.tokenizer, task, rows, batch_size=8)
    noted = read_predictions(bert / "predictions.parquet")[:5]
    assert [task.read(*pair).value for pair in zip(rows, said, strict=True)] == pytest.approx(
        [one.adapter.value for one in noted], abs=1e-4
    )
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{read_training(bert / 'train.json').trainable_parameters:,} trained numbers" in card
    assert "those of the head" in card
    with pytest.raises(PipelineError, match=r"a decoder.s hidden states.*sequence_classification.*--format hub"):
        export_adapter(str(given), tmp_path / "pyreft", layout="pyreft", root=bert)


def test_the_registered_model_is_shown_both_texts(bert: Path) -> None:
    assert set(model_input(bert / "adapter")[0]) == {"one", "other"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prepare__chat": True}, "prepare.chat must be False with base.kind: encoder"),
        ({"method__name": "lora"}, "method.name must be reft with base.kind: encoder; got lora"),
        (
            {"train__overrides": [{"layer": 1, "rank": None, "positions": "f1+g2"}]},
            "gN with base.kind: encoder, which writes no token; got f1.g2",
        ),
        ({"base__kind": "decoder"}, "prepare.second_template must be null"),
        ({"base__kind": "decoder", "prepare__second_template": None}, "prepare.words must not be null"),
    ],
)
def test_what_one_kind_of_base_has_and_the_other_has_not_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        make_params("regression", **changes)


@pytest.mark.parametrize("made", [choice.make_params, generation.make_params])
def test_a_task_without_a_head_is_refused_before_any_stage(made: Callable[[], Params]) -> None:
    raw = made().model_dump(mode="json", by_alias=True)
    raw["base"]["kind"] = "encoder"
    with pytest.raises(PipelineError, match="must be one that a head can answer"):
        check_params(raw, "params.yaml")


@pytest.mark.long
def test_a_language_model_is_no_encoder(tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    with pytest.raises(PipelineError, match="needs a model that reads both ways"):
        obtain("file:models/own/tiny", None, "float32", "encoder", root=tmp_path)


@pytest.mark.parametrize("command", ["reft compare-methods", "reft align"])
def test_commands_that_know_decoders_alone_say_so(command: str) -> None:
    with pytest.raises(PipelineError, match=f"{command} needs base.kind: decoder"):
        make_params("regression").require_decoder(command)
