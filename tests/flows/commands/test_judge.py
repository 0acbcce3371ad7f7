"""`reft judge`: answers are asked for once, judged by a stub through OpenAI's client, or measured without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.commands.judge import _opened
from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base, write_record
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import Prediction, Said, read_predictions, write_predictions
from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.intake.library import read_task_file
from pipelines.judge.likeness import NO_JUDGEMENT, repetition
from pipelines.judge.planning import KEY
from pipelines.serving.answerer import Answerer, Loss
from reft import AdapterInfo, ReftConfig, ReftModel, encode, save_adapter
from tests.pipelines.finished import PROJECT, make_base, write_figures
from tests.pipelines.judge.stub import GOOD, Stub, serving

ROWS = [{"instruction": f"Say {n}.", "output": f"{GOOD} It is {n}, {'and ' * (n % 5)}so on."} for n in range(20)]
TEMPLATE = "{instruction}\n"


@dataclass(frozen=True)
class Project:
    root: Path
    rows: Path
    known: Path

    def judge(self, *words: object) -> Any:
        done = CliRunner().invoke(app, ["judge", "-p", str(self.root), *map(str, words)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    @property
    def report(self) -> Any:
        return json.loads((self.root / "reports" / "judge.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an adapter that writes, its tiny base, and the predictions that a run left."""
    root = tmp_path_factory.mktemp("judge") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root.parent / "home"))
        record = make_base(root)
        loaded = load_base(record)
    write_record(root / "models" / "base.json", record)
    model = ReftModel(loaded.model, ReftConfig(layers=(0, 1), positions="l1", rank=2, init="paper"), seed=0)
    settings = {"max_new_tokens": 12, "reader": {"name": "exact"}, "measure": "chrf", "conversation": False}
    prompt = {"task": "generation", "template": TEMPLATE, "chat": False, **settings}
    save_adapter(model, root / "models" / "adapter", AdapterInfo(record.sha256, record.source, "0" * 64, prompt, 0))
    shutil.copy(PROJECT / "dvc.yaml", root)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    section = {**read_task_file("alpaca-eval").prepare, "template": TEMPLATE, "measure": "chrf"}
    params["prepare"] = {
        **section, "source": "file:data/own/rows.json", "sha256": None, "validation_source": None, "test_source": None,
        "growing": None, "max_new_tokens": 12,
    }  # fmt: skip
    params["search"]["objectives"] = ["chrf"]
    params["evaluate"]["bootstrap"] = 100
    params["base"] |= {"source": "file:models/own/tiny", "sha256": None}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    predictions = [
        Prediction(
            f"rows.json:{n + 1}", f"Say {n}.\n", Said(f"{GOOD} {n}" if n < 15 else "no"), Said("no no no no no no"),
            references=("no" if n < 15 else f"{GOOD} {n}",),
        )
        for n in range(20)
    ]  # fmt: skip
    write_predictions(root / "reports" / "predictions.parquet", predictions)
    write_figures({"adapter": root / "models" / "adapter", "evaluation": figures_of(root)}, better=True)
    return root


def figures_of(root: Path) -> Path:
    return root / "metrics" / "evaluation.json"


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("REFT_HOME", str(made.parent / "home"))
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    root = tmp_path / "project"
    shutil.copytree(made, root)
    lines = [*map(json.dumps, ROWS), '{"instruction": "torn', '{"instruction": "No reference.", "output": ""}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    known = [
        {"instruction": f"Tell {n}.", "output_1": f"{GOOD} {n}" if n % 2 else f"{n}",
         "output_2": f"{n}" if n % 2 else f"{GOOD} {n}", "preference": 1 if n % 2 else 2}
        for n in range(20)
    ]  # fmt: skip
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, known)), encoding="utf-8")
    return Project(root, tmp_path / "rows.jsonl", tmp_path / "known.jsonl")


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def address(stub: Stub) -> Iterator[str]:
    with serving(stub) as found:
        yield found


def test_predictions_of_a_run_are_judged_without_a_model(
    project: Project, stub: Stub, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answerer, "answer", None)
    shutil.rmtree(project.root / "models")
    done = project.judge("--model", "stub", "--address", address, "--known", project.known, "--yes")
    assert done.exit_code == 0
    found = project.report
    assert found["win_rate"]["value"] == 0.75  # 15 of the 20 are planted as the better
    assert found["corrected"]["low"] < 0.75 < found["corrected"]["high"]
    assert (found["one"], found["other"], found["findings"]) == ("adapter", "reference", [])
    made_by = read_evaluation(figures_of(project.root)).adapter_sha256
    assert found["systems"]["one"] == {"adapter_sha256": made_by, "base_sha256": None}  # which was of that adapter
    assert found["systems"]["other"] == {"adapter_sha256": None, "base_sha256": None}
    assert "without the judge's errors" in done.stdout
    lines = (project.root / "reports" / "judge.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["score"] for line in lines[:20]] == [1.0] * 15 + [0.0] * 5
    calls = stub.calls
    again = project.judge("--model", "stub", "--address", address, "--known", project.known)
    assert again.exit_code == 0  # nobody is asked, so nothing need be agreed to
    assert stub.calls == calls
    assert "none is asked" in again.stdout


def test_nothing_is_sent_before_it_is_agreed_to(project: Project, stub: Stub, address: str) -> None:
    words = ("--model", "stub", "--address", address, "--prices", "1,2")
    done = project.judge(*words)
    assert done.exit_code == 1
    assert "Nothing was asked" in done.stdout
    assert "cost about 0.0" in done.stdout
    assert (stub.calls, (project.root / "reports" / "judge.json").exists()) == (0, False)


def test_a_file_of_rows_is_answered_once_and_what_a_kill_left_is_not_asked_again(
    project: Project, stub: Stub, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second chunk of answers fails as a kill would; the run after it asks the model that one alone."""
    monkeypatch.setattr("pipelines.judge.answers.BATCH_SIZE", 8)
    real, chunks = Answerer.answer, []

    def counted(self: Answerer, rows: Any, progress: Any = None) -> Any:
        chunks.append(len(rows))
        if len(chunks) == 2:
            raise KeyboardInterrupt
        return real(self, rows, progress)

    monkeypatch.setattr(Answerer, "answer", counted)
    words = (project.rows, "--model", "stub", "--address", address, "--yes")
    project.judge(*words)
    assert chunks == [8, 8]
    assert stub.calls == 0
    done = project.judge(*words)
    assert chunks == [8, 8, 8, 4]
    found = project.report
    assert (found["pairs"], found["scored"], found["win_rate"]["value"]) == (20, 20, 0.0)  # the references are the good
    assert "2 rows left out" in done.stdout
    assert found["calibration"]["made"]
    assert found["corrected"] is None
    assert "needs verdicts of people" in done.stdout
    assert {question[0] for question in stub.asked} == {row["instruction"] for row in ROWS}


def test_an_adapter_is_compared_with_its_base_on_some_of_the_rows(project: Project, stub: Stub, address: str) -> None:
    words = (project.rows, "--against", "base", "--rows", 6, "--model", "stub", "--address", address, "--yes")
    project.judge(*words)
    assert project.report["pairs"] == 6
    assert project.report["win_rate"]["value"] == 0.5  # neither says what is planted
    pairs = [json.loads(line) for line in (project.root / "reports" / "judge.jsonl").read_text("utf-8").splitlines()][
        :6
    ]
    assert any(pair["one"] != pair["other"] for pair in pairs)
    named = project.root / "models" / "adapter"
    project.judge(
        project.rows, "--adapter", named, "--against", "base", "--rows", 6, "--model", "stub", "--address", address
    )
    assert project.report["win_rate"]["value"] == 0.5  # the same adapter by its folder: nothing new is asked


def test_rows_without_references_are_judged_by_a_judge_who_is_not_calibrated(
    project: Project, stub: Stub, address: str
) -> None:
    project.rows.write_text("\n".join(json.dumps({"instruction": f"Say {n}."}) for n in range(6)), encoding="utf-8")
    project.judge(project.rows, "--against", "base", "--model", "stub", "--address", address, "--yes")
    assert (project.report["pairs"], project.report["calibration"]["pairs"]) == (6, 0)
    assert any("It is not calibrated" in finding for finding in project.report["findings"])
    done = project.judge(project.rows)
    assert "chrF" in done.stdout
    assert project.report["figures"]["one"]["chrf"] is None
    for words in (["--model", "stub", "--address", address], ["--reference", "answer"]):
        with pytest.raises(PipelineError, match=r"column of references, (output|answer)"):
            project.judge(project.rows, *words)


def test_without_a_judge_it_measures_and_says_that_this_is_no_judgement(project: Project) -> None:
    done = project.judge()
    assert NO_JUDGEMENT in done.stdout
    found = project.report
    one, other = found["figures"]["one"], found["figures"]["other"]
    assert (found["note"], found["one"], found["other"]) == (NO_JUDGEMENT, "adapter", "base")
    assert one["rows"] == 20
    assert other["repetition"]["value"] == pytest.approx(2 / 3)  # "no" six times: three runs of four words, all one
    assert one["repetition"]["value"] == 0
    assert found["figures"]["difference"]["repetition"]["value"] == pytest.approx(-2 / 3)
    assert one["chrf"]["value"] == pytest.approx(by_sacrebleu(project.root), abs=1e-9)
    assert one["loss"] != other["loss"]
    assert other["loss"]["value"] == pytest.approx(base_loss(project.root), abs=1e-4)
    assert one["with_loss"] == other["with_loss"] == 20
    base = read_base(project.root / "models" / "base.json").sha256
    assert [found["systems"][side]["base_sha256"] for side in ("one", "other")] == [base, base]


def test_answers_and_losses_are_kept_by_all_of_a_row_and_by_the_code(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of the same prompt and other domains are two; and what other code said is not known."""
    asked = []

    def answer(self: Answerer, rows: Any, _progress: Any = None) -> list[dict[str, str]]:
        asked.extend(rows)
        return [{self.task.ANSWER: f"t is {row.domain}"} for row in rows]

    monkeypatch.setattr(Answerer, "answer", answer)
    monkeypatch.setattr(Answerer, "losses", lambda _self, rows, _texts: [Loss(row.domain, 1) for row in rows])
    rows, right = [Row(f"r:{t}", "Say it.\n", "", domain=float(t)) for t in (1, 2)], {"r:1": "It.", "r:2": "It."}
    for _ in range(2):
        with _opened("adapter", ("adapter", "base"), project.root) as asking:
            assert asking.texts(rows) == {"r:1": "t is 1.0", "r:2": "t is 2.0"}
            assert asking.losses(rows, right) == {"r:1": (1.0, 1), "r:2": (2.0, 1)}
    assert len(asked) == 2
    monkeypatch.setattr("pipelines.project.keys.installed_code", lambda: {"evaluate": "of another release"})
    with _opened("adapter", ("adapter", "base"), project.root) as asking:
        asking.texts(rows)
    assert len(asked) == 4


def test_predictions_of_an_earlier_adapter_have_no_losses_of_a_later_one(project: Project) -> None:
    figures = json.loads(figures_of(project.root).read_text(encoding="utf-8"))
    figures_of(project.root).write_text(json.dumps({**figures, "adapter_sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(PipelineError, match=r"must be of one adapter.*predictions of 0{64}.*Run `reft run`"):
        project.judge()


def test_the_base_that_a_named_adapter_is_compared_with_is_its_own(project: Project, tmp_path: Path) -> None:
    """The project has none of its own any more."""
    named, models = tmp_path / "named", project.root / "models"
    shutil.copytree(models / "adapter", named)
    shutil.copy(models / "base.json", named)
    shutil.rmtree(models / "adapter")
    base = read_base(models / "base.json").sha256
    (models / "base.json").unlink()
    project.judge(project.rows, "--adapter", named, "--against", "base", "--rows", 2)
    systems = project.report["systems"]
    assert systems["one"]["base_sha256"] == systems["other"]["base_sha256"] == base
    assert (systems["one"]["adapter_sha256"] is None, systems["other"]["adapter_sha256"]) == (False, None)


def by_sacrebleu(root: Path) -> float:
    """The adapter's chrF, by the library's own function."""
    from sacrebleu import corpus_chrf

    rows = read_predictions(root / "reports" / "predictions.parquet")
    return corpus_chrf([str(row.adapter.value) for row in rows], [[row.references[0] for row in rows]]).score / 100


def base_loss(root: Path) -> float:
    """Nats a token of the references, by transformers itself."""
    import torch

    loaded, nats, tokens = load_base(read_base(root / "models" / "base.json")), 0.0, 0
    for row in read_predictions(root / "reports" / "predictions.parquet"):
        ids = encode(loaded.tokenizer, row.prompt, row.references[0] + loaded.tokenizer.eos_token)
        labels = torch.tensor([ids.input_ids])
        labels[:, : ids.prompt_length] = -100
        with torch.inference_mode():
            loss = loaded.model(torch.tensor([ids.input_ids]), labels=labels).loss
        count = len(ids.input_ids) - ids.prompt_length
        nats, tokens = nats + float(loss) * count, tokens + count
    return nats / tokens


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--known", "x.jsonl"], "--known is said of a judge"),
        (["--model", "m"], "has an http:// or https:// address"),
        (["--model", "m", "--address", "http://127.0.0.1:9/v1", "--budget", "1"], "--budget needs the prices"),
        (["--adapter", "reference"], "the one system is asked, or was"),
        (["--adapter", "models/other"], "the predictions of a run are those of adapter and base"),
        (["nowhere.jsonl"], "rows are in a file that ends in"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(project: Project, words: list[str], rule: str) -> None:
    with pytest.raises(PipelineError, match=rule):
        project.judge(*words)


def test_repetition_is_of_runs_of_four_words() -> None:
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)  # of five runs the last is the first again
    assert repetition("a b c") == repetition("") == 0
