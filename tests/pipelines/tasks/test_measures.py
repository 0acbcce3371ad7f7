"""How rows' scores add up: the figures of scikit-learn, scipy, rouge-score and sacrebleu, called directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.model.intervals import Resampling, against, each_alone, figure
from pipelines.tasks.family import TaskFamily, open_family
from pipelines.tasks.measures import Correlation, Floats, Mean, Measure, Proportion
from pipelines.tasks.overlap import CorpusChrf

RIGHT = ["The cat sat on the mat.", "A storm hit the coast", "Prices rose again in May", "It rained", "naïve café"]
SAID = ["the cat sat on a mat", "The coast was hit by a storm.", "", "It rained", "naive cafe"]


def rows() -> list[Row]:
    return [Row(f"f:{place}", "p", f" {right}", references=(right,)) for place, right in enumerate(RIGHT)]


def task(measure: str, reader: Mapping[str, Any] | None = None) -> TaskFamily[Any]:
    settings = {"max_new_tokens": 8, "reader": reader or {"name": "exact"}, "measure": measure, "conversation": False}
    return open_family(TaskSpec("generation", "{text}", False, settings=settings))


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_that_of_rouge_score(kind: str) -> None:
    family, scorer = task(kind), RougeScorer([kind])
    expected = [scorer.score(right, said)[kind].fmeasure for right, said in zip(RIGHT, SAID, strict=True)]
    scores = family.scores(rows(), SAID)
    assert scores.tolist() == expected
    assert 0 < family.measure.add_up(scores) == np.mean(expected) < 1
    assert family.fine_scores(rows(), SAID).tolist() == expected


def test_chrf_of_all_rows_and_of_each_is_that_of_sacrebleu() -> None:
    family, library = task("chrf"), CHRF()
    scores = family.scores(rows(), SAID)
    whole = library.corpus_score(SAID, [RIGHT]).score / 100
    assert family.measure.add_up(scores) == pytest.approx(whole, abs=1e-12)
    by_row = [library.sentence_score(said, [right]).score / 100 for said, right in zip(SAID, RIGHT, strict=True)]
    assert family.fine_scores(rows(), SAID) == pytest.approx(by_row, abs=1e-12)
    assert np.mean(by_row) != pytest.approx(whole, abs=1e-3)  # a corpus's figure is no mean of its rows'


def test_the_best_of_several_references_counts() -> None:
    row = Row("f:1", "p", " a", references=("Paris", "the city of Paris"))
    assert task("rouge1").scores([row], ["the city of Paris"]).tolist() == [1.0]
    assert task("chrf").measure.add_up(task("chrf").scores([row], ["the city of Paris"])) == pytest.approx(1.0)
    assert task("exact_match").scores([row], ["The city of paris."]).tolist() == [1.0]


def test_exact_match_is_the_accuracy_of_what_was_read() -> None:
    family = task("exact_match", {"name": "number"})
    right, said = ["8.0", "so 3 + 4 = 7", "1,200", "5"], ["8 dogs", "7.01", "it is 1200.", "none"]
    asked = [Row("f:1", "p", " c", references=(text,)) for text in right]
    scores = family.scores(asked, said)
    assert family.measure.add_up(scores) == accuracy_score(["8", "7", "1200", "5"], ["8", "7.01", "1200", ""])
    assert family.summary(asked, said) == {"unreadable_answers": 1}


def test_always_the_commonest_answer_is_a_baseline_where_answers_are_right_or_wrong() -> None:
    asked = [Row("f:1", "p", " c", references=(text,)) for text in ("8.0", "3", "so 8", "1,200")]
    baselines = task("exact_match", {"name": "number"}).baselines(asked)
    assert {name: scores.tolist() for name, scores in baselines.items()} == {"majority": [1.0, 0.0, 1.0, 0.0]}
    assert task("exact_match", {"name": "math"}).baselines(asked) == {}


def test_one_answer_for_all_is_a_baseline_where_answers_are_nearer_or_farther() -> None:
    asked = [Row("f:1", "p", " c", references=(text,)) for text in ("a b", "a b", "a c", "d")]
    baselines = task("rouge1").baselines(asked)
    assert {name: scores.tolist() for name, scores in baselines.items()} == {"constant": [1.0, 1.0, 0.5, 0.0]}
    assert list(task("chrf").baselines(asked)) == ["constant"]
    numbers = TaskSpec(
        "regression", "{text}", False, settings={"measure": "pearson", "low": 1, "high": 5, "words": None}
    )
    family = open_family(numbers)
    scored = family.baselines([Row("f:1", "p", " c", references=(text,)) for text in ("1", "3", "5")])
    assert family.measure.add_up(scored["constant"]) == 0.0


@pytest.mark.parametrize(("name", "library"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlations_are_those_of_scipy(name: str, library: Any) -> None:
    pairs = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 5.0], [4.0, 4.0], [0.5, 0.0]])
    assert Correlation(name).add_up(pairs) == pytest.approx(library(*pairs.T).statistic, abs=1e-12)


def scored(measure: Measure) -> Floats:
    return task(measure.name).scores(rows() * 4, SAID * 4)


@pytest.mark.parametrize("measure", [Mean("rougeL"), CorpusChrf()])
def test_an_interval_of_graded_scores_resamples_rows(measure: Measure) -> None:
    scores = scored(measure)
    drawn = np.random.default_rng(7)
    values = [measure.add_up(scores[drawn.integers(0, len(scores), len(scores))]) for _ in range(2000)]
    found = figure(measure, scores, Resampling(0.9, 2000, 42, each_alone(len(scores))))
    assert found.value == measure.add_up(scores)
    assert (found.low, found.high) == pytest.approx(np.quantile(values, [0.05, 0.95]), abs=0.02)


@pytest.mark.parametrize("measure", [Mean("rougeL"), CorpusChrf()])
def test_graded_scores_tell_a_better_system_from_an_equal_one(measure: Measure) -> None:
    better, worse = task(measure.name).scores(rows() * 8, RIGHT * 8), task(measure.name).scores(rows() * 8, SAID * 8)
    how = Resampling(0.95, 200, 1, each_alone(len(better)))
    assert against(measure, [better], [worse], how).better
    same = against(measure, [worse], [worse], how)
    assert (same.difference.value, same.better) == (0.0, False)


def labelled(measure: str, names: str) -> TaskFamily[Any]:
    labels = {name: f" {name}" for name in names}
    return open_family(TaskSpec("classification", "{text}", False, settings={"labels": labels, "measure": measure}))


@pytest.mark.parametrize("names", ["ab", "abcd"])
@pytest.mark.parametrize("measure", ["f1", "macro_f1", "matthews"])
def test_the_figures_of_labels_are_those_of_scikit_learn(measure: str, names: str) -> None:
    """Of four labels one is neither said nor right, and one is never said."""
    rng = np.random.default_rng(len(names))
    right = rng.integers(0, len(names) - (len(names) > 2), 60)
    said = np.where(rng.random(60) < 0.7, right, 0)
    family = labelled(measure, names)
    asked = [Row("f:1", "p", " c", names[place]) for place in right]
    answers = [np.where(np.arange(len(names)) == place, -0.1, -3.0) for place in said]
    expected = {
        "f1": lambda: f1_score(right == 1, said == 1),
        "macro_f1": lambda: f1_score(right, said, average="macro"),
        "matthews": lambda: matthews_corrcoef(right, said),
    }[measure]()
    scores = family.scores(asked, answers)
    assert family.measure.add_up(scores) == pytest.approx(expected)
    assert family.measure.name == measure
    most = np.full(60, np.bincount(right).argmax())
    baselines = family.baselines(asked)
    assert list(baselines) == ["majority"]
    assert baselines["majority"].tolist() == np.column_stack([most, right]).tolist()
    assert family.summary(asked, answers)["accuracy"] == accuracy_score(right, said)
    found = figure(family.measure, scores, Resampling(0.95, 500, 0, each_alone(60)))
    assert found.low < expected < found.high


def test_a_model_of_one_class_has_no_matthews_and_no_f1_and_is_not_better() -> None:
    """90 of 100 rows have the label that it always gives: 90 % accuracy, and nothing learned."""
    right = np.repeat([0, 1], [90, 10])
    asked = [Row("f:1", "p", " c", "ab"[place]) for place in right]
    always, fair = ([np.array([-0.1, -3.0][:: 1 - 2 * place]) for place in said] for said in (right * 0, right))
    for measure in ("f1", "matthews"):
        family = labelled(measure, "ab")
        how = Resampling(0.95, 300, 0, each_alone(100))
        scores = [family.scores(asked, answers) for answers in (always, fair)]
        assert [family.measure.add_up(each) for each in scores] == [0.0, 1.0]
        majority = family.baselines(asked)["majority"]
        assert not against(family.measure, scores[:1], [majority], how).better
        assert against(family.measure, scores[1:], [majority], how).better


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_without_the_rows_a_mean_is_no_surer_than_a_share(value: float) -> None:
    """The standard error of scores of 0 and 1 is the largest that scores between can have."""
    mean, share = Mean("rougeL"), Proportion("exact_match")
    assert mean.error(value, 50) == pytest.approx(share.error(value, 50))
    low, high = mean.interval(value, 50, 0.95)
    assert 0 <= low <= value <= high <= 1
