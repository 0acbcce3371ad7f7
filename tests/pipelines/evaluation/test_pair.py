"""Two systems beside each other: the figures against values worked out elsewhere, and what the page holds."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.evaluation.pair import Compared, PairFigures, Side, compare_systems, exact_test_words, pair_figures
from pipelines.evaluation.pair_page import pair_answer, pair_page, write_pair
from pipelines.evaluation.wanted import WantedRows, every_asked, opened_systems
from pipelines.exchange.named import Naming
from pipelines.files import read_json
from pipelines.model.intervals import Resampling, each_alone, numbered
from pipelines.params.whole import Params
from pipelines.tasks.family import open_family
from pipelines.tasks.measures import Correlation, Mean, Proportion
from tests.pipelines.evaluation.conftest import ROWS, rows

NAMES = ["positive", "negative"]  # as conftest's rows begin
TASK = open_family(
    TaskSpec("classification", "{text}", False, settings={"labels": {name: f" {name}" for name in NAMES}})
)


def of_answers(one: np.ndarray, other: np.ndarray, params: Params, *, grouped: int = 1) -> PairFigures:
    """The figures of two systems that are right where these say so, of rows in groups of so many."""
    asked = [replace(row, group=f"{place // grouped}") for place, row in enumerate(rows(len(one)))]
    certain = {True: [0.9, 0.1], False: [0.1, 0.9]}

    def said(right: np.ndarray) -> list[np.ndarray]:
        return [np.log(certain[bool(ok) == (place % 2 == 0)]) for place, ok in enumerate(right)]

    return pair_figures(TASK, Side(asked, said(one)), Side(asked, said(other)), params)


def test_each_side_is_scored_by_the_tokens_of_its_own_base(params: Params) -> None:
    """Log-probabilities -4 and -4.5 of two options, by token: of 4 and 1 tokens -1 and -4.5, of 1 and 4 -4 and -1.1."""
    settings = {"split": None, "option_columns": ["a", "b"], "options": None, "score": "per_token"}
    task = open_family(TaskSpec("choice", "{text}", False, settings={**settings, "train_on": "answer"}))
    row = replace(rows(1)[0], label="A", choices=(" yes", " no"), choice_tokens=(4, 1), completion=" yes")
    said = [np.array([-4.0, -4.5])] * 20
    one, other = [row] * 20, [replace(row, choice_tokens=(1, 4))] * 20
    found = pair_figures(task, Side(one, said), Side(other, said), params)
    assert (found.one.value, found.other.value, found.better) == (1.0, 0.0, "one")


def test_the_exact_test_is_mcnemars_and_says_who_is_better(params: Params) -> None:
    """3 rows lost and 13 won of 100: 2 (C(16,0)+C(16,1)+C(16,2)+C(16,3)) / 2^16 = 0.02127."""
    one, other = np.ones(100), np.ones(100)
    other[:13], one[13:16] = 0, 0
    found = of_answers(one, other, params)
    assert found.p_value == pytest.approx(1394 / 2**16)
    assert (found.one.value, found.other.value) == (0.97, 0.87)
    assert found.difference.value == pytest.approx(0.1)
    assert (found.test, found.better) == ("exact McNemar test", "one")
    turned = of_answers(other, one, params)
    assert (turned.p_value, turned.better) == (found.p_value, "other")
    assert turned.difference.value == pytest.approx(-0.1)


def test_within_chance_or_of_few_groups_nobody_is_better(params: Params) -> None:
    one, other = np.ones(100), np.ones(100)
    other[:5], one[5:8] = 0, 0
    assert of_answers(one, other, params).better is None
    other[:40] = 0
    assert of_answers(one, other, params).better == "one"
    few = of_answers(one, other, params, grouped=10)
    assert (few.groups, few.better, few.test) == (10, None, "randomisation test of the groups' differences")


def test_a_test_has_the_name_of_what_it_does() -> None:
    alone, together = (Resampling(0.95, 100, 0, groups) for groups in (each_alone(4), numbered([0, 0, 1, 1])))
    assert exact_test_words(Mean("chrf"), alone) == "exact sign test"
    assert exact_test_words(Proportion("accuracy"), together) == "randomisation test of the groups' differences"
    assert "exchange groups" in exact_test_words(Correlation("pearson"), alone)


def compared(one: str, other: str, project: Path, params: Params, limit: int | None = None) -> Compared:
    with opened_systems([one, other], Naming(project)) as systems:
        asked = every_asked(WantedRows(limit=limit), systems, params, root=project)
        (found,) = compare_systems(systems[0], systems[1], asked, params, root=project)
    return found


def test_two_adapters_and_one_with_its_base_are_asked_once_each(project: Path, params: Params, tmp_path: Path) -> None:
    one, other = (str(project / "models" / name) for name in ("adapter", "other"))
    first = compared(one, other, project, params)
    assert (first.anew, first.figures.rows, len(first.predictions)) == (2 * ROWS, ROWS, ROWS)
    assert compared(other, one, project, params).anew == 0
    beside = compared("base", one, project, params)
    assert (beside.anew, beside.one.adapter_sha256) == (ROWS, None)
    assert beside.one.title.startswith("frozen base ")
    page = write_pair(tmp_path, first, command="reft compare a b", seed=0)
    assert re.fullmatch(r"adapter-and-other-on-the-project-s-test-rows-[0-9a-f]{8}\.html", page.name)
    names = {write_pair(tmp_path, each, command="", seed=0) for each in (first, titled("ы", first), titled("ю", first))}
    assert len(names) == 3, "what a file name cannot hold tells pages from each other"
    assert read_predictions(page.with_suffix(".parquet")) == list(first.predictions)
    record = read_json(page.with_suffix(".json"))
    assert record["systems"]["one"]["adapter_sha256"] == first.one.adapter_sha256
    assert record["figures"]["difference"]["value"] == first.figures.difference.value


def titled(title: str, found: Compared) -> Compared:
    return replace(found, one=replace(found.one, title=title))


def test_two_folders_of_one_name_are_called_by_their_paths(project: Path, params: Params, tmp_path: Path) -> None:
    one = project / "models" / "adapter"
    shutil.copytree(project / "models" / "other", tmp_path / "elsewhere" / "adapter")
    found = compared(str(one), str(tmp_path / "elsewhere" / "adapter"), project, params, limit=2)
    assert (found.one.title, found.other.title) == (str(one), str(tmp_path / "elsewhere" / "adapter"))


def test_two_that_are_the_same_are_refused(project: Path, params: Params) -> None:
    adapter = str(project / "models" / "adapter")
    with pytest.raises(PipelineError, match="two that are compared must differ"):
        compared(adapter, f"{adapter}/", project, params)
    with pytest.raises(PipelineError, match="an adapter must be named"):
        compared("base", "base", project, params)


@pytest.mark.parametrize(
    ("better", "said"),
    [
        ("one", "adapter is better than other: adapter leads by +10.0 points"),
        (None, "No difference beyond chance between adapter and other: adapter leads by +10.0 points"),
    ],
)
def test_the_page_answers_in_a_sentence_and_shows_rows_as_text(
    project: Path, params: Params, better: Literal["one"] | None, said: str
) -> None:
    """Twenty rows, of which the first system wins the two whose prompts are hostile."""
    one, other = (str(project / "models" / name) for name in ("adapter", "other"))
    found = compared(one, other, project, params, limit=2)
    right, wrong = np.ones(20), np.ones(20)
    wrong[:2] = 0
    figures = replace(of_answers(right, wrong, params), better=better, least_rows=10)
    hostile = [
        replace(row, prompt="<script>alert(1)</script>", adapter=replace(row.adapter, score=1.0),
                base=replace(row.base, score=0.0))
        for row in found.predictions
    ]  # fmt: skip
    planted = replace(found, figures=figures, predictions=hostile)
    assert pair_answer(planted).startswith(said)
    page = pair_page(planted, command="reft compare a b", seed=0)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "<script>alert" not in page
    assert "http" not in page.replace("http-equiv", "")
