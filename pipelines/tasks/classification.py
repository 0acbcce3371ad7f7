"""Classification: the model answers a prompt with one of a few words."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.contracts.prepared import Rejection, Row, Split
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import MAJORITY, Answer, Asked, Confidences, Reading, Target, TaskFamily
from pipelines.tasks.keys.classification import ACCURACY, F1, MACRO_F1, MATTHEWS, ClassificationParams, LabelParams
from pipelines.tasks.measures import Floats, LabelF1, Matthews, Measure, Places, Proportion
from pipelines.tasks.reader import reject
from pipelines.tasks.rows import Scalar, as_number, finite_number, same
from pipelines.tasks.words import check_words, probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["FAMILY", "Classification", "finite_number"]  # the last for versions that release 0.1.0 registered

log = logging.getLogger(__name__)

NOT_A_NUMBER = "the label is not a number"
NO_LABEL = "no label rule holds"
TWO_LABELS = "more than one label rule holds"
VALUES = (
    10_000  # of the label column, whose labels are remembered: with hundreds of rules, asking all of them takes long
)


class Classification(TaskFamily[ClassificationParams]):
    """Which of the labels' words follows the prompt, or which label a head chooses; measured by accuracy."""

    ASKS: ClassVar[Asked] = "choices"
    ANSWER: ClassVar[str] = "label"
    HUB: ClassVar[str] = "text-classification"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        words: dict[str, str] = dict(spec.settings["labels"])  # without words for an encoder, whose head says labels
        self.classes = tuple(words)
        self.outputs = len(words)
        self.measure: Measure = _measure(spec.settings.get("measure", ACCURACY), len(words))
        self._words = tuple(words.values())
        self._keys: ClassificationParams | None = None
        self._known: dict[tuple[type, Scalar], list[str]] = {}  # by value, the labels whose rules hold by these keys

    @classmethod
    def settings(cls, keys: ClassificationParams) -> dict[str, Any]:
        """The word that stands for each label, in the order of the reports; and a measure that is not accuracy.

        That one was the only one in release 0.1.0, whose adapters name none.
        """
        measure = {} if keys.measure == ACCURACY else {"measure": keys.measure}
        return {"labels": {name: label.word for name, label in keys.labels.items()}, **measure}

    def target(
        self,
        raw: RawRow,
        keys: ClassificationParams,
        tokenizer: PreTrainedTokenizerBase,  # noqa: ARG002
    ) -> Target | Rejection:
        """The label whose rule holds, and its word, if it has one."""
        value = raw.values[keys.label_column]
        if isinstance(value, str):
            value = value.strip()
        if not isinstance(value, str | int | float):
            return reject(raw, NO_LABEL, f"a {type(value).__name__}")  # not its text: it may be nested without end
        number = as_number(value)
        found = self._labels_of(value, number, keys)
        if len(found) == 1:
            return Target(keys.labels[found[0]].word or found[0], label=found[0])
        if found:
            return reject(raw, TWO_LABELS, f"{value}: {', '.join(found)}")
        numeric = any(label.values is None for label in keys.labels.values())
        return reject(raw, NOT_A_NUMBER if numeric and number is None else NO_LABEL, value)

    def _labels_of(self, value: Scalar, number: float | None, keys: ClassificationParams) -> list[str]:
        if self._keys is not keys:
            self._keys, self._known = keys, {}
        known = type(value), value  # 1 and True are equal, and not the same
        if known in self._known:
            return self._known[known]
        found = [name for name, label in keys.labels.items() if _holds(label, value, number)]
        if len(self._known) < VALUES:
            self._known[known] = found
        return found

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """The labels' words must be told apart."""
        check_words(dict(zip(self.classes, self._words, strict=True)), "prepare.labels", tokenizer)

    def check_split(self, split: Split, rows: Sequence[Row]) -> None:
        """At least two labels must be there; one that is missing is warned of."""
        present = {row.label for row in rows}
        if len(present) < 2:
            raise PipelineError(
                f"the {split} split must have at least two labels",
                got=f"{', '.join(present)} only, in {len(rows)} rows",
                do="Check prepare.labels against the label column, or take more rows.",
            )
        for label in self.classes:
            if label not in present:
                log.warning("no row of the %s split has the label %s", split, label)

    def choices(self, row: Row) -> tuple[str, ...]:  # noqa: ARG002  # every row has the same
        """The labels' words."""
        return self._words

    def head_target(self, row: Row) -> float:
        """The label's place."""
        return float(self.classes.index(row.label))

    def read(self, row: Row, answer: Answer) -> Reading:  # noqa: ARG002  # a label is read as it is
        """The likeliest label, and the probability of each, normalised over their words."""
        likely = probabilities([answer])[0]
        said = dict(zip(self.classes, map(float, likely), strict=True))
        return Reading(self.classes[int(likely.argmax())], {"probabilities": said})

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """Accuracy: 1 where the likeliest label is the right one. Of others the places of both, [rows, 2]."""
        return self._scored(self._answered(answers), rows)

    def fine_scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """The probability of the right label."""
        found: Floats = probabilities(answers)[np.arange(len(rows)), self._truth(rows)]
        return found

    def confidences(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Confidences:
        """The probability of the likeliest label, normalised over the labels' words."""
        right = self._answered(answers) == self._truth(rows)
        return Confidences(probabilities(answers).max(1), right.astype(np.float64))

    def baselines(self, rows: Sequence[Row]) -> dict[str, Floats]:
        """Always the label that most of these rows have, the first of equally many; and a label drawn by chance.

        The second has no figure of its own where a measure is no mean of rows.
        """
        truth = self._truth(rows)
        most = np.bincount(truth, minlength=len(self.classes)).argmax()
        always = {MAJORITY: self._scored(np.full(len(rows), most), rows)}
        return always | ({"chance": np.full(len(rows), 1 / len(self.classes))} if self.measure.is_mean else {})

    def summary(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:
        """Accuracy, and the mean of the labels' F1, in which a rare label counts as much as a common one.

        What the measure is stands elsewhere.
        """
        from sklearn.metrics import accuracy_score, f1_score

        truth, answered = self._truth(rows), self._answered(answers)
        found = {ACCURACY: accuracy_score(truth, answered), MACRO_F1: f1_score(truth, answered, average="macro")}
        return {name: float(value) for name, value in found.items() if name != self.measure.name}

    def figures(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and the number of rows of each label."""
        from sklearn.metrics import precision_recall_fscore_support

        places = range(len(self.classes))
        columns = precision_recall_fscore_support(
            self._truth(rows), self._answered(answers), labels=places, zero_division=0.0
        )
        return {
            label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for label, p, r, f, s in zip(self.classes, *columns, strict=True)
        }

    def _scored(self, answered: Places, rows: Sequence[Row]) -> Floats:
        truth = self._truth(rows)
        scores = answered == truth if self.measure.is_mean else np.column_stack([answered, truth])
        return scores.astype(np.float64)

    def _truth(self, rows: Sequence[Row]) -> Places:
        return np.array([self.classes.index(row.label) for row in rows])

    def _answered(self, answers: Sequence[Answer]) -> Places:
        return probabilities(answers).argmax(1)


FAMILY = Classification


def _measure(name: str, labels: int) -> Measure:
    if name == MATTHEWS:
        return Matthews(name, labels=labels)
    return Proportion(name) if name == ACCURACY else LabelF1(name, labels=labels, of=1 if name == F1 else None)


def _holds(label: LabelParams, value: Scalar, number: float | None) -> bool:
    if label.values is not None:
        return any(same(wanted, value) for wanted in label.values)
    if number is None:
        return False
    return (label.min is None or number >= label.min) and (label.max is None or number <= label.max)
