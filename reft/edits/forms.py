"""The form of an edit: rank, start, activation, dropout; checked without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["loreft", "noreft", "direft", "direft_orthogonal", "consreft", "lobireft"]
Init = Literal["identity", "paper"]
Activation = Literal["linear", "relu", "leaky_relu", "gelu", "gelu_pytorch_tanh", "silu", "tanh"]
DropoutOn = Literal["edit", "output"]

METHOD_NAMES: tuple[str, ...] = get_args(Method)
_WITHOUT_ACTIVATION = ("consreft", "lobireft")


@dataclass(frozen=True)
class EditForm:
    """What decides the form of one intervention beside the width it works on; checks itself.

    Attributes:
        rank: dimensions of the edited subspace.
        init: ``identity`` starts with an edit that changes nothing; ``paper`` starts as the authors' code does.
        activation: f, by transformers' name.
        dropout: probability, in training alone.
        dropout_on: what is dropped: numbers of the ``edit``, or of the whole ``output`` h + edit, as pyreft and
            AdapterHub do (which sets coordinates of the residual stream to 0).
        projection_bias: whether NoReFT subtracts W2h + b2 rather than W2h.

    Raises:
        ValueError: at construction, for a value out of range.
    """

    rank: int
    init: Init = "identity"
    activation: Activation = "linear"
    dropout: float = 0.0
    dropout_on: DropoutOn = "edit"
    projection_bias: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be an integer of at least 1; got {self.rank!r}; correct it")
        _check_choice("init", self.init, get_args(Init))
        _check_choice("activation", self.activation, get_args(Activation))
        _check_choice("dropout_on", self.dropout_on, get_args(DropoutOn))
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a number in [0, 1); got {self.dropout!r}; 0 is none")
        if not isinstance(self.projection_bias, bool):
            raise ValueError(f"projection_bias must be true or false; got {self.projection_bias!r}; use a boolean")


def check_form(method: str, form: EditForm) -> None:
    """Refuse a form that a method's formula has no place for.

    Raises:
        ValueError: for a method that is none, or an activation, a start or a bias that does not go with it.
    """
    _check_choice("method", method, METHOD_NAMES)
    if form.projection_bias and method != "noreft":
        raise ValueError(f"only noreft has a projection bias; got {method}; set projection_bias to false")
    if form.activation != "linear" and method in _WITHOUT_ACTIVATION:
        raise ValueError(f"{method} has no activation; got {form.activation!r}; use linear")
    if form.init != "identity":
        return
    if method == "consreft":
        raise ValueError(
            "consreft sets a subspace to a constant, so it has no identity; got init identity; use init: paper"
        )
    if method in ("loreft", "noreft") and form.activation != "linear":
        raise ValueError(
            f"the identity start of {method} needs the linear activation, because f(Rh) - Rh is not 0; "
            f"got {form.activation!r}; use init: paper"
        )
    if method == "direft_orthogonal" and form.activation == "relu":
        raise ValueError(
            "the identity start of direft_orthogonal needs an activation with a slope at 0, or it never moves; "
            "got 'relu'; use init: paper or another activation"
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}; choose one of them")
