"""Tasks of lm-evaluation-harness, asked of a tiny model: its figures are those of the project's own scoring."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from flows.commands.evaluate import harness_table
from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.project.graph import read_graph
from pipelines.serving.harness import HarnessAsked, run_harness
from reft import ReftConfig, ReftModel, encode, score_options
from reft.adapters.any_method import load_method
from tests.pipelines.finished import PROJECT, finish_stages, make_params
from tests.tiny import tiny_llama, tiny_tokenizer

pytest.importorskip("lm_eval")

ROWS = [
    {"question": f"a film, number {n}", "options": ["good", "bad", "so so"][: 2 + n % 2], "answer": n % 2}
    for n in range(12)
]
CHOICE = """task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Review: {{{{question}}}}\\nSentiment:"
doc_to_choice: options
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
WRITTEN = """task: own_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_text: "Review: {{{{question}}}}\\nSentiment:"
doc_to_target: "{{{{options[answer]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
ELSEWHERE = "task: elsewhere\ndataset_path: nobody/nothing\ntest_split: test\noutput_type: multiple_choice\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("harness")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        paths = finish_stages(root)
    (root / "tasks").mkdir()
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for name, text in (("choice", CHOICE), ("written", WRITTEN)):
        filled = text.format(data=root / "rows.jsonl", cache=root / "cache")
        (root / "tasks" / f"{name}.yaml").write_text(filled, encoding="utf-8")
    return {"root": root, **paths}


def asked(project: dict[str, Path], monkeypatch: pytest.MonkeyPatch, *tasks: str, **changes: Any) -> list[Any]:
    monkeypatch.setenv("REFT_HOME", str(project["root"] / "home"))
    wanted = HarnessAsked(tasks, changes.get("limit"), download=False)
    return run_harness(make_params(), wanted, root=project["root"], base=project["base"], adapter=project["adapter"])


def test_the_figures_are_those_of_our_own_scores(project: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {each.task: each for each in asked(project, monkeypatch, str(project["root"] / "tasks"))}
    assert set(found) == {"own_choice", "own_written"}
    tokenizer = tiny_tokenizer()
    base = tiny_llama(vocab=len(tokenizer), layers=2)
    model = load_method(project["adapter"], base, base_sha256=read_base(project["base"]).sha256).eval()
    assert isinstance(model, ReftModel)
    prompts = [encode(tokenizer, f"Review: {row['question']}\nSentiment:", "").prompt_ids for row in ROWS]
    options = [
        [tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in row["options"]] for row in ROWS
    ]
    own = []
    for context in (model.disabled(), model.at_scale(1.0)):
        with context:
            scores = score_options(model, prompts, options, batch_size=4)
        own.append(np.mean([int(each.argmax()) == row["answer"] for each, row in zip(scores, ROWS, strict=True)]))
    figure = found["own_choice"]
    assert (figure.base, figure.adapter, figure.documents) == (own[0], own[1], 12)
    assert figure.base_error == pytest.approx(np.sqrt(own[0] * (1 - own[0]) / 11), abs=1e-6)
    assert found["own_written"].documents == 12


def test_likelihoods_and_greedy_answers_are_the_models(project: dict[str, Path]) -> None:
    """With edits that change every score: each continuation's log-likelihood, and whether it would be written."""
    from lm_eval.api.instance import Instance

    from pipelines.serving.harness_model import HarnessModel

    tokenizer = tiny_tokenizer()
    model = ReftModel(tiny_llama(vocab=len(tokenizer)), ReftConfig((0, 1), "f1+l2", 4, init="paper"), seed=0).eval()
    ours = HarnessModel(model, tokenizer, batch_size=3)
    contexts = ["Review: a good film", "Review: it was so so.\nSentiment:", "x"]
    written = ours.generate_until([
        Instance("generate_until", {}, (text, {"until": [], "max_gen_toks": 2, "do_sample": False}), place)
        for place, text in enumerate(contexts)
    ])  # fmt: skip
    pairs = [(text, more) for text in contexts for more in (" good", " negative film")]
    pairs += [(text, own) for text, own in zip(contexts, written, strict=True) if own]
    found = ours.loglikelihood([Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)])
    for (text, more), (score, greedy) in zip(pairs, found, strict=True):
        context, rest = ours._encode_pair(text, more)
        (expected,) = score_options(model, [context], [[rest]], batch_size=1)
        assert score == pytest.approx(float(expected[0]), abs=1e-4)
        with torch.no_grad():
            ids = torch.tensor([[*context, *rest]])
            with model.editing(torch.ones_like(ids), torch.tensor([len(context)])):
                likeliest = model.base(input_ids=ids).logits.argmax(-1)[0, len(context) - 1 : -1].tolist()
        assert greedy == (likeliest == list(rest))
    with pytest.raises(PipelineError, match="are greedy here"):
        ours.generate_until([Instance("generate_until", {}, ("x", {"do_sample": True, "temperature": 1.0}), 0)])
    with pytest.raises(PipelineError, match=f"base's {ours.max_length} tokens. Got: max_gen_toks: {ours.max_length}"):
        ours.generate_until([Instance("generate_until", {}, ("x", {"max_gen_toks": ours.max_length}), 0)])


def test_an_answer_ends_at_each_token_that_the_base_ends_texts_with() -> None:
    """A chat model has one beside its tokenizer's, which generation_config.json lists."""
    from lm_eval.api.instance import Instance

    from pipelines.serving.harness_model import HarnessModel

    tokenizer = tiny_tokenizer()
    model = ReftModel(tiny_llama(vocab=len(tokenizer)), ReftConfig((0,), "l1", 1), seed=0).eval()
    ours = HarnessModel(model, tokenizer, batch_size=1)
    asked = Instance("generate_until", {}, ("a good film", {"until": [], "max_gen_toks": 3, "do_sample": False}), 0)
    assert ours.generate_until([asked]) != [""]
    with torch.no_grad():
        first = model.base(input_ids=torch.tensor([ours.tok_encode("a good film")])).logits[0, -1].argmax()
    model.base.generation_config.eos_token_id = [int(first)]
    assert ours.generate_until([asked]) == [""]


def test_nothing_is_fetched_without_being_asked_for(project: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project["root"] / "elsewhere"
    folder.mkdir()
    (folder / "task.yaml").write_text(ELSEWHERE, encoding="utf-8")
    before = dict(os.environ)
    with pytest.raises(PipelineError, match="nothing is downloaded without being asked for") as error:
        asked(project, monkeypatch, str(folder))
    assert "Run it with --download" in str(error.value)
    assert {name for name in os.environ if "OFFLINE" in name} == {name for name in before if "OFFLINE" in name}


@pytest.mark.long  # the harness reads all of its own files first
def test_a_name_that_the_harness_does_not_know_is_refused(
    project: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PipelineError, match=r"a name that lm-evaluation-harness knows.*Got: arc_esy"):
        asked(project, monkeypatch, "arc_esy")


def test_a_limit_takes_the_first_documents_and_the_table_shows_both(
    project: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (figure,) = asked(project, monkeypatch, str(project["root"] / "tasks"), limit=5)[:1]
    assert figure.documents == 5
    from rich.console import Console

    console = Console(width=120, record=True)
    console.print(harness_table([figure]))
    assert f"{figure.adapter:.4f}" in console.export_text()


@pytest.fixture(scope="module")
def folder(project: dict[str, Path]) -> Path:
    """The project's base and adapter where dvc.yaml says, with its params.yaml."""
    root = project["root"] / "project"
    root.mkdir()
    shutil.copyfile(PROJECT / "dvc.yaml", root / "dvc.yaml")
    said = make_params().model_dump(mode="json", by_alias=True)
    (root / "params.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    paths = read_graph(root).paths
    for name, copy in (("base", shutil.copyfile), ("adapter", shutil.copytree)):
        (root / paths[name]).parent.mkdir(parents=True, exist_ok=True)
        copy(project[name], root / paths[name])
    return root


def test_the_models_arguments_name_adapter_or_base(
    project: dict[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness makes its models from words, as here; the texts are those of its own requests."""
    from lm_eval.api.instance import Instance

    from pipelines.serving.harness_command import ProjectModel

    monkeypatch.setenv("REFT_HOME", str(project["root"] / "home"))
    words = {system: f"project={folder},system={system}" for system in ("adapter", "base")}
    made = {
        system: ProjectModel.create_from_arg_string(said, {"batch_size": 4, "max_batch_size": None, "device": None})
        for system, said in words.items()
    }
    pairs = [("Review: a good film\nSentiment:", f" {word}") for word in ("good", "bad")]
    asked = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
    found = {system: [score for score, _ in model.loglikelihood(asked)] for system, model in made.items()}
    tokenizer = tiny_tokenizer()
    sha256 = read_base(project["base"]).sha256
    model = load_method(project["adapter"], tiny_llama(vocab=len(tokenizer), layers=2), base_sha256=sha256).eval()
    assert isinstance(model, ReftModel)
    prompt = encode(tokenizer, pairs[0][0], "").prompt_ids
    options = [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in pairs]
    (edited,) = score_options(model, [prompt], [options], batch_size=1)
    with model.disabled():
        (frozen,) = score_options(model, [prompt], [options], batch_size=1)
    assert found["adapter"] == pytest.approx(edited.tolist(), abs=1e-5)
    assert found["base"] == pytest.approx(frozen.tolist(), abs=1e-5)
    assert found["adapter"] != pytest.approx(found["base"], abs=1e-4)
    with pytest.raises(PipelineError, match=r"system is adapter or base.*Got: both"):
        ProjectModel.create_from_arg_string(f"project={folder},system=both")
    with pytest.raises(PipelineError, match=r"batch_size is a number, or auto.*Got: many"):
        ProjectModel.create_from_arg_string(f"project={folder}", {"batch_size": "many"})


@pytest.mark.long  # the harness reads all of its own files first
def test_the_harness_own_command_says_what_reft_evaluate_says(
    project: dict[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pipelines.serving.harness_command import main

    (figure,) = [each for each in asked(project, monkeypatch, str(project["root"] / "tasks")) if each.measure == "acc"]
    for system in ("adapter", "base"):
        words = ["--model", "reft", "--model_args", f"project={folder},system={system}", "--tasks", figure.task]
        words += ["--include_path", str(project["root"] / "tasks"), "--output_path", str(tmp_path / system)]
        monkeypatch.setattr(sys, "argv", ["lm-eval", "run", *words])
        assert main() == 0
        (file,) = (tmp_path / system).rglob("results_*.json")
        said = json.loads(file.read_text(encoding="utf-8"))
        assert said["results"][figure.task]["acc,none"] == getattr(figure, system)
        assert said["n-samples"][figure.task]["effective"] == figure.documents
