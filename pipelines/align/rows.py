"""The counterfactual rows that ``reft align`` works with: of the price-range task, or a file of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pipelines.errors import PipelineError
from pipelines.files import read_jsonl, sha256_json
from pipelines.params.align import AlignParams
from pipelines.sources.addresses import FileSource, own_path, parse_source
from reft import Encoded, encode
from reft.causal import Counterfactual, Taken
from reft.causal.price_range import ANSWERS, PRICE_RANGE, draw_counterfactuals, draw_questions

COLUMNS = ("base", "source", "answer", "counterfactual")
Rows = tuple[Counterfactual[Encoded], ...]


@dataclass(frozen=True)
class AlignData:
    """What an alignment is looked for with.

    Attributes:
        train: counterfactual rows to learn rotations from.
        validation: rows that choose among sites and dimensions.
        test: rows that are reported.
        asked: prompts that the model itself is asked, none of them taught.
        labels: their right answers, as places.
        taught: prompts with answers that an adapter may learn first; none for a file.
        answers: the answers' words.
        choices: their token ids.
    """

    train: Rows
    validation: Rows
    test: Rows
    asked: tuple[Encoded, ...]
    labels: tuple[int, ...]
    taught: tuple[Encoded, ...]
    answers: tuple[str, ...]
    choices: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """The hash of every row."""
        rows = [[row.base.input_ids, row.taken[0].source.input_ids, row.label] for row in self._rows()]
        asked = [[row.input_ids, label] for row, label in zip(self.asked, self.labels, strict=True)]
        return sha256_json([rows, asked, [row.input_ids for row in self.taught], self.choices])

    def _rows(self) -> Rows:
        return (*self.train, *self.validation, *self.test)


def make_data(align: AlignParams, tokenizer: Callable[..., Any], *, root: Path, seed: int) -> AlignData:
    """Draw or read the rows, as ``align.data`` says.

    Raises:
        PipelineError: for a file that is missing or breaks a rule, or answers that do not begin with different tokens.
    """
    if align.data == "price-range":
        return _price_range(align, tokenizer, seed)
    return _own(align, tokenizer, root)


def _price_range(align: AlignParams, tokenizer: Callable[..., Any], seed: int) -> AlignData:
    random = Random(seed)  # noqa: S311  (reproducible rows, no secret)
    taught_rows = align.teach.rows if align.teach is not None else 0
    drawn = draw_questions(taught_rows + 3 * align.questions, random)
    taught, rest = drawn[:taught_rows], drawn[taught_rows:]
    pools = [rest[place::3] for place in range(3)]
    counts = (align.train_rows, align.validation_rows, align.test_rows)

    def read(question: Any, completion: str = "") -> Encoded:
        return encode(tokenizer, question.prompt, completion)

    train, validation, test = (
        tuple(row.mapped(read) for row in draw_counterfactuals(pool, align.variable, count, random))
        for pool, count in zip(pools, counts, strict=True)
    )
    return AlignData(
        train=train,
        validation=validation,
        test=test,
        asked=tuple(read(question) for question in pools[2]),
        labels=tuple(PRICE_RANGE.label(question) for question in pools[2]),
        taught=tuple(read(question, ANSWERS[PRICE_RANGE.label(question)]) for question in taught),
        answers=ANSWERS,
        choices=_choices(ANSWERS, tokenizer),
    )


def _own(align: AlignParams, tokenizer: Callable[..., Any], root: Path) -> AlignData:
    source = parse_source(align.data)
    if not isinstance(source, FileSource):
        raise PipelineError("align.data must be price-range or a file: source", got=align.data, do="Correct it.")
    path = own_path(source, root)
    rows = [_checked(row, number, path) for number, row in enumerate(read_jsonl(path), start=1)]
    counts = (align.train_rows, align.validation_rows, align.test_rows)
    if len(rows) < sum(counts):
        raise PipelineError(
            f"{path.name} must have align.train_rows + validation_rows + test_rows = {sum(counts)} rows",
            got=len(rows),
            do="Lower them, or make more rows.",
        )
    answers = tuple(dict.fromkeys(row[key] for row in rows for key in ("answer", "counterfactual")))
    read = [_encoded(row, align.variable, answers, tokenizer) for row in rows]
    train, validation, test = _cut(read, counts)
    *_, asked = _cut(rows, counts)
    return AlignData(
        train=train,
        validation=validation,
        test=test,
        asked=tuple(row.base for row in test),
        labels=tuple(answers.index(row["answer"]) for row in asked),
        taught=(),
        answers=answers,
        choices=_choices(answers, tokenizer),
    )


def _cut(rows: Sequence[Any], counts: tuple[int, ...]) -> list[tuple[Any, ...]]:
    starts = [sum(counts[:place]) for place in range(len(counts))]
    return [tuple(rows[start : start + count]) for start, count in zip(starts, counts, strict=True)]


def _checked(row: Any, number: int, path: Path) -> Mapping[str, str]:
    if not isinstance(row, dict) or sorted(row) != sorted(COLUMNS) or not all(isinstance(v, str) for v in row.values()):
        raise PipelineError(
            f"a row of {path.name} is an object of the texts {', '.join(COLUMNS)}",
            got=f"{str(row)[:80]} in line {number}",
            do="base and source are prompts, answer is the base's, and counterfactual the one after the swap.",
        )
    return row


def _encoded(
    row: Mapping[str, str], variable: str, answers: tuple[str, ...], tokenizer: Callable[..., Any]
) -> Counterfactual[Encoded]:
    base, source = (encode(tokenizer, row[name], "") for name in ("base", "source"))
    return Counterfactual(base, (Taken(variable, source),), answers.index(row["counterfactual"]))


def _choices(answers: tuple[str, ...], tokenizer: Callable[..., Any]) -> tuple[int, ...]:
    ids = tuple(tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in answers)
    if len(answers) < 2 or len(set(ids)) < len(ids):
        raise PipelineError(
            "the answers must be two words or more that begin with different tokens of the base",
            got=", ".join(map(repr, answers)),
            do="Choose other words; most tokenizers want a space before them.",
        )
    return ids
