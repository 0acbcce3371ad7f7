"""An adapter on its base that answers rows: what the registered model and ``reft predict`` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.bases.load import load_base
from pipelines.contracts.base import BaseRecord
from pipelines.contracts.prepared import Rejection, Row
from pipelines.contracts.task import TaskSpec, prompt_task
from pipelines.errors import PipelineError
from pipelines.model.scores import Advance, AnyModel, ScoresError, ask
from pipelines.runtime.device import resolve_device
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.collect import TOKENLESS, TOO_LONG, text_tokens
from pipelines.tasks.family import Answer, Asked, TaskFamily, open_family
from pipelines.tasks.keys.mixture import TASK
from pipelines.tasks.keys.template import text_fields
from pipelines.tasks.prompts import second_text
from pipelines.tasks.reader import NO_DOMAIN, UNREADABLE, reject, special_tokens, usable_texts
from pipelines.tasks.rows import finite_number
from reft import ConeConfig, ReftEncoder, score_options, set_cone
from reft.adapters.any_method import load_method, read_info
from reft.data import prompt_tokens
from reft.models.limits import longest_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_SIZE = 32
NO_TASK = "the row must name one of the adapter's tasks"


@dataclass(frozen=True)
class Loss:
    """What a text costs, in nats, and its tokens; none of a text that is too long for the base."""

    nats: float
    tokens: int


class Answerer:
    """Reads rows as they were read for training, and answers them.

    Args:
        model: a base with its adapter, in evaluation mode.
        tokenizer: of the base.
        spec: the task that the adapter was trained on.
        longest: tokens that the base reads at most; 0 if it says none.
    """

    def __init__(self, model: AnyModel, tokenizer: PreTrainedTokenizerBase, spec: TaskSpec, *, longest: int) -> None:
        self.task = open_family(spec)
        self.columns = self.task.columns()
        self._parts = self.task.parts()
        self._model, self._tokenizer, self._longest = model, tokenizer, longest
        self._scale = 1.0
        self._special = special_tokens(tokenizer)
        self._lengths: dict[tuple[str, tuple[str, ...]], int] = {}

    def read(self, raw: RawRow) -> Row | Rejection:
        """Make the prompt of a row, or say which rule of training's rows it breaks."""
        if not self._parts:
            return self._read(self.task, "", raw)
        if raw.problem is not None:
            return reject(raw, UNREADABLE, raw.problem)
        name = raw.values.get(TASK)
        if not isinstance(name, str) or name not in self._parts:
            told = "nothing" if name is None else repr(name)
            return reject(raw, NO_TASK, f"{told} in the column {TASK!r}; the tasks are {', '.join(self._parts)}")
        return self._read(self._parts[name], name, raw)

    def asks(self, row: Row) -> Asked:
        """What the model is asked for a row that :meth:`read` made."""
        return self._of(row).ASKS

    def _of(self, row: Row) -> TaskFamily[Any]:
        return self._parts[row.task] if self._parts else self.task

    def _read(self, task: TaskFamily[Any], name: str, raw: RawRow) -> Row | Rejection:
        opened = task.opened(raw)
        if isinstance(opened, Rejection):
            return opened
        raw, columns = opened, task.columns()
        fields = text_fields(task.spec.template, task.spec.second_template)
        texts = usable_texts(raw, columns.needed, fields, self._special)
        if isinstance(texts, Rejection):
            return texts
        column, domain = columns.domain, None
        if column is not None:
            domain = finite_number(raw.values[column])
            if domain is None:
                return reject(raw, NO_DOMAIN, raw.values[column])
        own = task.own_choices(raw, self._tokenizer)
        if isinstance(own, Rejection):
            return own
        prompt = task.prompt(raw, texts, self._tokenizer)
        if isinstance(prompt, Rejection):
            return prompt
        row = Row(
            f"{raw.file}:{raw.line}",
            prompt,
            "",
            domain=domain,
            choices=own.choices,
            choice_tokens=own.choice_tokens,
            options=own.options,
            second=second_text(task.spec, texts),
            task=name,
        )
        if isinstance(self._model, ReftEncoder):
            tokens = text_tokens(self._tokenizer, row.prompt, row.second)
        else:
            length = len(prompt_tokens(self._tokenizer, prompt))
            if length == 0:
                return row.reject(TOKENLESS, prompt)
            tokens = length + self._answer_tokens(row)
        if self._longest and tokens > self._longest:
            return row.reject(TOO_LONG, f"{tokens}, and the base reads {self._longest}")
        return row

    @contextmanager
    def at_scale(self, scale: float) -> Iterator[None]:
        """Answer with the adapter at this strength inside the context; 1 is the adapter as trained.

        Raises:
            PipelineError: for what is no number, or too large a one, or where the method has no strength.
        """
        with ExitStack() as undo:
            try:
                undo.enter_context(self._model.at_scale(scale))
            except ValueError as error:
                raise PipelineError("scale must be a strength that the adapter can have", got=error) from None
            before, self._scale = self._scale, scale
            try:
                yield
            finally:
                self._scale = before

    def answer(self, rows: Sequence[Row], progress: Advance | None = None) -> list[dict[str, Any]]:
        """Answer rows that :meth:`read` made, each as its task names it.

        Raises:
            ScoresError: if the model gives no number for a row.
        """
        if not rows:
            return []
        answers = ask(self._model, self._tokenizer, self.task, rows, batch_size=BATCH_SIZE, progress=progress)
        return self.told(rows, answers)

    def with_tasks(self, rows: Sequence[Row]) -> list[tuple[TaskFamily[Any], Row]]:
        """Rows that :meth:`read` made with the tasks that they are of."""
        return [(self._of(row), row) for row in rows]

    def told(self, rows: Sequence[Row], answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """What the model said to rows, each as its task names it; errors as of :meth:`answer`."""
        for row, answer in zip(rows, answers, strict=True):
            if not isinstance(answer, str) and not np.isfinite(answer).all():
                trained = self._scale == 1
                do = "Train again." if trained else f"Give a scale nearer to 1 than {self._scale:g}."
                raise ScoresError("scores must be numbers", got=f"{answer} for {row.id}", do=do)
        said = []
        for row, answer in zip(rows, answers, strict=True):
            task = self._of(row)
            reading = task.read(row, answer)
            said.append({task.ANSWER: reading.value, **reading.details})
        return said

    def losses(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Loss]:
        """What each text costs a language model after its row's prompt, with the token that ends it, as in training.

        Args:
            rows: that :meth:`read` made.
            texts: one to each, without the space before it.

        Raises:
            PipelineError: of an encoder, which continues no text.
        """
        if isinstance(self._model, ReftEncoder):
            raise PipelineError("texts are what a language model says", got="an encoder")
        ended = [
            f"{'' if row.prompt[-1:].isspace() else ' '}{text}{self._tokenizer.eos_token}"
            for row, text in zip(rows, texts, strict=True)
        ]
        prompts = [prompt_tokens(self._tokenizer, row.prompt) for row in rows]
        said = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in ended]
        fits = [not self._longest or len(p) + len(s) <= self._longest for p, s in zip(prompts, said, strict=True)]
        places = [place for place, fit in enumerate(fits) if fit]
        found = [Loss(0.0, 0)] * len(rows)
        scores = score_options(
            self._model, [prompts[place] for place in places], [[said[place]] for place in places],
            batch_size=BATCH_SIZE, domains=[rows[place].domain for place in places],
        ) if places else []  # fmt: skip
        for place, score in zip(places, scores, strict=True):
            found[place] = Loss(-float(score[0]), len(said[place]))
        return found

    def _answer_tokens(self, row: Row) -> int:
        """How many tokens an answer may take."""
        task = self._of(row)
        choices = task.choices(row)
        known = self._lengths.get((row.task, choices))
        if known is None:
            words = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in choices]
            known = max([task.max_new_tokens, *map(len, words)])
            self._lengths = {(row.task, choices): known}  # one is kept: in most tasks all rows have the same choices
        return known


def open_answerer(adapter: Path, base: BaseRecord, *, root: Path = Path()) -> Answerer:
    """Load a base by its identity, made again from its source where the store lacks it, and the adapter on it.

    Args:
        adapter: the adapter directory.
        base: the record of its base.
        root: the project's root, for a ``file:`` source.

    Raises:
        PipelineError: if the base cannot be had, or the adapter does not say how its prompts are made.
        ValueError: if the adapter is not for this base, or broken.
    """
    spec = prompt_task(read_info(adapter).prompt)
    outputs = open_family(spec).outputs
    loaded = load_base(base, device=resolve_device("auto"), root=root, outputs=outputs)
    set_cone(loaded.model, ConeConfig(enabled=False))  # a prompt is not asked about again, so nothing of it is kept
    model = load_method(adapter, loaded.model, base_sha256=loaded.record.sha256).eval()
    return Answerer(model, loaded.tokenizer, spec, longest=longest_row(loaded.model) or 0)
