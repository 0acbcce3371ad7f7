"""What people read of an evaluation: the card of a run and the words of its verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.runs.cards import evaluation_table
from pipelines.contracts.evaluation import read_evaluation, write_evaluation
from pipelines.files import read_json, write_json
from pipelines.registry.history import evaluation_metrics
from pipelines.wording import verdict_words
from tests.pipelines.stages.test_evaluate import compared, labels

TRUTH = labels((0, 140), (1, 60))
ALTERNATING = np.arange(200) % 2
COMMONEST = np.zeros(200, dtype=np.int64)
FEW = 4


@pytest.mark.parametrize(
    ("truth", "edited", "frozen", "words"),
    [
        (TRUTH, TRUTH, ALTERNATING, "better than the base and than always giving the commonest answer"),
        (TRUTH, COMMONEST, ALTERNATING, "not better than always giving the commonest answer by more than chance"),
        (TRUTH, ALTERNATING, ALTERNATING, "not better than the base by more than chance"),
        (TRUTH[138:142], TRUTH[138:142], 1 - TRUTH[138:142], "no verdict: 4 rows are too few, it takes 15"),
    ],
)
def test_the_card_says_the_verdict_beside_the_baselines(
    truth: np.ndarray, edited: np.ndarray, frozen: np.ndarray, words: str, tmp_path: Path
) -> None:
    evaluation = compared(truth, edited, frozen)
    write_evaluation(tmp_path / "evaluation.json", evaluation)
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation
    raw = read_json(tmp_path / "evaluation.json")
    assert verdict_words(raw) == words
    card = evaluation_table(evaluation)
    for said in (
        f"Verdict: {words}.",
        "| majority baseline |",
        "| chance baseline | 50.0 % |",
        "Macro F1: base",
        "p = ",
    ):
        assert said in card
    assert evaluation_metrics(evaluation) == evaluation.flat()


def test_a_file_of_release_0_1_is_read_and_said(tmp_path: Path) -> None:
    evaluation = compared(TRUTH, TRUTH, ALTERNATING)
    write_evaluation(tmp_path / "evaluation.json", evaluation)
    raw = read_json(tmp_path / "evaluation.json")
    for key in ("p_value", "detectable", "least_rows", "baselines", "over_majority"):
        del raw[key]
    for system in ("adapter", "base"):
        del raw[system]["summary"]
    assert verdict_words(raw) == "better than the base"
    write_json(tmp_path / "evaluation.json", raw)
    assert "baseline" not in evaluation_table(read_evaluation(tmp_path / "evaluation.json"))
