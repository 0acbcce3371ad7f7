"""NoReFT: LoReFT without orthonormality."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes, no_identity


def _tensors(hidden_size: int, form: EditForm) -> Shapes:
    wide, thin = (form.dimensions, hidden_size), (form.dimensions,)
    shapes: Shapes = {"projection": wide, "weight": wide, "bias": thin}
    return {**shapes, "projection_bias": thin} if form.projection_bias else shapes


def _problem(form: EditForm) -> str | None:
    return no_identity("noreft", form)


METHOD = EditMethod(
    name="noreft",
    title="NoReFT",
    formula="h + W2^T(f(W1h + b) - W2h)",
    expression="h + (f(linear(h, weight, bias)) - linear(h, projection, projection_bias)) @ projection",
    parts=frozenset({"rank", "init", "activation", "projection_bias"}),
    tensors=_tensors,
    problem=_problem,
    pyreft="NoreftIntervention",
    pyreft_loads=False,
)
