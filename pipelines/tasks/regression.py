"""Regression: the answer is a number, which a decoder says by words for numbers and an encoder by a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.contracts.prepared import Rejection, Row, Split
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import CONSTANT, Answer, Asked, Reading, Target, TaskFamily
from pipelines.tasks.keys.regression import RegressionParams
from pipelines.tasks.measures import PEARSON, SPEARMAN, Correlation, Floats, Measure
from pipelines.tasks.reader import reject
from pipelines.tasks.rows import finite_number
from pipelines.tasks.words import check_words, probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_A_NUMBER = "the answer is not a number"
OUTSIDE = "the number is not between low and high"


class Regression(TaskFamily[RegressionParams]):
    """How much; measured by the correlation of the answers with the right numbers.

    A decoder is trained on the word of the nearest number, and its answer is the expected value of the words' numbers;
    an encoder's head is trained on the number itself, by the squared error.
    """

    ASKS: ClassVar[Asked] = "number"
    ANSWER: ClassVar[str] = "number"
    HUB: ClassVar[str] = "text-classification"  # where hubs put scores of texts too

    def __init__(self, spec: TaskSpec) -> None:
        self.spec, self.outputs = spec, 1
        self.measure: Measure = Correlation(spec.settings["measure"])
        self._other = Correlation(SPEARMAN if self.measure.name == PEARSON else PEARSON)
        self._low, self._high = float(spec.settings["low"]), float(spec.settings["high"])
        words: dict[str, float] = dict(spec.settings["words"] or {})
        self._words, self._numbers = tuple(words), np.array(list(words.values()), np.float64)

    @classmethod
    def settings(cls, keys: RegressionParams) -> dict[str, Any]:
        """The bounds, the words with their numbers, and which correlation it is measured by."""
        return {"low": keys.low, "high": keys.high, "words": keys.words, "measure": keys.measure}

    def target(
        self,
        raw: RawRow,
        keys: RegressionParams,
        tokenizer: PreTrainedTokenizerBase,  # noqa: ARG002
    ) -> Target | Rejection:
        """The number, and the word of the nearest one; of two as near the one that is named first."""
        value = raw.values[keys.number_column]
        number = finite_number(value)
        if number is None:
            return reject(raw, NOT_A_NUMBER, value)
        if not self._low <= number <= self._high:
            return reject(raw, OUTSIDE, value)
        said = self._words[int(np.abs(self._numbers - number).argmin())] if self._words else repr(number)
        return Target(said, references=(repr(number),))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """The numbers' words must be told apart."""
        words = {f"{number:g}": word for word, number in zip(self._words, self._numbers, strict=True)}
        check_words(words, "prepare.words", tokenizer)

    def check_split(self, split: Split, rows: Sequence[Row]) -> None:
        """Numbers that are all the same go together with nothing."""
        if len(set(self._right(rows))) < 2:
            raise PipelineError(
                f"the {split} split must have at least two numbers",
                got=f"{rows[0].references[0]} only, in {len(rows)} rows",
                do="Check prepare.number_column, or take more rows.",
            )

    def choices(self, row: Row) -> tuple[str, ...]:  # noqa: ARG002  # every row has the same
        """The numbers' words."""
        return self._words

    def head_target(self, row: Row) -> float:
        """The number, counted from ``low`` as 0 to ``high`` as 1: so no head has to learn how large the numbers are."""
        return (float(row.references[0]) - self._low) / (self._high - self._low)

    def read(self, row: Row, answer: Answer) -> Reading:  # noqa: ARG002  # a number is read as it is
        """The number."""
        return Reading(float(self._said([answer])[0]))

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """What was said and what is right: [rows, 2]."""
        return np.column_stack([self._said(answers), self._right(rows)])

    def fine_scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """How near the right number the answer is: 0 at it, and the lower the farther."""
        return -np.abs(self._said(answers) - self._right(rows))

    def baselines(self, rows: Sequence[Row]) -> dict[str, Floats]:
        """Always the mean of the right numbers, which goes together with nothing: 0."""
        right = self._right(rows)
        return {CONSTANT: np.column_stack([np.full(len(rows), right.mean()), right])}

    def summary(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:
        """The other correlation, and the mean distance from the right numbers."""
        other = self._other.add_up(self.scores(rows, answers))
        return {self._other.name: other, "mean_absolute_error": float(-self.fine_scores(rows, answers).mean())}

    def _said(self, answers: Sequence[Answer]) -> Floats:
        """The expected value of the words' numbers under a decoder; or a head's, in their scale and bounds."""
        if all(isinstance(answer, float) for answer in answers):
            return self._low + (self._high - self._low) * np.clip(np.array(answers, np.float64), 0.0, 1.0)
        found: Floats = probabilities(answers) @ self._numbers
        return found

    def _right(self, rows: Sequence[Row]) -> Floats:
        return np.array([float(row.references[0]) for row in rows])


FAMILY = Regression
