"""What search, train and evaluate share: from prepared rows and a recipe to a model that can be fitted and scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.bases.load import LoadedBase, load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import Row, Split, data_sha256, read_rows
from pipelines.contracts.task import TaskSpec, read_task, task_sha256
from pipelines.errors import PipelineError
from pipelines.model.cone import cone_config
from pipelines.model.forms import DomainRange
from pipelines.params.base import Kind
from pipelines.params.computation import Computation
from pipelines.runtime.device import resolve_device
from pipelines.tasks.family import Contrast, TaskFamily, open_family
from reft import Encoded, Labelled, Question, encode, set_cone
from reft.models.heads import encode_text
from reft.models.limits import check_rows

TrainingRow = Encoded | Question | Labelled
"""A row as it is trained on: of a decoder a completion or choices, of an encoder texts and what a head is to answer."""

LOWEST = 4  # layers whose outputs are kept of each row, at most; of the default base one is a twentieth of the keys


@dataclass(frozen=True)
class Workspace:
    """The frozen base, its tokenizer and the prepared data, ready for use."""

    base: PreTrainedModel
    kind: Kind
    tokenizer: PreTrainedTokenizerBase
    base_sha256: str
    base_source: str
    data: Path
    data_sha256: str
    task: TaskSpec
    task_sha256: str
    pad_id: int

    @cached_property
    def family(self) -> TaskFamily[Any]:
        """What is asked of the rows, and how answers are read."""
        return open_family(self.task)

    def encoded(self, split: Split, limit: int | None = None) -> list[TrainingRow]:
        """The rows of a split as they are trained on, in file order."""
        return self.training_rows(self.rows(split)[:limit])

    def training_rows(self, rows: Sequence[Row]) -> list[TrainingRow]:
        """Rows as token ids: of each the completion, or all of its choices where the task sets them against each other.

        For an encoder, its texts, and what its head is to answer.

        Raises:
            BaseLimitError: if the base has no embedding for a token, or not so many positions.
        """
        if self.kind == "encoder":
            return [self._texts(row) for row in rows]
        return [self._training_row(row, self.family.contrast(row)) for row in rows]

    def _texts(self, row: Row) -> Labelled:
        """A row's text, or pair of texts, as token ids."""
        texts = encode_text(self.tokenizer, row.prompt, row.second or None, label=self.family.head_target(row))
        check_rows(self.base, [texts])
        return texts

    def _training_row(self, row: Row, contrast: Contrast | None) -> TrainingRow:
        if contrast is None:
            return self._joined(row, row.completion)
        return Question(tuple(self._joined(row, choice) for choice in row.choices), contrast.right, contrast.lengths)

    def _joined(self, row: Row, completion: str) -> Encoded:
        """A row as token ids, prompt and completion tokenised apart."""
        encoded = encode(self.tokenizer, row.prompt, completion, domain=row.domain)
        check_rows(self.base, [encoded])
        return encoded

    def rows(self, split: Split) -> list[Row]:
        """The rows of a split."""
        return read_rows(self.data, split)

    def domain_range(self) -> DomainRange:
        """The lowest and the highest domain of all training rows, whatever part of them a training takes.

        Raises:
            PipelineError: if the rows have none.
        """
        found = [row.domain for row in self.rows("train") if row.domain is not None]
        if not found:
            raise PipelineError(
                "the prepared rows must have a domain", got="none", do="Set prepare.domain_column, and run prepare."
            )
        return min(found), max(found)


def open_workspace(
    computation: Computation, *, root: Path, base: Path, prepared: Path, lowest: Iterable[int] = ()
) -> Workspace:
    """Fix threads and device, load the base, open the prepared data.

    Args:
        computation: device, threads, and what is kept of the base.
        root: the project's root.
        base: base.json.
        prepared: the folder of prepared data.
        lowest: the lowest edited layer of each recipe to come, where there are several.
    """
    torch.set_num_threads(computation.run.threads)
    record = read_base(base)
    task = read_task(prepared)
    loaded: LoadedBase = load_base(
        record, device=resolve_device(computation.run.device), root=root, outputs=open_family(task).outputs
    )
    cone = cone_config(computation.cone, root, record.sha256)
    set_cone(loaded.model, replace(cone, layers=frozenset(sorted(set(lowest))[:LOWEST])))
    tokenizer = loaded.tokenizer
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Workspace(
        base=loaded.model,
        kind=record.kind,
        tokenizer=tokenizer,
        base_sha256=loaded.record.sha256,
        base_source=loaded.record.source,
        data=prepared,
        data_sha256=data_sha256(prepared),
        task=task,
        task_sha256=task_sha256(prepared),
        pad_id=int(pad_id or 0),  # padding is masked out by position, so any id will do
    )
