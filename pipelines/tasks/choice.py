"""Choice: which of a row's own options is right, told by the likelihood of each after the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np

from pipelines.contracts.prepared import Rejection, Row
from pipelines.contracts.task import TaskSpec
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.columns import Columns
from pipelines.tasks.family import MAJORITY, Answer, Asked, Confidences, Contrast, Reading, Target, TaskFamily
from pipelines.tasks.keys.choice import LISTED, ChoiceParams, Score, SplitParams
from pipelines.tasks.keys.classification import ACCURACY
from pipelines.tasks.keys.template import template_fields
from pipelines.tasks.measures import Floats, Measure, Proportion
from pipelines.tasks.options import LETTERS, NO_ANSWER, SAME, OptionReader, lettered, right_option
from pipelines.tasks.reader import reject, special_tokens
from pipelines.tasks.rows import comparable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Choice(TaskFamily[ChoiceParams]):
    """Which option follows the prompt; measured by accuracy.

    The score of an option is the log-probability of its text in nats: of all its tokens (``sum``, acc of
    lm-evaluation-harness), or divided by their number (``per_token``) or by that of the text's bytes (``per_byte``, its
    acc_bytes); or that of its ``letter`` alone.
    """

    ASKS: ClassVar[Asked] = "choices"
    ANSWER: ClassVar[str] = "choice"
    HUB: ClassVar[str] = "multiple-choice"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.measure: Measure = Proportion(ACCURACY)
        self._score: Score = spec.settings["score"]
        self._contrasted = spec.settings["train_on"] == "options"
        split: Mapping[str, str] | None = spec.settings["split"]
        self._options = OptionReader(
            tuple(spec.settings["option_columns"]),
            tuple(spec.settings["options"] or ()),
            None if split is None else SplitParams(**split),
        )

    @classmethod
    def settings(cls, keys: ChoiceParams) -> dict[str, Any]:
        """Where options stand, how they are scored, and what is trained."""
        names = ("split", "option_columns", "options", "score", "train_on")
        return keys.model_dump(include=set(names))

    def columns(self) -> Columns:
        """The template's and those of the options; or the text that all of them are parts of."""
        every = super().columns()
        choices = self._options.columns
        return replace(
            every,
            texts=tuple(name for name in every.texts if name != LISTED and name not in choices),
            choices=choices,
            optional=self._options.optional,
            whole=None if self._options.split is None else self._options.split.column,
        )

    def example(self) -> dict[str, Any]:
        """With options, which differ."""
        columns = self.columns().choices
        said = [f"Example {place}." for place in range(1, max(len(columns), 2) + 1)]
        own = {columns[0]: said} if len(columns) == 1 else dict(zip(columns, said, strict=False))
        return super().example() | own

    def opened(self, raw: RawRow) -> RawRow | Rejection:
        """The row with the parts of its text, and with its options listed where the template wants that."""
        parts = self._options.parts(raw)
        if isinstance(parts, Rejection) or parts.problem is not None or LISTED not in self._fields:
            return parts
        options = self._options.read(parts, ())
        return options if isinstance(options, Rejection) else _with(parts, LISTED, lettered(options))

    def own_choices(self, raw: RawRow, tokenizer: PreTrainedTokenizerBase) -> Target | Rejection:
        """The texts that may follow the prompt, each with the space before it."""
        options = self._options.read(raw, special_tokens(tokenizer))
        if isinstance(options, Rejection):
            return options
        space = "" if self.spec.chat or self.spec.template[-1:].isspace() else " "
        said = tuple(option.text for option in options)
        by_letter = self._score == "letter"
        shown = tuple(LETTERS[: len(options)]) if by_letter else said
        texts = tuple(f"{space}{text}" for text in shown)
        tokens = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        if len(set(tokens)) < len(tokens) or not all(tokens):
            return reject(raw, SAME, " | ".join(shown))
        return Target("", choices=texts, choice_tokens=tuple(map(len, tokens)), options=said if by_letter else ())

    def target(self, raw: RawRow, keys: ChoiceParams, tokenizer: PreTrainedTokenizerBase) -> Target | Rejection:
        """The text of the right option, and its letter; rows of one question are a group, whatever their options."""
        own, options = self.own_choices(raw, tokenizer), self._options.read(raw, ())
        if isinstance(own, Rejection):
            return own
        assert not isinstance(options, Rejection)
        answer = raw.values[keys.answer_column]
        right = right_option(answer, options, keys.answer_as)
        if right is None:
            return reject(raw, NO_ANSWER, answer)
        own_texts = [name for name in self.columns().texts if name in raw.values and name != keys.domain_column]
        question = [comparable(str(raw.values[name])) for name in own_texts]  # the same in each of its domains
        return replace(
            own, completion=own.choices[right], label=LETTERS[right], group="\x1f".join(question) if question else None
        )

    def contrast(self, row: Row) -> Contrast | None:
        """The right option against the others, by the scores that they are chosen by."""
        return Contrast(_right(row), tuple(self._lengths(row, self._score))) if self._contrasted else None

    def read(self, row: Row, answer: Answer) -> Reading:
        """The text of the option with the highest score, its letter and place, and the probability of each."""
        likely = self._probabilities(row, answer)
        place = int(likely.argmax())
        said = {"letter": LETTERS[place], "index": place, "probabilities": [float(each) for each in likely]}
        return Reading((row.options or row.choices)[place].strip(), said)

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """1 where the right option has the highest score."""
        return self._hits(rows, answers, self._score)

    def fine_scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """The probability of the right option."""
        pairs = zip(rows, answers, strict=True)
        return np.array([self._probabilities(row, answer)[_right(row)] for row, answer in pairs], dtype=np.float64)

    def confidences(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Confidences:
        """The probability of the option that is chosen, normalised over the row's options by their scores."""
        pairs = zip(rows, answers, strict=True)
        said = np.array([self._probabilities(row, answer).max() for row, answer in pairs], dtype=np.float64)
        return Confidences(said, self.scores(rows, answers))

    def baselines(self, rows: Sequence[Row]) -> dict[str, Floats]:
        """Always the place that is right in most of these rows; and an option drawn by chance."""
        right = [_right(row) for row in rows]
        most = min(Counter(right).items(), key=lambda each: (-each[1], each[0]))[0]
        return {
            MAJORITY: np.array([place == most for place in right], dtype=np.float64),
            "chance": np.array([1 / len(row.choices) for row in rows]),
        }

    def summary(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:
        """Accuracy by each way to score the same log-probabilities."""
        ways: list[Score] = [way for way in get_args(Score) if way != "letter"]
        if self._score == "letter":
            return {}
        return {f"{ACCURACY}_{way}": float(self._hits(rows, answers, way).mean()) for way in ways}

    @property
    def _fields(self) -> list[str]:
        return template_fields(self.spec.template)

    def _hits(self, rows: Sequence[Row], answers: Sequence[Answer], score: Score) -> Floats:
        pairs = zip(rows, answers, strict=True)
        chosen = [int((np.asarray(answer) / self._lengths(row, score)).argmax()) for row, answer in pairs]
        return np.array([place == _right(row) for place, row in zip(chosen, rows, strict=True)], dtype=np.float64)

    def _probabilities(self, row: Row, answer: Answer) -> Floats:
        scores = np.asarray(answer, np.float64) / self._lengths(row, self._score)
        likely = np.exp(scores - scores.max())
        found: Floats = likely / likely.sum()
        return found

    def _lengths(self, row: Row, score: Score) -> Floats:
        """What the log-probabilities are divided by, [options]: lengths in parts of their mean, so scores stay nats."""
        match score:
            case "per_token":
                lengths = np.array(row.choice_tokens, dtype=np.float64)
            case "per_byte":  # the space before an option is none of it, as in lm-evaluation-harness
                lengths = np.array([len(choice.strip().encode()) for choice in row.choices], dtype=np.float64)
            case _:
                return np.ones(len(row.choices))
        found: Floats = lengths / lengths.mean()
        return found


FAMILY = Choice


def _right(row: Row) -> int:
    return LETTERS.index(row.label)


def _with(raw: RawRow, column: str, value: str) -> RawRow:
    return RawRow(raw.file, raw.line, {**raw.values, column: value})
