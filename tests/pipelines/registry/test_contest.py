"""Versions are fetched and asked today's test rows, as whoever serves them asks; the command keeps what was decided."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.contracts.base import read_base
from pipelines.contracts.identities import write_identities
from pipelines.contracts.prepared import SPLITS, Row, Split, write_rows
from pipelines.contracts.task import read_task, write_task
from pipelines.contracts.verdict import read_decision
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json
from pipelines.params.whole import Params
from pipelines.registry.__main__ import main
from pipelines.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.registry.contest import Asker
from pipelines.registry.loads import check_loads
from pipelines.serving.answerer import open_answerer
from pipelines.sources.raw_row import RawRow
from pipelines.tracking.runs import Store
from tests.promoting import MODEL, aliases, tags

TEXTS = [f"A {tone} film, number {number}." for number in range(16) for tone in ("warm", "cold")]
LABELS = {"warm": "positive", "cold": "negative"}


@pytest.fixture(autouse=True)
def same_bases(lives_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(lives_home))


def prepared_row(place: int, text: str) -> Row:
    label = LABELS[text.split()[1]]
    prompt = f"Review: {text}\nSentiment:"
    return Row(f"a:{place + 1}", prompt, f" {label}", label=label, key=text.casefold())


@pytest.fixture
def prepared(lives_root: Path, registry: Store, tmp_path: Path) -> Path:
    """Rows of today: the test rows are new, but for one that every version was trained on."""
    folder = tmp_path / "prepared"
    splits: dict[Split, list[Row]] = {split: [prepared_row(0, "A warm start.")] for split in SPLITS}
    splits["test"] = [prepared_row(place, text) for place, text in enumerate(TEXTS)]
    splits["test"].append(
        replace(prepared_row(len(TEXTS), "A warm one."), key="good film")
    )  # as tests/pipelines/finished
    for split, rows in splits.items():
        write_rows(folder, split, rows)
    write_identities(folder, splits)
    write_task(folder, read_task(lives_root / "stages-0" / "prepared"))
    return folder


@pytest.fixture
def asker(lives: Store, lives_params: Params, lives_root: Path, prepared: Path) -> Asker:
    return Asker(lives, lives_params, root=lives_root, base=lives_root / "stages-0" / "base.json", prepared=prepared)


def served_scores(root: Path, seed: int) -> list[float]:
    """Whether what is served of an adapter says the right label, by the path that `reft predict` takes."""
    stages = root / f"stages-{seed}"
    answerer = open_answerer(stages / "adapter", read_base(stages / "base.json"), root=root)
    texts = [*TEXTS, "A warm one."]
    rows = [answerer.read(RawRow("a", place + 1, {"text": text})) for place, text in enumerate(texts)]
    said = [answer["label"] for answer in answerer.answer(rows)]  # type: ignore[arg-type]
    return [float(label == LABELS[text.split()[1]]) for label, text in zip(said, texts, strict=True)]


def test_both_versions_are_asked_every_test_row_as_they_are_served(
    asker: Asker, lives: Store, lives_root: Path
) -> None:
    versions = [lives.client.get_model_version(MODEL, number) for number in ("3", "1")]
    found = asker.contest(versions[0], versions[1])
    assert [row.id for row in found.rows] == [f"a:{place + 1}" for place in range(33)]
    assert found.champion is not None
    for side, seed in ((found.challenger, 2), (found.champion, 0)):
        assert (side.problem, side.ids) == (None, tuple(row.id for row in found.rows))
        assert side.scores.tolist() == served_scores(lives_root, seed)
        assert side.unreadable == 0.0
        assert side.megabytes == pytest.approx(
            sum(file.stat().st_size for file in (lives_root / f"stages-{seed}" / "adapter").iterdir()) / 1e6
        )
        assert side.seen is not None
        assert [row.id for row in found.rows if side.seen.knows(row.text, row.group)] == ["a:33"]
    assert set(np.unique(found.base.scores)) <= {0.0, 1.0}
    assert found.majority is not None


def test_neutral_text_is_read_where_its_perplexity_has_a_limit(
    lives: Store, lives_params: Params, lives_root: Path, prepared: Path
) -> None:
    version, rise = lives.client.get_model_version(MODEL, "3"), {}
    for limit in (None, 0.5):
        gate = lives_params.gate
        limited = gate.model_copy(update={"limits": gate.limits.model_copy(update={"perplexity": limit})})
        params = lives_params.model_copy(update={"gate": limited})
        base = lives_root / "stages-0" / "base.json"
        found = Asker(lives, params, root=lives_root, base=base, prepared=prepared).contest(version, None)
        assert found.challenger.problem is None
        rise[limit] = found.challenger.perplexity
    assert rise[None] is None
    assert abs(rise[0.5]) < 0.5  # random edits of a random model, which knows no text


def test_a_version_whose_prompts_differ_cannot_be_compared(
    asker: Asker, lives: Store, prepared: Path, lives_params: Params, lives_root: Path
) -> None:
    task = read_task(prepared)
    write_task(prepared, replace(task, template="Is it good? {text}"))
    other = Asker(lives, lives_params, root=lives_root, base=lives_root / "stages-0" / "base.json", prepared=prepared)
    found = other.contest(lives.client.get_model_version(MODEL, "3"), None)
    assert "as the test rows of today have them. Got: it differs in template" in str(found.challenger.problem)


def test_a_version_that_does_not_load_has_a_problem(
    asker: Asker, lives: Store, lives_params: Params, lives_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ValueError("adapter.safetensors must hold the tensors of its configuration; got none")

    version = lives.client.get_model_version(MODEL, "1")
    monkeypatch.setattr("pipelines.registry.contest.load_method", refused)
    found = asker.contest(lives.client.get_model_version(MODEL, "3"), version)
    assert found.champion is not None
    assert "version 1 cannot be asked: adapter.safetensors must hold" in str(found.champion.problem)
    check_loads(version, params=lives_params, root=lives_root)
    monkeypatch.setattr("pipelines.registry.loads.open_answerer", refused)
    with pytest.raises(PipelineError, match=r"a version must load before it goes live\. Got: models:/lives/1: adapter"):
        check_loads(version, params=lives_params, root=lives_root)


def test_identities_of_other_rows_are_refused(
    asker: Asker, lives: Store, lives_params: Params, lives_root: Path, prepared: Path
) -> None:
    write_rows(prepared, "test", [prepared_row(0, "A cold end.")])
    with pytest.raises(PipelineError, match=r"identities.jsonl must be of the rows beside it.*dvc repro -f -s prepare"):
        Asker(lives, lives_params, root=lives_root, base=lives_root / "stages-0" / "base.json", prepared=prepared)


def test_the_command_leaves_the_decision_where_people_look(
    lives: Store,
    lives_params: Params,
    lives_root: Path,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random adapters are no better than their base, so it takes a reason."""
    (lives_root / "params.yaml").write_text(yaml.safe_dump(lives_params.model_dump(by_alias=True)), encoding="utf-8")
    monkeypatch.chdir(lives_root)
    monkeypatch.setattr("pipelines.registry.__main__.begin_process", lambda: None)
    out = tmp_path / "reports" / "gate.json"
    command = ["promote", "--base", "stages-0/base.json", "--prepared", str(prepared), "--out", str(out)]
    assert main([*command, "--dry-run"]) == 0
    assert aliases(lives) == {CHAMPION: "1", CHALLENGER: "3"}
    assert read_decision(out).dry
    assert main(command) == 0
    refused = read_decision(out)
    assert (refused.promoted, refused.verdict.rows, refused.verdict.left_out) == (False, 32, 1)
    assert refused.key == tags(lives, 3)["gate.key"]
    assert main([*command, "--reason", "a test"]) == 0
    assert aliases(lives) == {CHAMPION: "3", PREVIOUS: "1"}
    run = lives.client.get_model_version(MODEL, "3").run_id
    assert {file.path for file in lives.client.list_artifacts(run, "gate")} == {"gate/gate.json", "gate/gate.md"}
    kept = lives.client.download_artifacts(run, "gate/gate.json", str(tmp_path))
    assert json.loads(Path(kept).read_text(encoding="utf-8")) == read_json(out)
    assert "by a person: a test" in out.with_suffix(".md").read_text(encoding="utf-8")
    assert main([*command, "--version", "3"]) == 2  # it is champion
    write_json(out, {})
    with pytest.raises(PipelineError, match="must hold what the stage promotion writes"):
        read_decision(out)
