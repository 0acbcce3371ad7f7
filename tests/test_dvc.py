"""dvc.yaml, params.yaml and the code say the same."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from pipelines.__main__ import OF_ALL_STAGES, STAGES, _parser
from pipelines.contracts.facts import StageFiles
from pipelines.params.pruner import MedianPruner
from pipelines.params.whole import ALONE, Params, load_params
from pipelines.project.graph import read_graph
from pipelines.recipes.domains import Conditional
from pipelines.recipes.methods.reft import PARTS, Recipe, TrainParams
from pipelines.recipes.space import SpaceParams
from pipelines.tasks.keys.classification import LabelParams

ROOT = Path(__file__).parent.parent
GRAPH = read_graph(ROOT)
NAMES = [stage.name for stage in GRAPH.stages]


def test_the_stages_of_dvc_yaml_are_those_of_the_code() -> None:
    assert set(NAMES) == set(STAGES)


def test_dvc_finds_the_stages_of_this_file_alone() -> None:
    """It reads every dvc.yaml and *.dvc below the root, and a second one would be part of `dvc repro` and checkout."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout.splitlines()
    assert [name for name in files if Path(name).name == "dvc.yaml" or name.endswith(".dvc")] == ["dvc.yaml"]


def test_the_order_is_topological() -> None:
    assert NAMES == ["base", "prepare", "search", "train", "evaluate", "register"]


@pytest.mark.parametrize("stage", GRAPH.stages, ids=NAMES)
def test_the_command_of_a_stage_is_one_that_the_code_takes(stage) -> None:
    words = shlex.split(stage.cmd)
    assert words[:3] == ["python", "-m", "pipelines"]
    arguments = _parser().parse_args(words[3:])
    assert arguments.stage == stage.name


@pytest.mark.parametrize("stage", STAGES)
def test_the_flags_of_a_stage_are_the_paths_its_function_takes(stage: str) -> None:
    taken = typing.get_type_hints(importlib.import_module(f"pipelines.stages.{stage}").run)
    del taken["return"]
    assert list(taken)[:2] == ["params", "root"]
    assert ("files" in taken) == (stage in OF_ALL_STAGES)
    if "files" in taken:  # one object, whose fields are flags as well
        grouped = taken.pop("files")
        assert grouped is StageFiles
        taken |= typing.get_type_hints(grouped)
    assert set(taken) == {"params", "root", *(flag.replace("-", "_") for flag in STAGES[stage])}
    assert {taken[flag.replace("-", "_")] for flag in STAGES[stage]} == {Path}


@pytest.mark.parametrize("stage", GRAPH.stages, ids=NAMES)
def test_every_path_on_a_command_line_is_a_dep_or_an_output(stage) -> None:
    words = shlex.split(stage.cmd)[4:]
    paths = {word for word in words if not word.startswith("--")}
    known = set(stage.outs) | set(stage.deps) | {str(Path(dep).parent) for dep in stage.deps}
    assert paths <= known
    assert set(stage.outs) <= paths


@pytest.mark.parametrize("stage", GRAPH.stages, ids=NAMES)
def test_the_code_that_a_stage_names_exists(stage) -> None:
    for dep in stage.deps:
        if dep.startswith(("pipelines", "reft")):
            assert (ROOT / dep).exists(), dep


@pytest.mark.parametrize("stage", GRAPH.stages, ids=NAMES)
def test_the_params_of_a_stage_are_keys_of_params_yaml(stage) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key in stage.params:
        found = raw
        for part in key.split("."):
            found = found[part]


def test_params_yaml_is_valid() -> None:
    load_params(ROOT / "params.yaml")


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every section in it, through lists and mappings."""
    yield model
    for field in model.model_fields.values():
        for found in types(field.annotation):
            if isinstance(found, type) and issubclass(found, BaseModel):
                yield from sections(found)


def types(annotation: object) -> Iterator[object]:
    """The annotation and all that it is made of."""
    yield annotation
    for argument in get_args(annotation):
        yield from types(argument)


def test_no_key_of_any_section_has_a_default() -> None:
    found = [*sections(Params), Recipe]
    assert {SpaceParams, Conditional, LabelParams, MedianPruner, TrainParams} <= set(found)
    left_out = [(m, field.alias or n) for m in found for n, field in m.model_fields.items() if not field.is_required()]
    assert left_out == [(Params, name) for name in ALONE]
    assert not [key for stage in GRAPH.stages for key in stage.params if key.split(".")[0] in ALONE]


def test_every_part_of_a_recipe_is_a_key_of_train() -> None:
    assert tuple(Recipe.model_fields) == (*PARTS, "overrides")
    assert set(Recipe.model_fields) == set(TrainParams.model_fields) - {"gradient_checkpointing", "checkpoint_every"}


def test_the_search_depends_on_every_part_of_a_recipe_but_the_last_trainings_epochs() -> None:
    params = {key for key in GRAPH.stage("search").params if key.startswith("train.")}
    assert params == {f"train.{name}" for name in TrainParams.model_fields} - {"train.epochs", "train.checkpoint_every"}


def test_train_epochs_make_only_train_and_what_follows_stale() -> None:
    stale = [s.name for s in GRAPH.stages if {"train", "train.epochs"} & set(s.params)]
    assert stale == ["train"]
    assert GRAPH.after("train") == ("train", "evaluate", "register")
