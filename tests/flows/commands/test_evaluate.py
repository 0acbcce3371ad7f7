"""`reft evaluate`: the adapter's test rows again, or rows of another project; no file of the project changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipelines.errors import PipelineError
from pipelines.files import read_json
from tests.pipelines.finished import PROJECT, finish_stages, make_params


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFT_HOME", str(tmp_path / "home"))
    root = tmp_path / "project"
    root.mkdir()
    paths = finish_stages(root)
    for name, place in (("adapter", "models/adapter"), ("prepared", "data/prepared")):
        shutil.copytree(paths[name], root / place)
    (root / "metrics").mkdir()
    shutil.copy(paths["base"], root / "models" / "base.json")
    shutil.copy(paths["train_metrics"], root / "metrics" / "train.json")
    shutil.copy(PROJECT / "dvc.yaml", root)
    (root / "params.yaml").write_text(yaml.safe_dump(make_params().model_dump(by_alias=True)), encoding="utf-8")
    return root


def evaluate(project: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["evaluate", "-p", str(project), *words])
    if isinstance(done.exception, PipelineError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.long
def test_test_rows_are_asked_again_and_no_file_of_a_stage_changes(project: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        places = (path for path in project.rglob("*") if path.is_file() and ".reft" not in path.parts)
        return {str(path.relative_to(project)): path.read_bytes() for path in places}

    before = files()
    said = " ".join(evaluate(project).split())
    assert "measured on │ 1 test row" in said
    assert "perplexity on neutral text" in said
    shutil.copytree(project / "data" / "prepared", tmp_path / "other")
    said = " ".join(evaluate(project, "--prepared", str(tmp_path / "other")).split())
    assert "Not trained:" in said
    assert "paired difference" in said
    assert "perplexity" not in said
    assert files() == before


def test_words_that_do_not_go_together_are_refused(project: Path) -> None:
    with pytest.raises(PipelineError, match="goes with --harness"):
        evaluate(project, "--limit", "5")
    with pytest.raises(PipelineError, match="one after the other"):
        evaluate(project, "--harness", "arc_easy", "--prepared", "x")
    with pytest.raises(PipelineError, match="--data goes with --tasks"):
        evaluate(project, "models/adapter", "--data", "x")
    with pytest.raises(PipelineError, match="go with ADAPTER, --tasks, --rows or --harness"):
        evaluate(project, "--download")
    with pytest.raises(PipelineError, match=r"task\.json"):
        evaluate(project, "--prepared", str(project / "nowhere"))


def test_an_adapter_that_is_named_is_asked_and_two_are_compared(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = str(project / "models" / "adapter")
    said = " ".join(evaluate(project, adapter, "--rows", "1", "--out", str(tmp_path / "figures.json")).split())
    assert "adapter, the project's test rows" in said
    assert "2 answers computed now" in said
    assert "0 answers computed now" in evaluate(project, "--rows", "1")  # it is the project's own
    (figures,) = read_json(tmp_path / "figures.json")
    assert (figures["adapter"], figures["rows"]) == ("adapter", "the project's test rows")
    assert figures["figures"]["measure"] == "accuracy"
    done = CliRunner().invoke(app, ["compare", adapter, "base", "-p", str(project)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "No verdict, since it takes" in said
    assert "Rows on which they differ: project/reports/pairs/adapter-and-frozen-base-" in said
    assert len(list((project / "reports" / "pairs").glob("*.html"))) == 1
