"""From a data file's row to a row of a task: what all families have in common, texts and the prompt made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.contracts.prepared import SHOWN, Rejection, Row
from pipelines.errors import PipelineError, printable
from pipelines.params.base import Kind
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import TaskFamily
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.prompts import TEMPLATE_ERRORS, chance_in, render_prompt, second_text
from pipelines.tasks.rows import comparable, finite_number

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What no text is made of, but tab and line ends: NUL and its like, and halves of a surrogate pair, which no tokenizer
# takes. They come from a wrong decoding or a damaged file.
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

UNREADABLE = "the row cannot be read"
MISSING = "a column is missing"
NOT_TEXT = "a column is not text"
EMPTY = "a text is empty"
SPECIAL = "a text holds a special token of the model"
CONTROL = "a text holds control characters"
NO_DOMAIN = "the domain is not a finite number"


class RowReader:
    """Turns raw rows into rows of a task.

    Args:
        keys: the section ``prepare``.
        task: what the keys describe.
        tokenizer: of the base.
        kind: of the base: an encoder answers with a head, so its tokens need not tell answers apart.
        kept: columns whose values rows are to have beside all that, where they have one.

    Raises:
        PipelineError: if the base's tokens cannot tell the task's answers apart, or ``chat`` is asked of a model
            without a chat template that takes a user's turn.
    """

    def __init__(
        self,
        keys: PrepareParams,
        task: TaskFamily[Any],
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind = "decoder",
        *,
        kept: Sequence[str] = (),
    ) -> None:
        self.tokenizer, self.kind, self.kept = tokenizer, kind, tuple(kept)
        self._own_columns = keys.row_columns()
        self.columns = tuple(dict.fromkeys((*self._own_columns, *kept)))
        self.task, self._keys = task, keys
        self._fields = keys.text_columns()
        # A row may lack its group, and options beyond the second; not where something else reads the same column.
        optional = task.columns().optional
        read = {*self._fields, keys.domain_column, *(name for name in keys.task_columns() if name not in optional)}
        self._needed = [name for name in self._own_columns if name in read]
        self._special = special_tokens(tokenizer)
        if keys.chat and not tokenizer.chat_template:
            raise PipelineError(
                "chat: true needs a model with a chat template", got="none", do="Set prepare.chat: false."
            )
        if kind == "decoder":
            task.check_tokenizer(tokenizer)
        self._check_chat()

    def read_all(self, raw: RawRow) -> Iterator[Row | Rejection]:
        """Turn a row of the data into those of the task that it stands for, or say why it cannot be any."""
        for each in self.task.expanded(raw, self._keys):
            yield each if isinstance(each, Rejection) else self.read(each)

    def read(self, raw: RawRow) -> Row | Rejection:
        """Turn a row into one of the task, or say why it cannot be one."""
        opened = self.task.opened(raw)
        if isinstance(opened, Rejection):
            return opened
        raw = opened
        texts = usable_texts(raw, self._needed, self._fields, self._special)
        if isinstance(texts, Rejection):
            return texts
        prompt = self.task.prompt(raw, texts, self.tokenizer)
        if isinstance(prompt, Rejection):
            return prompt
        target = self.task.target(raw, self._keys, self.tokenizer)
        if isinstance(target, Rejection):
            return target
        column, domain = self._keys.domain_column, None
        if column is not None:
            domain = finite_number(raw.values[column])
            if domain is None:
                return reject(raw, NO_DOMAIN, raw.values[column])
        own = [text for field, text in texts.items() if field != column]
        return Row(
            id=f"{raw.file}:{raw.line}",
            prompt=prompt,
            completion=target.completion,
            label=target.label,
            domain=domain,
            choices=target.choices,
            choice_tokens=target.choice_tokens,
            options=target.options,
            references=target.references,
            group=_group(raw, self._keys.group_column) or target.group,
            second=second_text(self.task.spec, texts),
            key="\x1f".join(map(comparable, (*own, *sorted(target.choices)))),
            slices={name: str(value) for name in self.kept if (value := present(raw.values.get(name))) is not None},
        )

    def _check_chat(self) -> None:
        """Try the model's chat template once; it is a program of somebody else's."""
        if self._keys.chat and (chance := chance_in(self.tokenizer.get_chat_template())):
            raise PipelineError(
                "the model's chat template must give the same prompt each time",
                got=f"a template with {chance}",
                do="Set prepare.chat: false, or take that out of the template.",
            )
        try:
            render_prompt(self.tokenizer, template="{x}", chat=self._keys.chat, texts={"x": "x"})
        except TEMPLATE_ERRORS as error:
            raise PipelineError(
                "the model's chat template must take a user's turn",
                got=f"{type(error).__name__}: {error}",
                do="Set prepare.chat: false, or mend the template.",
            ) from error


def _group(raw: RawRow, column: str | None) -> str | None:
    """What the row belongs to; None where nothing stands in its column, as where a pattern has no such part."""
    value = None if column is None else present(raw.values.get(column))
    return comparable(str(value)) or None if value is not None else None


def usable_texts(
    raw: RawRow, columns: Sequence[str], fields: Sequence[str], special: tuple[str, ...]
) -> dict[str, str] | Rejection:
    """The texts that a prompt is made of, or why they cannot be used.

    Args:
        raw: a data file's row.
        columns: that it must have.
        fields: those of them that hold the texts.
        special: tokens that no text may hold.
    """
    if raw.problem is not None:
        return reject(raw, UNREADABLE, raw.problem)
    missing = [column for column in columns if column not in raw.values]
    if missing:
        return reject(raw, MISSING, ", ".join(missing))
    texts = {}
    for field in fields:
        text = usable_text(raw, field, special)
        if isinstance(text, Rejection):
            return text
        texts[field] = text
    return texts


def present(value: Any) -> Any:
    """A cell's value; None for what a frame has where there is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def usable_text(raw: RawRow, column: str, special: tuple[str, ...]) -> str | Rejection:
    """The text in a column, or why it is none that a model can be asked or trained on."""
    value = present(raw.values[column])
    if value is not None and not isinstance(value, str | int | float):
        return reject(raw, NOT_TEXT, f"{column}: {type(value).__name__}")
    text = "" if value is None else str(value).strip()
    if not text:
        return reject(raw, EMPTY, column)
    if CONTROLS.search(text):
        return reject(raw, CONTROL, f"{column}: {text}")
    found = next((token for token in special if token in text), None)
    return text if found is None else reject(raw, SPECIAL, found)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What people read as text and the model as a token of its own."""
    return tuple(token for token in tokenizer.all_special_tokens if token.strip())


def reject(raw: RawRow, reason: str, value: object) -> Rejection:
    """The rejection of a raw row."""
    return Rejection(raw.file, raw.line, reason, printable(str(value)[:SHOWN]))
