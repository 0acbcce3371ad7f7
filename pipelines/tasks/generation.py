"""Generation: the model answers a prompt in its own words, up to the token that ends a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipelines.contracts.prepared import Rejection, Row
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import Answer, Asked, Reading, Target, TaskFamily
from pipelines.tasks.keys.generation import EXACT_MATCH, GenerationParams
from pipelines.tasks.measures import Floats, Measure, Proportion
from pipelines.tasks.reader import special_tokens, usable_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Generation(TaskFamily[GenerationParams]):
    """What follows the prompt; measured by exact match, but for case, spacing and a full stop at the end."""

    ASKS: ClassVar[Asked] = "text"
    ANSWER: ClassVar[str] = "text"
    HUB: ClassVar[str] = "text-generation"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.measure: Measure = Proportion(EXACT_MATCH)
        self.max_new_tokens = int(spec.settings["max_new_tokens"])

    @classmethod
    def settings(cls, keys: GenerationParams) -> dict[str, Any]:
        """How long an answer may be."""
        return {"max_new_tokens": keys.max_new_tokens}

    def target(self, raw: RawRow, keys: GenerationParams, tokenizer: PreTrainedTokenizerBase) -> Target | Rejection:
        """The reference, and the token that says that it is all: without, a model would never learn to stop."""
        text = usable_text(raw, keys.answer_column, special_tokens(tokenizer))
        if isinstance(text, Rejection):
            return text
        space = "" if keys.chat or keys.template[-1:].isspace() else " "
        return Target(f"{space}{text}{tokenizer.eos_token}", references=(text,))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """There must be a token that ends a text."""
        end = tokenizer.eos_token_id
        if end is None or tokenizer(tokenizer.eos_token, add_special_tokens=False)["input_ids"] != [end]:
            raise PipelineError(
                "task generation needs a base with a token that ends a text",
                got=tokenizer.eos_token,
                do="Set eos_token in the base's tokenizer_config.json, or take another base.",
            )

    def read(self, row: Row, answer: Answer) -> Reading:  # noqa: ARG002  # a text is read as it is
        """The text, without the space around it."""
        return Reading(str(answer).strip())

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """1 where the text is a reference."""
        said = zip(rows, answers, strict=True)
        return np.array([_plain(str(answer)) in map(_plain, row.references) for row, answer in said], dtype=np.float64)


FAMILY = Generation


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
