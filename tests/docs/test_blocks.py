"""The blocks of the README and the pages: YAML is params.yaml, JSON is JSON, and Python runs as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pipelines.bases.store import obtain
from pipelines.contracts.base import write_record
from pipelines.contracts.predictions import Prediction, Said, write_predictions
from pipelines.params.whole import Params, check_params
from pipelines.tasks.keys.mixture import MixtureParams
from pipelines.tasks.keys.table import Families
from tests.docs.pages import ROOT, Block, blocks
from tests.tiny import write_tiny_base

SECTIONS = {field.alias or name for name, field in Params.model_fields.items()}
NEEDS_A_REGISTRY = ("mlflow", "load_published", "openai", "load_reft")  # or an export, which other tests have
FAMILY_KEYS = {
    name: set(keys.model_fields)
    for keys in get_args(Families) or (Families,)
    for name in get_args(keys.model_fields["task"].annotation)
}
FAMILY_KEYS["mixture"] = set(MixtureParams.model_fields)
LANGUAGES = {"sh", "python", "yaml", "json", ""}


def test_every_block_says_its_language() -> None:
    every = blocks(*LANGUAGES)
    assert {block.language for block in every} == LANGUAGES
    assert sum(path.read_text(encoding="utf-8").count("\n```") for path in _pages()) == 2 * len(every)
    assert [block.page for block in every if not block.language] == ["docs/cone.md"], "its drawing alone is no code"


def _pages() -> list[Path]:
    from tests.docs.pages import PAGES

    return PAGES


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.name)
def test_yaml_is_params_that_keep_every_rule(block: Block) -> None:
    found = yaml.safe_load(block.text)
    if not set(found) <= SECTIONS:
        pytest.skip("it is of another file, and it is YAML")
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in found.items():
        raw[section] |= values
    family = FAMILY_KEYS[raw["prepare"]["task"]]  # another family than the shipped one has not its keys
    raw["prepare"] = {key: value for key, value in raw["prepare"].items() if key in family or key in found["prepare"]}
    check_params(raw, block.name)


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.name)
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.name)
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.name, "exec")


SHOWN = [block for block in blocks("python") if block.file]


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.file)
def test_a_file_that_a_page_shows_is_as_it_shows_it(block: Block) -> None:
    assert block.text == (ROOT / block.file).read_text(encoding="utf-8")


@pytest.fixture
def after_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder in which stage base has run, on a random base of a few kilobytes; and predictions of a row."""
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    record = obtain("file:models/own/tiny", None, "float32", root=tmp_path)
    write_record(tmp_path / "models" / "base.json", record)
    answered = Prediction("rows.csv:2", "p", Said("a", {}, 0.0), Said("b", {}, 1.0), "b")
    write_predictions(tmp_path / "reports" / "predictions.parquet", [answered])
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = [block for block in blocks("python") if not any(word in block.text for word in NEEDS_A_REGISTRY)]
OTHERS = [block for block in RUN if block.page != "README.md" and not block.file]  # which have tests of their own


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: block.name)
def test_python_runs_as_it_stands(block: Block, after_a_run: Path) -> None:
    exec(compile(block.text, block.name, "exec"), {"__name__": "__main__"})


def test_the_python_of_the_readme_trains(after_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for block in RUN if block.page == "README.md")
    assert sum(bool(line.strip()) for line in block.text.splitlines()) <= 30
    exec(compile(block.text, block.name, "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("step ")]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    frozen, trained = (line for line in lines if line.startswith("[Prediction("))
    assert frozen != trained
