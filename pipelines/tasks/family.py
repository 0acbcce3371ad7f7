"""What a task family is: how its rows are made, what the model is asked, how an answer is read, and its measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.prepared import Rejection, Row, Split
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.columns import Columns
from pipelines.tasks.keys.mixture import MIXTURE, MixtureParams
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.keys.table import FAMILIES
from pipelines.tasks.keys.template import text_fields
from pipelines.tasks.measures import Floats, Measure
from pipelines.tasks.prompts import render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Asked = Literal["choices", "text", "number", "each"]
Answer = Floats | str | float
"""What the model says to one row: the log-probability of each choice in nats, a text, or a head's number.

A decoder that is asked for a number says how likely each of the row's choices is, which the family reads.
"""

EXAMPLE = "An example text."
MAJORITY = "majority"
"""The baseline that always gives the commonest answer."""

CONSTANT = "constant"
"""The baseline that gives one answer where answers are not right or wrong, but nearer or farther."""

Keys = TypeVar("Keys", bound=PrepareParams, contravariant=True)


@dataclass(frozen=True)
class Target:
    """What a raw row says is right; the fields are those of :class:`pipelines.contracts.prepared.Row`."""

    completion: str
    label: str = ""
    choices: tuple[str, ...] = ()
    choice_tokens: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True)
class Contrast:
    """Which of a row's choices is right, and what the log-likelihood of each is divided by to be compared."""

    right: int
    lengths: tuple[float, ...]


@dataclass(frozen=True)
class Reading:
    """An answer as people and programs read it: its value, and what else is known of it, by name."""

    value: str | float
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Confidences:
    """Of each row the probability of the answer that is given, and 1 where that is right, both [rows]."""

    said: Floats
    right: Floats


class TaskFamily(Protocol[Keys]):
    """A task of one family: made from what its prepared rows or its adapter say of it, ``spec``.

    Attributes:
        ASKS: what the model is asked: which of a row's :meth:`choices` follows, for a ``text``, or for a ``number``;
            or, of ``each`` row, what that of the :meth:`parts` says which the row is of.
        ANSWER: what the value of an answer is called where it is served.
        HUB: what model hubs call such tasks.
        spec: as task.json has it.
        measure: what the scores of rows add up to.
        classes: the values that every row's answer is one of, in the order of the reports; () if they are not few.
        max_new_tokens: of a ``text``, at most.
        outputs: how many numbers an encoder's head answers a row with: one for each of a row's choices, or one
            for a ``number``; 0 where no head can.
    """

    ASKS: ClassVar[Asked]
    ANSWER: ClassVar[str]
    HUB: ClassVar[str]

    spec: TaskSpec
    measure: Measure
    classes: tuple[str, ...] = ()
    max_new_tokens: int = 0
    outputs: int = 0

    def __init__(self, spec: TaskSpec) -> None: ...

    def parts(self) -> Mapping[str, TaskFamily[Any]]:
        """The tasks that rows are of, by the name that a row's ``task`` has; {} where all are of this one."""
        return {}

    # How a row is read, in stage prepare and in use.

    def columns(self) -> Columns:
        """The columns that a row has where it is asked about."""
        return Columns(text_fields(self.spec.template, self.spec.second_template), self.spec.domain_column)

    def opened(self, raw: RawRow) -> RawRow | Rejection:
        """The row with the columns that the task makes of others; one that lacks those is as it was."""
        return raw

    def prompt(
        self,
        raw: RawRow,  # noqa: ARG002
        texts: Mapping[str, str],
        tokenizer: PreTrainedTokenizerBase,
    ) -> str | Rejection:
        """What the model reads of a row with these texts, by column; or why it cannot."""
        return render_prompt(tokenizer, template=self.spec.template, chat=self.spec.chat, texts=texts)

    def example(self) -> dict[str, Any]:
        """A row to be asked about, as callers give it; its texts say nothing."""
        return dict.fromkeys(self.columns().texts, EXAMPLE)

    def own_choices(self, raw: RawRow, tokenizer: PreTrainedTokenizerBase) -> Target | Rejection:  # noqa: ARG002
        """The choices of a row where they differ by row: a target without an answer."""
        return Target("")

    # How rows are made: with the family's keys of params.yaml, in stage prepare alone.

    @classmethod
    def settings(cls, keys: Keys) -> dict[str, Any]:
        """What of the keys is needed to ask and to read answers: ``spec.settings``."""
        ...

    def expanded(self, raw: RawRow, keys: Keys) -> Iterable[RawRow | Rejection]:  # noqa: ARG002
        """The rows of the task that a row of the data stands for."""
        return (raw,)

    def target(self, raw: RawRow, keys: Keys, tokenizer: PreTrainedTokenizerBase) -> Target | Rejection:
        """What a raw row, which has all columns, says is right; or why it cannot be used."""
        ...

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise PipelineError if the base's tokens cannot tell the answers apart."""

    def check_split(self, split: Split, rows: Sequence[Row]) -> None:
        """Raise PipelineError if nothing can be learned or measured with these rows."""

    # What the model is asked, and how its answers are read: in every other stage, and in use.

    def choices(self, row: Row) -> tuple[str, ...]:
        """The texts one of which follows the prompt, where ``ASKS`` is choices."""
        return row.choices

    def contrast(self, row: Row) -> Contrast | None:  # noqa: ARG002
        """How training sets the choices of a row against each other; None where it learns the completion alone."""
        return None

    def head_target(self, row: Row) -> float:
        """What an encoder's head is trained to answer: the place of the right choice, or the number itself.

        Raises:
            NotImplementedError: of a family that has no ``outputs``, which no encoder is opened for.
        """
        raise NotImplementedError

    def read(self, row: Row, answer: Answer) -> Reading:
        """The answer to a row."""
        ...

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """How good each answer is, [rows]; :attr:`measure` adds them up."""
        ...

    def fine_scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """Scores that tell two models apart where both are right: what the pruner wilcoxon compares, [rows]."""
        return self.scores(rows, answers)

    def confidences(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Confidences | None:  # noqa: ARG002
        """How likely the answers are by the model itself; None of a task whose answers have no probability."""
        return None

    def baselines(self, rows: Sequence[Row]) -> dict[str, Floats]:  # noqa: ARG002
        """Scores of answers that read no prompt, [rows] each, by what they are called; none where there are none.

        ``majority``, where it is there, is what an adapter must beat to be called better.
        """
        return {}

    def summary(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:  # noqa: ARG002
        """What else is reported of all rows together, by name."""
        return {}

    def figures(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, dict[str, float]]:  # noqa: ARG002
        """What else is reported: by class or slice, figures by their names."""
        return {}


def open_family(spec: TaskSpec) -> TaskFamily[Any]:
    """The task that a spec is of.

    Raises:
        PipelineError: if no family has its name.
    """
    return _family(spec.task)(spec)


def family_of(keys: PrepareParams | MixtureParams) -> TaskFamily[Any]:
    """The task that the section ``prepare`` of params.yaml describes."""
    family = _family(keys.task)
    if isinstance(keys, MixtureParams):
        return family(TaskSpec(keys.task, "", chat=False, settings=family.settings(keys)))
    return family(
        TaskSpec(keys.task, keys.template, keys.chat, keys.domain_column, family.settings(keys), keys.second_template)
    )


def task_places(rows: Sequence[Row]) -> dict[str, NDArray[np.int64]]:
    """Where the rows of each task of a mixture are, by its name."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(row.task, []).append(place)
    return {name: np.array(places, dtype=np.int64) for name, places in found.items()}


def _family(name: str) -> type[TaskFamily[Any]]:
    if name not in (*FAMILIES, MIXTURE):
        raise PipelineError(
            f"a task must be of a family that is known here: {', '.join((*FAMILIES, MIXTURE))}",
            got=name,
            do="Correct prepare.task, or install a release that has it.",
        )
    family: type[TaskFamily[Any]] = import_module(f"pipelines.tasks.{name}").FAMILY
    return family
