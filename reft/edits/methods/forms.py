"""The form of an edit: rank, start, activation, dropout; and how a method is declared. Checked without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Init = Literal["identity", "paper"]
Activation = Literal["linear", "relu", "leaky_relu", "gelu", "gelu_pytorch_tanh", "silu", "tanh"]
DropoutOn = Literal["edit", "output"]


@dataclass(frozen=True)
class EditForm:
    """What decides the form of one intervention beside the width it works on; checks itself.

    Attributes:
        rank: dimensions of the edited subspace; None for an edit of no subspace.
        init: ``identity`` starts with an edit that changes nothing; ``paper`` starts as the authors' code does.
        activation: f, by transformers' name.
        dropout: probability, in training alone.
        dropout_on: what is dropped: numbers of the ``edit``, or of the whole ``output`` h + edit, as pyreft and
            AdapterHub do (which sets coordinates of the residual stream to 0).
        projection_bias: whether NoReFT subtracts W2h + b2 rather than W2h.

    Raises:
        ValueError: at construction, for a value out of range.
    """

    rank: int | None
    init: Init = "identity"
    activation: Activation = "linear"
    dropout: float = 0.0
    dropout_on: DropoutOn = "edit"
    projection_bias: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.rank, int) and not isinstance(self.rank, bool)
        if self.rank is not None and (not whole or self.rank < 1):
            raise ValueError(f"rank must be an integer of at least 1; got {self.rank!r}; correct it")
        check_choice("init", self.init, get_args(Init))
        check_choice("activation", self.activation, get_args(Activation))
        check_choice("dropout_on", self.dropout_on, get_args(DropoutOn))
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a number in [0, 1); got {self.dropout!r}; 0 is none")
        if not isinstance(self.projection_bias, bool):
            raise ValueError(f"projection_bias must be true or false; got {self.projection_bias!r}; use a boolean")

    @property
    def dimensions(self) -> int:
        """The rank, of a method that has one."""
        if self.rank is None:
            raise ValueError("an edit of a subspace has a rank; got none; give one")
        return self.rank


Shapes = dict[str, tuple[int, ...]]


def anything(_form: EditForm) -> str | None:
    """Find no problem."""
    return None


@dataclass(frozen=True)
class EditMethod:
    """What an edit of hidden states is; its formula is a class of :mod:`reft.edits.formulas`.

    Attributes:
        name: in configs.
        title: in text.
        formula: what becomes of h, in letters: R has orthonormal rows, f is the activation.
        parts: which parts of a form it has, of ``rank``, ``init``, ``activation`` and ``projection_bias``. ``init`` is
            one of them if it has several starts.
        tensors: names and shapes of what it trains and an adapter file holds, by hidden size and form.
        expression: the formula as torch has it, over ``h``, ``f``, ``linear`` and the tensors' names, for a loader that
            stands alone (:mod:`reft.formats.standalone`); None if it has none. A tensor that a form lacks is None.
        problem: why there is no such edit of a form, beyond parts that it does not have; None if there is.
        pyreft: pyreft's class; None if it has none.
        pyreft_loads: whether pyreft loads again what it saves of that class.
    """

    name: str
    title: str
    formula: str
    parts: frozenset[str]
    tensors: Callable[[int, EditForm], Shapes]
    expression: str | None = None
    problem: Callable[[EditForm], str | None] = anything
    pyreft: str | None = None
    pyreft_loads: bool = False

    def count_parameters(self, hidden_size: int, form: EditForm) -> int:
        """Return the number of trained values."""
        return sum(math.prod(shape) for shape in self.tensors(hidden_size, form).values())


def no_identity(method: str, form: EditForm) -> str | None:
    """Return why an edit with f(Wh + b) - Rh cannot start at the identity; None if it can, or starts elsewhere."""
    if form.init == "identity" and form.activation != "linear":
        return (
            f"the identity start of {method} needs the linear activation, because f(Rh) - Rh is not 0; "
            f"got {form.activation!r}; use init: paper"
        )
    return None


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}; choose one of them")
