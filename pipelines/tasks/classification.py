"""Classification: the model answers a prompt with one of a few words."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from pipelines.contracts.prepared import Rejection, TaskSpec
from pipelines.errors import PipelineError, printable
from pipelines.params.data import LabelParams, PrepareParams, template_fields
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.prompts import render_prompt
from pipelines.tasks.rows import SHOWN, Candidate, Scalar, as_number, finite_number, normalised, same

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What no text is made of, but tab and line ends: NUL and its like, and halves of a surrogate pair, which no tokenizer
# takes. They come from a wrong decoding or a damaged file.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

UNREADABLE = "the row cannot be read"
MISSING = "a column is missing"
NOT_TEXT = "a column is not text"
EMPTY = "a text is empty"
SPECIAL = "a text holds a special token of the model"
CONTROL = "a text holds control characters"
NOT_A_NUMBER = "the label is not a number"
NO_DOMAIN = "the domain is not a finite number"
NO_LABEL = "no label rule holds"
TWO_LABELS = "more than one label rule holds"


class Classification:
    """Turns raw rows into candidates by params.yaml's template and label rules."""

    def __init__(self, params: PrepareParams, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check the words against the tokenizer.

        Raises:
            PipelineError: if two words are the same tokens, or ``chat`` is asked of a model without a chat template.
        """
        self.params = params
        self.fields = tuple(dict.fromkeys(template_fields(params.template)))
        others = (params.label_column, *((params.domain_column,) if params.domain_column is not None else ()))
        self.columns = tuple(dict.fromkeys((*self.fields, *others)))
        self.tokenizer = tokenizer
        self._special = tuple(token for token in tokenizer.all_special_tokens if token.strip())
        self._numeric = any(label.values is None for label in params.labels.values())
        if params.chat and not tokenizer.chat_template:
            raise PipelineError(
                "chat: true needs a model with a chat template", got="none", do="Set prepare.chat: false."
            )
        self._check_words()
        self._check_chat()

    def spec(self) -> TaskSpec:
        """Return what the later stages need to know."""
        words = {name: label.word for name, label in self.params.labels.items()}
        return TaskSpec("classification", self.params.template, self.params.chat, words, self.params.domain_column)

    def read(self, raw: RawRow) -> Candidate | Rejection:
        """Turn a row into a candidate, or say why it cannot be one."""
        texts = self._texts(raw)
        if isinstance(texts, Rejection):
            return texts
        label = self._label(raw)
        if isinstance(label, Rejection):
            return label
        column, domain = self.params.domain_column, None
        if column is not None:
            domain = finite_number(raw.values[column])
            if domain is None:
                return _reject(raw, NO_DOMAIN, raw.values[column])
        prompt = self.render(texts)
        key = "\x1f".join(normalised(text) for field, text in texts.items() if field != column)
        return Candidate(raw.file, raw.line, prompt, self.params.labels[label].word, label, key, domain)

    def render(self, texts: dict[str, str]) -> str:
        """Return the prompt of one row: the filled template, as a user's turn if ``chat``."""
        return render_prompt(self.tokenizer, template=self.params.template, chat=self.params.chat, texts=texts)

    def _texts(self, raw: RawRow) -> dict[str, str] | Rejection:
        if raw.problem is not None:
            return _reject(raw, UNREADABLE, raw.problem)
        missing = [column for column in self.columns if column not in raw.values]
        if missing:
            return _reject(raw, MISSING, ", ".join(missing))
        texts = {}
        for field in self.fields:
            value = raw.values[field]
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            if value is not None and not isinstance(value, str | int | float):
                return _reject(raw, NOT_TEXT, f"{field}: {type(value).__name__}")
            text = "" if value is None else str(value).strip()
            if not text:
                return _reject(raw, EMPTY, field)
            if _CONTROL.search(text):
                return _reject(raw, CONTROL, f"{field}: {text}")
            special = next((token for token in self._special if token in text), None)
            if special is not None:
                return _reject(raw, SPECIAL, special)
            texts[field] = text
        return texts

    def _label(self, raw: RawRow) -> str | Rejection:
        value = raw.values[self.params.label_column]
        if isinstance(value, str):
            value = value.strip()
        if not isinstance(value, str | int | float):
            return _reject(raw, NO_LABEL, f"a {type(value).__name__}")  # not its text: it may be nested without end
        number = as_number(value)
        found = [name for name, label in self.params.labels.items() if _holds(label, value, number)]
        if len(found) == 1:
            return found[0]
        if found:
            return _reject(raw, TWO_LABELS, f"{value}: {', '.join(found)}")
        return _reject(raw, NOT_A_NUMBER if self._numeric and number is None else NO_LABEL, value)

    def _check_chat(self) -> None:
        """Try the model's chat template once; it is a program of somebody else's."""
        try:
            self.render(dict.fromkeys(self.fields, "x"))
        except (TemplateError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise PipelineError(
                "the model's chat template must take a user's turn",
                got=f"{type(error).__name__}: {error}",
                do="Set prepare.chat: false, or mend the template.",
            ) from error

    def _check_words(self) -> None:
        seen: dict[tuple[int, ...], str] = {}
        for name, label in self.params.labels.items():
            special = next((token for token in self._special if token in label.word), None)
            if special is not None:
                raise PipelineError(
                    "a label's word must not hold a special token of the model",
                    got=f"{special} in {label.word!r} of {name}",
                    do="Choose another word in prepare.labels.",
                )
            ids = tuple(self.tokenizer(label.word, add_special_tokens=False)["input_ids"])
            if not ids or ids in seen:
                raise PipelineError(
                    "each label's word must have tokens of its own",
                    got=f"{label.word!r} of {name}, " + (f"the same as {seen[ids]}'s" if ids else "without tokens"),
                    do="Choose other words in prepare.labels.",
                )
            seen[ids] = name


def _holds(label: LabelParams, value: Scalar, number: float | None) -> bool:
    if label.values is not None:
        return any(same(wanted, value) for wanted in label.values)
    if number is None:
        return False
    return (label.min is None or number >= label.min) and (label.max is None or number <= label.max)


def _reject(raw: RawRow, reason: str, value: object) -> Rejection:
    return Rejection(raw.file, raw.line, reason, printable(str(value)[:SHOWN]))
