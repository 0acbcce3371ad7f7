"""The paper's DiReFT (Wu et al. 2024, ReFT, equation 3)."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes


def _tensors(hidden_size: int, form: EditForm) -> Shapes:
    wide = (form.dimensions, hidden_size)
    return {"projection": wide, "weight": wide, "bias": (form.dimensions,)}


METHOD = EditMethod(
    name="direft",
    title="DiReFT",
    formula="h + W2^T f(W1h + b)",
    expression="h + f(linear(h, weight, bias)) @ projection",
    parts=frozenset({"rank", "init", "activation"}),
    tensors=_tensors,
    pyreft="NodireftIntervention",
    pyreft_loads=False,
)
