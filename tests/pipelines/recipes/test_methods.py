"""Each rival of ReFT through the whole pipeline, from its search to its alias and its export, and through kill -9."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.bases.load import load_base
from pipelines.bases.store import obtain
from pipelines.contracts.base import read_base
from pipelines.contracts.facts import StageFiles
from pipelines.contracts.prepared import Row
from pipelines.contracts.recipe import read_best
from pipelines.contracts.training import TrainResult
from pipelines.errors import PipelineError
from pipelines.exchange.export import export_adapter
from pipelines.exchange.imports import load_published
from pipelines.files import canonical_json, read_json
from pipelines.model.fitting import build_model, train_steps
from pipelines.model.scores import answers
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.project.keys import train_key
from pipelines.project.settings import TrainingSettings
from pipelines.recipes.methods.table import (
    CHECKS,
    METHODS,
    OWN_PARTS,
    PARTS,
    READS_DOMAIN,
    SHARED,
    make_recipe,
    owner,
    plain_parts,
)
from pipelines.runtime.process import work_folder
from pipelines.search.sizes import parameters_of
from pipelines.stages import evaluate, prepare, register, search, train
from pipelines.tasks.family import open_family
from pipelines.tracking.store import store_uri
from reft.adapters.any_method import MethodModel, load_method
from reft.peers.table import METHODS as RIVALS
from tests.project import review_rows
from tests.searching import FEW, make_context, raw_params
from tests.tiny import write_tiny_base

STEPS = 2  # that a killed training had taken, of four
EACH_TIME = "lora"  # goes through at each change; the others, which take as long each, in `make test-long`


def params(method: str, changes: Mapping[str, Any] | None = None) -> Params:
    """A small job of this method, one trial each."""
    few = {"search.trials": 1, "search.reports": 1, "train.epochs": 2, "train.batch_size": 8, "evaluate.bootstrap": 100}
    raw = copy.deepcopy(raw_params(FEW | few | {"train.checkpoint_every": 1}))
    raw["tracking"]["uri"] = "sqlite:///mlflow/mlflow.db"
    raw["method"]["name"], raw["register"]["model"] = method, method.replace("_", "-")
    raw["method"]["prefix"]["width"] = 8
    if method in READS_DOMAIN:
        raw["prepare"] |= {"source": "file:data/own/dated.csv", "domain_column": "year"}
    for part, value in (changes or {}).items():
        section, _, key = part.rpartition(".")
        found = raw
        for name in section.split("."):
            found = found[name]
        found[key] = value
    return check_params(raw, "params.yaml")


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with base and data, a search of each rival that a test asks for, and a training killed half-way."""
    root = tmp_path_factory.mktemp("site")
    called = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    methods = [method for method in RIVALS if {"method": method} in called]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        make_context(root)
        write_dated(root)
        for method in methods:
            out = root / method
            search.run(params(method), root=root, **data(root, method), out=out / "search", metrics=out / "search.json")
        child = multiprocessing.get_context("spawn").Process(target=begin_and_die, args=(root, methods))
        child.start()
        child.join(timeout=300)
        assert child.exitcode == -signal.SIGKILL
        yield root


def write_dated(root: Path) -> None:
    """The rows once more, each with a year, for the methods that read one."""
    lines = [f'"{text}",{label},{2015 + place % 6}' for place, (text, label) in enumerate(review_rows())]
    (root / "data" / "own" / "dated.csv").write_text("\n".join(["text,label,year", *lines]) + "\n", encoding="utf-8")
    prepare.run(
        params("time_lora"), root=root, base=root / "models" / "base.json", out=root / "data" / "dated",
        card=root / "metrics" / "dated.json",
    )  # fmt: skip


def data(root: Path, method: str) -> dict[str, Path]:
    """The base, and the prepared rows that a method is trained on."""
    name = "dated" if method in READS_DOMAIN else "prepared"
    return {"base": root / "models" / "base.json", "prepared": root / "data" / name}


@pytest.fixture(autouse=True)
def own_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(root / "home"))
    for name in ("DVC_EXP_BASELINE_REV", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


def probabilities(workspace: Workspace, model: MethodModel, rows: Sequence[Row]) -> list[list[float]]:
    """Of each row, the probability of each label."""
    task = open_family(workspace.task)
    said = answers(workspace, task, model, rows, batch_size=3, title="rows")
    readings = [task.read(row, answer).details["probabilities"] for row, answer in zip(rows, said, strict=True)]
    return [list(reading.values()) for reading in readings]


def begin_and_die(root: Path, methods: Sequence[str]) -> None:
    """Take the first steps of a training of each as the stage does, and be killed in the midst of all."""
    held = []
    for method in methods:
        chosen = params(method)
        best = read_best(root / method / "search" / "best.yaml", chosen.recipe_space())
        workspace = open_workspace(chosen.computation(), root=root, **data(root, method))
        model = build_model(workspace, best.recipe, seed=chosen.seed)
        training = TrainingSettings.of(chosen.train)
        key = train_key(workspace, best.recipe, training, chosen.computation(), seed=chosen.seed)
        folder = work_folder(root) / "train" / key / "checkpoints"
        steps = train_steps(
            model, workspace.encoded("train"), best.recipe, training,
            seed=chosen.seed, pad_id=workspace.pad_id, checkpoint=folder,
        )  # fmt: skip
        held.append((steps, [next(steps) for _ in range(STEPS)]))
    os.kill(os.getpid(), signal.SIGKILL)


def stage_train(root: Path, method: str, out: Path) -> TrainResult:
    return train.run(
        params(method), root=root, **data(root, method), search=root / method / "search",
        out=out / "adapter", metrics=out / "train.json", plots=out / "train",
    )  # fmt: skip


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name == EACH_TIME else pytest.mark.long) for name in RIVALS]
)
def test_a_rival_goes_through_the_whole_pipeline(
    method: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    folder, chosen = root / method, params(method)
    base, prepared = data(root, method).values()
    with caplog.at_level("INFO", logger="pipelines.stages.train"):
        resumed = stage_train(root, method, folder)
    assert f"went on after step {STEPS} of 4" in caplog.text
    shutil.rmtree(work_folder(root) / "train" / resumed.input_hash)
    assert stage_train(root, method, tmp_path).adapter_sha256 == resumed.adapter_sha256
    record = read_base(base)
    recipe = read_best(folder / "search" / "best.yaml", chosen.recipe_space()).recipe
    assert parameters_of(recipe, record) == resumed.trainable_parameters == trials(folder)[0]["parameters"]
    assert plain_parts(recipe) == resumed.recipe

    evaluate.run(
        chosen, root=root, base=base, prepared=prepared, adapter=folder / "adapter",
        train_metrics=folder / "train.json", out=folder / "evaluation.json",
        predictions=folder / "predictions.parquet", plots=folder / "evaluate", page=folder / "evaluation.html",
        model_card=folder / "model_card.md",
    )  # fmt: skip
    made = register.run(
        chosen, root=root, files=StageFiles(base=base, prepared=prepared,
        card=root / "metrics" / ("dated.json" if method in READS_DOMAIN else "data.json"),
        search=folder / "search", search_metrics=folder / "search.json", adapter=folder / "adapter",
        train_metrics=folder / "train.json", train_plots=folder / "train", evaluation=folder / "evaluation.json",
        predictions=folder / "predictions.parquet", evaluate_plots=folder / "evaluate",
            evaluation_page=folder / "evaluation.html", model_card=folder / "model_card.md"),
        out=folder / "registration.json",
    )  # fmt: skip
    assert made.adapter_sha256 == resumed.adapter_sha256

    workspace = open_workspace(chosen.computation(), root=root, base=base, prepared=prepared)
    model = load_method(folder / "adapter", workspace.base, base_sha256=record.sha256)
    rows = workspace.rows("test")[:3]
    expected = probabilities(workspace, model, rows)
    client = mlflow.MlflowClient(tracking_uri=store_uri(chosen.tracking, root))
    client.set_registered_model_alias(chosen.register_.model, "tried", str(made.version))
    mlflow.set_tracking_uri(store_uri(chosen.tracking, root))
    served = mlflow.pyfunc.load_model(f"models:/{chosen.register_.model}@tried")
    texts = [row.prompt.removeprefix("Review: ").removesuffix("\nSentiment:") for row in rows]
    dated = [json.dumps({"text": text, "year": row.domain}) for text, row in zip(texts, rows, strict=True)]
    asked = dated if method in READS_DOMAIN else texts
    said = [list(answer["probabilities"].values()) for answer in served.predict(asked)]
    torch.testing.assert_close(torch.tensor(said), torch.tensor(expected), rtol=0, atol=1e-5, check_dtype=False)

    export_adapter("@tried", tmp_path / "published", layout="hub", root=root_of(root, chosen))
    published = load_published(str(tmp_path / "published"), root=root)
    assert published.prompt["labels"] == workspace.task.settings["labels"]
    again = probabilities(workspace, published.model, rows)
    torch.testing.assert_close(torch.tensor(again), torch.tensor(expected), rtol=0, atol=1e-6)

    assert ("the domain" in served.metadata.metadata["input"]) == (method in READS_DOMAIN)
    if method in READS_DOMAIN:
        check_domains(served, texts[0], (tmp_path / "published" / "README.md").read_text(encoding="utf-8"))

    other = load_base(obtain(foreign_base(root), None, "float32", root=root))
    with pytest.raises(ValueError, match="an adapter loads on the base it was trained on"):
        load_method(folder / "adapter", other.model, base_sha256=other.record.sha256)


def check_domains(served: Any, text: str, card: str) -> None:
    """What a model that reads a year says of it, and what it does with one that is wrong or far away."""
    assert served.metadata.metadata["input"].startswith(
        "objects, or a frame, of the texts text and the number year, the domain"
    )
    assert "its domain t, `year` in its data" in card
    assert "trained on 2015 to 2020; a t outside is read as the nearer" in card
    for year in ("NaN", "null", '"soon"', "true"):
        with pytest.raises(ValueError, match=r"the domain is not a finite number; got .* for input 0"):
            served.predict([f'{{"text": "{text}", "year": {year}}}'])
    for wrong in (text, json.dumps({"text": text}), json.dumps([text, 2015])):
        with pytest.raises(ValueError, match=r"'text', 'year', of which 'year', the domain, .* got input 0"):
            served.predict([wrong])
    ends = [served.predict([json.dumps({"text": text, "year": year})]) for year in (2020, 2050, 2015, "2015", -4)]
    assert ends[0] == ends[1] != ends[2] == ends[3] == ends[4]


def trials(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(folder / "search" / "trials.json")
    return found


def root_of(root: Path, chosen: Params) -> Path:
    """The project, with these parameters in its params.yaml."""
    import yaml

    raw = raw_params(FEW)
    raw["tracking"]["uri"], raw["register"]["model"] = chosen.tracking.uri, chosen.register_.model
    (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return root


def foreign_base(root: Path) -> str:
    if not (root / "models" / "own" / "other").exists():
        write_tiny_base(root / "models" / "own" / "other", seed=1)
    return "file:models/own/other"


def test_the_parts_of_the_rivals_are_the_keys_of_their_sections() -> None:
    section = params("reft").method
    keys = [f"{name}.{key}" for name in RIVALS for key in type(getattr(section, name)).model_fields]
    assert keys == list(OWN_PARTS)
    assert set(CHECKS) == set(PARTS)
    assert set(RIVALS) | {"reft"} == set(METHODS)
    assert {part for part in PARTS if owner(part) is None} == set(SHARED)


def test_what_is_other_methods_is_left_out_of_a_search() -> None:
    assert params("lora").recipe_space().space.parts() == ["lora.learning_rate"]
    assert params("lora").recipe_space().first == ()
    assert params("reft").recipe_space().space.parts() == ["layers", "positions", "rank", "learning_rate"]
    assert params("lora_then_reft").recipe_space().space.parts()[-1] == "lora.learning_rate"
    changed = params("reft", {"method.lora.rank": 3})
    assert changed.recipe_space().decides() == params("reft").recipe_space().decides()
    assert params("lora", {"method.lora.rank": 3}).recipe_space().decides() != params("lora").recipe_space().decides()
    own = params("reft", {"train.overrides": [{"layer": 0, "rank": 2, "positions": None}]}).recipe_space().decides()
    assert canonical_json(own) != canonical_json(params("reft").recipe_space().decides())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method.name": "lorra"}, "method.name: Input should be 'reft', 'lora'"),
        ({"method.lora.rnk": 3}, "method.lora.rnk: unknown key; did you mean 'rank'?"),
        ({"method.prompt.virtual_tokens": 0}, "method.prompt.virtual_tokens"),
        ({"method.lora.target_modules": "q_proj,q_proj"}, "target modules are last names of linear modules"),
        ({"method.name": "lora", "method.lora.rank": "searched"}, "method.lora.rank is searched, so search.space must"),
        (
            {"method.name": "time_lora"},
            "method.name is time_lora, which reads a number of each row, its domain; prepare.",
        ),
        (
            {"compare.methods": {"T": {"method": "time_lora", "parts": {}, "learning_rates": [0.1]}}},
            "compare.methods.T is time_lora, which reads",
        ),
        ({"method.time_lora.degree": 0}, "method.time_lora.degree"),
        (
            {"search.enqueue": [{"lora": {"learning_rate": 7.0}}]},
            "lora.learning_rate is 7.0, where search.space has 0.0001 to 0.005",
        ),
        (
            {"search.enqueue": [{"lora": {"rank": 7}, "rank": 3, "prompt": {"init": "random"}}]},
            "no method has these parts",
        ),
    ],
)
def test_a_mistake_in_the_section_is_told_with_its_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError) as error:
        params("reft", changes)
    assert said in str(error.value)


def test_any_part_of_a_rival_can_be_searched() -> None:
    raw = raw_params(FEW)
    raw["method"]["name"] = "lora"
    values: dict[str, list[Any]] = {
        "rank": [2, 4], "alpha": [4.0, 8.0], "dropout": [0.0, 0.1], "target_modules": ["q_proj", "q_proj,v_proj"],
        "layers": ["all", "0"], "learning_rate": [1e-3, 1e-2],
    }  # fmt: skip
    for key, choices in values.items():
        raw["method"]["lora"][key] = "searched"
        raw["search"]["space"]["lora"][key] = choices
    found = check_params(raw, "params.yaml")
    point = {f"lora.{key}": choices[1] for key, choices in values.items()}
    assert found.recipe_space().space.size() == 64
    recipe = found.recipe_space().recipe(point, trial=True)
    assert {key: plain_parts(recipe)[f"lora.{key}"] for key in values} == {k: v[1] for k, v in values.items()}
    assert make_recipe("lora", dict(found.recipe_space().fixed) | point | {"epochs": 1}) == recipe
