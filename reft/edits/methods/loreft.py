"""LoReFT (Wu et al. 2024, ReFT, equation 2)."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes, no_identity


def _tensors(hidden_size: int, form: EditForm) -> Shapes:
    rank = form.dimensions
    return {"rotation": (rank, hidden_size), "weight": (rank, hidden_size), "bias": (rank,)}


def _problem(form: EditForm) -> str | None:
    return no_identity("loreft", form)


METHOD = EditMethod(
    name="loreft",
    title="LoReFT",
    formula="h + R^T(f(Wh + b) - Rh)",
    expression="h + (f(linear(h, weight, bias)) - linear(h, rotation)) @ rotation",
    parts=frozenset({"rank", "init", "activation"}),
    tensors=_tensors,
    problem=_problem,
    pyreft="LoreftIntervention",
    pyreft_loads=True,
)
