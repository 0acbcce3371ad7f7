"""Generation: the model answers a prompt in its own words, up to the token that ends a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.contracts.prepared import Rejection, Row, Split
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.columns import Columns
from pipelines.tasks.conversations import ANSWER, answered, asked, beginning, turns_of
from pipelines.tasks.family import CONSTANT, EXAMPLE, MAJORITY, Answer, Asked, Reading, Target, TaskFamily
from pipelines.tasks.keys.generation import EXACT_MATCH, GenerationParams
from pipelines.tasks.keys.template import fill_template, template_fields
from pipelines.tasks.measures import Floats, Mean, Measure, Proportion
from pipelines.tasks.overlap import CHRF_MEASURE, CorpusChrf, chrf_statistics, rouge
from pipelines.tasks.prompts import TEMPLATE_ERRORS, answer_turn, render_turns
from pipelines.tasks.reader import SPECIAL, reject, special_tokens, usable_text
from pipelines.tasks.readers import Math, open_reader, plain, right_answer
from pipelines.tasks.rows import comparable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_ANSWER = "the reference has no answer that the reader finds"
OTHER_ANSWER = "the solution has another answer than the reference"
NOT_TAKEN = "the model's chat template does not take the conversation"
NO_TURN = "the model's chat template does not write the answer behind the prompt that it asks with"
TOO_LONG = "the reference has more tokens than max_new_tokens"


class Generation(TaskFamily[GenerationParams]):
    """What follows the prompt. A reader finds the answer in it, which is right (exact match) or like the reference."""

    ASKS: ClassVar[Asked] = "text"
    ANSWER: ClassVar[str] = "text"
    HUB: ClassVar[str] = "text-generation"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.measure: Measure = _measure(spec.settings["measure"])
        self.max_new_tokens = int(spec.settings["max_new_tokens"])
        self._turns = template_fields(spec.template)[0] if spec.settings["conversation"] else None
        self._reader = open_reader(spec.settings["reader"])
        self._apart = isinstance(self._reader, Math)  # answers are compared in a process of its own, not row by row

    @classmethod
    def settings(cls, keys: GenerationParams) -> dict[str, Any]:
        """How long an answer may be, how it is read, and what it is measured by."""
        told = keys.model_dump(include={"max_new_tokens", "reader", "measure"})
        return {**told, "conversation": keys.answer_column is None}

    def columns(self) -> Columns:
        """The template's, of which one may hold conversations."""
        return replace(super().columns(), turns=self._turns)

    def expanded(self, raw: RawRow, keys: GenerationParams) -> Iterable[RawRow | Rejection]:
        """A row for each answer of a conversation."""
        return (raw,) if self._turns is None else answered(raw, self._turns, keys.max_tokens)

    def opened(self, raw: RawRow) -> RawRow | Rejection:
        """The row with its conversation as one text."""
        return raw if self._turns is None else asked(raw, self._turns)

    def prompt(self, raw: RawRow, texts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> str | Rejection:
        """The template, or the conversation by the model's chat template, which may not take it."""
        if self._turns is None:
            return super().prompt(raw, texts, tokenizer)
        turns = turns_of(texts[self._turns])
        said = (token for token in special_tokens(tokenizer) for turn in turns if token in turn["content"])
        if (found := next(said, None)) is not None:  # which a quotation mark in it hides in the turns as one text
            return reject(raw, SPECIAL, found)
        try:
            return render_turns(tokenizer, turns)
        except TEMPLATE_ERRORS as error:
            return reject(raw, NOT_TAKEN, error)

    def example(self) -> dict[str, Any]:
        """Of a conversation, one turn."""
        row = super().example()
        return row if self._turns is None else {self._turns: [{"role": "user", "content": EXAMPLE}]}

    def target(self, raw: RawRow, keys: GenerationParams, tokenizer: PreTrainedTokenizerBase) -> Target | Rejection:
        """The reference, and the token that says that it is all: without, a model would never learn to stop."""
        special = special_tokens(tokenizer)
        reference = usable_text(raw, keys.answer_column or ANSWER, special)
        solution = reference if keys.solution_column is None else usable_text(raw, keys.solution_column, special)
        if isinstance(reference, Rejection):
            return reference
        if isinstance(solution, Rejection):
            return solution
        worked = None if keys.solution_column is None else solution
        found = right_answer(self._reader, reference, worked)
        if found is None:
            return reject(raw, NO_ANSWER, reference)
        (right, compared), told = found, self._reader.read(solution)
        if told is None:
            return reject(raw, NO_ANSWER, solution)
        if worked is not None and not (self._apart or self._reader.same(told, right)):
            return reject(raw, OTHER_ANSWER, f"{told}, not {right}")
        try:
            completion = self._completion(raw, solution, tokenizer)
        except TEMPLATE_ERRORS as error:
            return reject(raw, NOT_TAKEN, error)
        if completion is None:
            return reject(raw, NO_TURN, solution)
        said = completion.removesuffix(str(tokenizer.eos_token))
        tokens = len(tokenizer(said, add_special_tokens=False)["input_ids"])
        if tokens > keys.max_new_tokens:
            return reject(raw, TOO_LONG, tokens)
        group = None if self._turns is None else comparable(beginning(turns_of(str(raw.values[self._turns]))))
        return Target(completion, references=(compared,), group=group)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """There must be a token that ends a text."""
        end = tokenizer.eos_token_id
        if end is None or tokenizer(tokenizer.eos_token, add_special_tokens=False)["input_ids"] != [end]:
            raise PipelineError(
                "task generation needs a base with a token that ends a text",
                got=tokenizer.eos_token,
                do="Set eos_token in the base's tokenizer_config.json, or take another base.",
            )

    def check_split(self, split: Split, rows: Sequence[Row]) -> None:
        """What rows are measured by must be mathematics, where it is compared in a process of its own."""
        if split == "train" or not self._apart:
            return
        references = [row.references[0] for row in rows]
        right = self._reader.judge([(text, text) for text in references])
        wrong = [text for text, equal in zip(references, right, strict=True) if not equal]
        if wrong:
            raise PipelineError(
                f"each reference of the {split} split must be mathematics, equal to itself as math-verify reads it",
                got=f"{wrong[0]!r}, and {len(wrong)} of {len(rows)} in all",
                do="Take those rows out, or another prepare.reader.",
            )

    def read(self, row: Row, answer: Answer) -> Reading:  # noqa: ARG002  # a text is read whatever was asked
        """The text, without the space around it, and what the reader finds in it."""
        text = str(answer).strip()
        return Reading(text, {"answer": self._reader.read(text)} if self._reader.shown else {})

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """Exact match: 1 where the answer is a reference's. ROUGE: its F1. chrF: what is counted, [rows, 18]."""
        if self.measure.name == EXACT_MATCH:
            return np.array([right or False for right in self._judged(rows, answers)], dtype=np.float64)
        said = [self._reader.read(str(answer)) for answer in answers]
        rights = [[str(self._reader.read(text)) for text in row.references] for row in rows]
        pairs = [("" if value is None else str(value), right) for value, right in zip(said, rights, strict=True)]
        return chrf_statistics(pairs) if self.measure.name == CHRF_MEASURE else rouge(self.measure.name, pairs)

    def fine_scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """The score of each row by itself."""
        scores = self.scores(rows, answers)
        return self.measure.by_row(scores) if isinstance(self.measure, CorpusChrf) else scores

    def baselines(self, rows: Sequence[Row]) -> dict[str, Floats]:
        """Always the commonest reference: the majority where answers are right or wrong, else a constant answer.

        None where answers are compared in a process of their own, since it is not known which references are one.
        """
        if self._apart:
            return {}
        right = [self._reader.read(row.references[0]) for row in rows]
        exact = self.measure.name == EXACT_MATCH
        alike = [plain(value) if exact and isinstance(value, str) else value for value in right]  # as they are compared
        commonest = Counter(alike).most_common(1)[0][0]
        said = str(rows[alike.index(commonest)].references[0])
        return {MAJORITY if exact else CONSTANT: self.scores(rows, [said] * len(rows))}

    def summary(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:
        """How many answers the reader finds nothing in; they are wrong."""
        if self._apart:
            return {"unreadable_answers": self._judged(rows, answers).count(None)}
        return {"unreadable_answers": [self._reader.read(str(answer)) for answer in answers].count(None)}

    def _completion(self, raw: RawRow, text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """What is trained on after the prompt, up to its end; None where the chat template does not let it follow."""
        if not self.spec.chat:
            space = "" if self.spec.template[-1:].isspace() else " "
            return f"{space}{text}{tokenizer.eos_token}"
        if self._turns is not None:
            return answer_turn(tokenizer, turns_of(str(raw.values[self._turns])), text)
        texts = {name: str(raw.values[name]).strip() for name in self.columns().texts}
        prompt = fill_template(self.spec.template, texts)
        return answer_turn(tokenizer, [{"role": "user", "content": prompt}], text)

    def _judged(self, rows: Sequence[Row], answers: Sequence[Answer]) -> list[bool | None]:
        """Whether each answer is right, by any of its references; None where it cannot be read."""
        every = zip(rows, answers, strict=True)
        pairs = [(str(answer), reference) for row, answer in every for reference in row.references]
        judged = iter(self._reader.judge(pairs))
        found: list[bool | None] = []
        for row in rows:
            of_row = [next(judged) for _ in row.references]
            found.append(None if of_row.count(None) == len(of_row) else any(of_row))
        return found


FAMILY = Generation


def _measure(name: str) -> Measure:
    if name == EXACT_MATCH:
        return Proportion(name)
    return CorpusChrf() if name == CHRF_MEASURE else Mean(name)
