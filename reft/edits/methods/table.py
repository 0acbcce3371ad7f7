"""The one table of edits: what each name declares, and whether a form is one of its edits."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from reft.edits.methods.forms import EditForm, EditMethod, check_choice

# A line a method. What it is, is declared in the module of this name beside this one; its formula is the class
# ``Formula`` of the module of this name in reft.edits.formulas.
METHOD_NAMES: tuple[str, ...] = (
    "loreft",
    "noreft",
    "direft",
    "direft_orthogonal",
    "consreft",
    "lobireft",
    "red",
)

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[METHOD_NAMES]


def _declared(name: str) -> EditMethod:
    method: EditMethod = import_module(f"reft.edits.methods.{name}").METHOD
    return method


DECLARED: Mapping[str, EditMethod] = MappingProxyType({name: _declared(name) for name in METHOD_NAMES})


def check_form(method: str, form: EditForm) -> None:
    """Refuse a form that a method's formula has no place for.

    Raises:
        ValueError: for a method that is none; a rank, an activation or a bias that it does not have; no rank where it
            needs one; or a start that does not go with it.
    """
    check_choice("method", method, METHOD_NAMES)
    declared = DECLARED[method]
    if form.projection_bias and "projection_bias" not in declared.parts:
        having = " and ".join(name for name, one in DECLARED.items() if "projection_bias" in one.parts)
        raise ValueError(f"only {having} has a projection bias; got {method}; set projection_bias to false")
    if form.activation != "linear" and "activation" not in declared.parts:
        raise ValueError(f"{method} has no activation; got {form.activation!r}; use linear")
    if form.rank is not None and "rank" not in declared.parts:
        raise ValueError(
            f"{method} has no rank, because it edits no subspace; got {form.rank}; set rank to null; in a space of "
            "several methods, search rank when method is another, otherwise: null"
        )
    if form.rank is None and "rank" in declared.parts:
        raise ValueError(f"{method} needs a rank, an integer of at least 1; got none; set it")
    problem = declared.problem(form)
    if problem is not None:
        raise ValueError(problem)
